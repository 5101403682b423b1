"""Decision-pretrained transformer: the optimal action for a query, given transitions.

A small causal transformer reads the query (what is seen now) and then the transitions
of a context; after each transition it gives the logits of the optimal action for the
query. Where states are in sight the context is the demonstrations, and the policy is a
table; where they are hidden, the episode's own transitions follow them.

Source: Lee, Xie, Pacchiano, Chandak, Finn, Nachum, Brunskill (2023), with their
architecture: 4 pre-norm GPT-2 blocks of width 32, one head, learned positions, no
dropout; a token is a linear map of one-hot (s, a, s') and r. Ours: the query's stage is
part of its token where the horizon is short, since the optimal action depends on it;
an observation of several components is one-hot in each, so that goals that were never
trained on are made of parts that were.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from sdm.tasks.models import Model
from sdm.tasks.policy import TabularPolicy, deterministic
from sdm.tasks.rollout import Trajectory

TOGETHER = 1024  # sequences computed at once
Params = Mapping[str, Any]


class Transitions(NamedTuple):
    """Transitions in a row; -1 stands for what is not known.

    Attributes:
        seen: before the action.
        action: what was done.
        following: what was seen next.
        reward: what it paid.

    """

    seen: Int[Array, "*B L"]
    action: Int[Array, "*B L"]
    following: Int[Array, "*B L"]
    reward: Float[Array, "*B L"]


@dataclass(frozen=True)
class DPTShape:
    """What a network is built for.

    Attributes:
        components: size of each component of an observation.
        actions: things there are to be done.
        stages: of the query, one-hot in its token; 0 where it does not count.
        length: transitions in the longest context.
        layers: transformer blocks.
        width: of the residual stream.
        heads: of attention.
        rewards: whether rewards are observed; they are zero in tokens otherwise.

    """

    components: tuple[int, ...]
    actions: int
    stages: int
    length: int
    layers: int = 4
    width: int = 32
    heads: int = 1
    rewards: bool = True

    @property
    def symbols(self) -> int:
        """Number of different observations."""
        return prod(self.components)

    @property
    def features(self) -> int:
        """Numbers in a token."""
        return 2 * sum(self.components) + self.actions + 1 + self.stages


class DPT(nn.Module):
    """The network."""

    shape: DPTShape

    @nn.compact
    def __call__(self, tokens: Float[Array, "B L F"]) -> Float[Array, "B L A"]:
        """Logits of the optimal action after each token, the query being the first."""
        shape, (size, length, _) = self.shape, tokens.shape
        initial = nn.initializers.normal(0.02)
        dense = partial(nn.Dense, kernel_init=initial)
        x = dense(shape.width, name="embed")(tokens)
        places = (shape.length + 1, shape.width)
        place = self.param("position", initial, places, jnp.float32)
        x = x + place[None, :length]
        for layer in range(shape.layers):
            inner = nn.LayerNorm(name=f"norm_a_{layer}")(x)
            inner = dense(3 * shape.width, name=f"query_key_value_{layer}")(inner)
            # Flax's own attention layer takes two and a half times as long on a CPU.
            query, key, value = jnp.moveaxis(
                inner.reshape(size, length, 3, shape.heads, -1), 2, 0
            )
            heard = jax.nn.dot_product_attention(query, key, value, is_causal=True)
            x = x + dense(shape.width, name=f"attend_{layer}")(heard.reshape(x.shape))
            inner = nn.LayerNorm(name=f"norm_b_{layer}")(x)
            inner = nn.gelu(dense(4 * shape.width, name=f"in_{layer}")(inner))
            x = x + dense(shape.width, name=f"out_{layer}")(inner)
        return dense(shape.actions, name="head")(nn.LayerNorm(name="norm")(x))


def tokens_of(
    shape: DPTShape,
    query: Int[Array, "*B"],
    stage: Int[Array, "*B"],
    context: Transitions,
) -> Float[Array, "*B L F"]:
    """The query's token, then one for each transition."""

    def one_hot(index: Int[Array, "*I"], size: int) -> Float[Array, "*I C"]:
        return jax.nn.one_hot(index, size, dtype=jnp.float32)  # zeros for -1

    def seen_as(index: Int[Array, "*I"]) -> Float[Array, "*I C"]:
        parts, left = [], index
        for size in reversed(shape.components):
            left, value = jnp.divmod(left, jnp.asarray(size, index.dtype))
            parts.append(one_hot(jnp.where(index < 0, -1, value), size))
        return jnp.concatenate(parts[::-1], axis=-1)

    def token(
        seen: Array, action: Array, following: Array, reward: Array, stage: Array
    ) -> Array:
        parts = (
            seen_as(seen),
            one_hot(action, shape.actions),
            seen_as(following),
            reward.astype(jnp.float32)[..., None],
            one_hot(stage, shape.stages),
        )
        return jnp.concatenate(parts, axis=-1)

    none = jnp.full(query.shape, -1, jnp.int32)
    first = token(query, none, none, jnp.zeros(query.shape), stage)
    past = jnp.full(context.seen.shape, -1, jnp.int32)
    return jnp.concatenate([first[..., None, :], token(*context, past)], axis=-2)


def transitions_of(played: Trajectory) -> Transitions:
    """Transitions of episodes; where the last decision led to was not seen."""
    seen = jnp.asarray(played.observation, jnp.int32)
    following = jnp.concatenate([seen[..., 1:], jnp.full_like(seen[..., :1], -1)], -1)
    return Transitions(
        seen, jnp.asarray(played.action, jnp.int32), following, played.reward
    )


def one_after_another(episodes: Transitions) -> Transitions:
    """Join the N episodes of each task, [B, N, T] -> [B, N T]."""
    return Transitions(*(x.reshape(*x.shape[:-2], -1) for x in episodes))


def followed_by(first: Transitions, then: Transitions) -> Transitions:
    """The transitions of both, in this order."""
    pairs = zip(first, then, strict=True)
    return Transitions(
        *(jnp.concatenate([a, b.astype(a.dtype)], axis=-1) for a, b in pairs)
    )


def table_policy(
    shape: DPTShape, params: Params, support: Trajectory, *, horizon: int
) -> TabularPolicy:
    """Act on states in sight: one query for every task, stage and state."""
    context = one_after_another(transitions_of(support))
    stages = np.arange(horizon if shape.stages else 1)
    tasks, states = len(context.seen), np.arange(shape.symbols)
    task, stage, state = (
        x.ravel() for x in np.meshgrid(np.arange(tasks), stages, states, indexing="ij")
    )

    @jax.jit
    def choose(index: Array, stage: Array, state: Array) -> Array:
        shown = Transitions(*(x[index] for x in context))
        logits = DPT(shape).apply(params, tokens_of(shape, state, stage, shown))
        assert isinstance(logits, jax.Array)
        return logits[:, -1].argmax(-1)

    parts = [
        choose(*(jnp.asarray(x[i : i + TOGETHER]) for x in (task, stage, state)))
        for i in range(0, len(task), TOGETHER)
    ]
    chosen = jnp.concatenate(parts).reshape(tasks, len(stages), len(states))
    table = jnp.broadcast_to(chosen, (tasks, horizon, len(states)))
    return deterministic(table.astype(jnp.int32), shape.actions)


class Own(NamedTuple):
    """What an episode has shown so far: the first t of T transitions are known."""

    transitions: Transitions
    seen: Int[Array, "B N"]
    action: Int[Array, "B N"]


class HistoryPolicy(eqx.Module):
    """Acts on symbols: after the demonstrations it reads the episode so far.

    Attributes:
        params: of the network.
        context: the demonstrations of each task.
        shape: of the network.
        horizon: decisions per episode.

    """

    params: Params
    context: Transitions
    shape: DPTShape = eqx.field(static=True)
    horizon: int = eqx.field(static=True)

    def init(self, model: Model) -> None:
        """The first decision begins: it knows the number of episodes."""

    def act(
        self,
        memory: Own | None,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], Own]:
        """Take the action of the highest logit after all that is known."""
        seen = observation.astype(jnp.int32)
        earned = reward if self.shape.rewards else jnp.zeros_like(reward)
        if memory is None:
            blank = jnp.full((*seen.shape, self.horizon), -1, jnp.int32)
            paid = jnp.zeros(blank.shape, reward.dtype)
            own = Transitions(blank, blank, blank, paid)
        else:
            latest = (memory.seen, memory.action, seen, earned)
            own = Transitions(
                *(
                    old.at[..., t - 1].set(new)
                    for old, new in zip(memory.transitions, latest, strict=True)
                )
            )
        episodes = seen.shape[1]
        shown = Transitions(
            *(jnp.repeat(x[:, None], episodes, axis=1) for x in self.context)
        )
        shown = followed_by(shown, own)
        stage = jnp.full(seen.shape, t, jnp.int32)
        tokens = tokens_of(self.shape, seen, stage, shown)
        logits = DPT(self.shape).apply(
            self.params, tokens.reshape(-1, *tokens.shape[2:])
        )
        assert isinstance(logits, jax.Array)
        last = self.context.seen.shape[-1] + t  # tokens after that are not yet known
        action = logits[:, last].argmax(-1).reshape(seen.shape).astype(jnp.int32)
        return action, Own(own, seen, action)
