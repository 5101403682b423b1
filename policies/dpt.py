"""Decision-pretrained transformer: the optimal action for a query, given transitions.

A small causal transformer reads the query (the current observation) and then the
transitions of a context. After each transition, it outputs the logits of the optimal
action for the query. If states are observed, the context is the demonstrations, and the
policy is a table; if they are hidden, the episode's own transitions follow the
demonstrations.

Source: Lee, Xie, Pacchiano, Chandak, Finn, Nachum, Brunskill (2023), with their
architecture: 4 pre-norm GPT-2 blocks of width 32, one head, learned positions, no
dropout; a token is a linear map of one-hot (s, a, s') and r. Our changes: the token of
the query includes its stage unless the optimal action is stationary; each component of
an observation has its own one-hot code, so that unseen goals consist of seen parts.
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

TOGETHER = 1024  # sequences per forward pass
Params = Mapping[str, Any]


class Transitions(NamedTuple):
    """Sequences of transitions; -1 stands for an unknown observation or action.

    Attributes:
        seen: observation before the action.
        action: the action.
        following: observation after the action.
        reward: reward of the action.

    """

    seen: Int[Array, "*B L"]
    action: Int[Array, "*B L"]
    following: Int[Array, "*B L"]
    reward: Float[Array, "*B L"]


@dataclass(frozen=True)
class DPTShape:
    """The dimensions of a network.

    Attributes:
        components: size of each component of an observation.
        actions: number of actions.
        stages: number of stages, one-hot in the query's token; 0 to omit the stage.
        length: transitions in the longest context.
        layers: transformer blocks.
        width: width of the residual stream.
        heads: attention heads.
        rewards: whether rewards are observed; if not, they are zero in the tokens.

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
        """Return the number of distinct observations."""
        return prod(self.components)

    @property
    def features(self) -> int:
        """Return the number of features in a token."""
        return 2 * sum(self.components) + self.actions + 1 + self.stages


class DPT(nn.Module):
    """The network, a causal transformer.

    Attributes:
        shape: its dimensions.

    """

    shape: DPTShape

    @nn.compact
    def __call__(self, tokens: Float[Array, "B L F"]) -> Float[Array, "B L A"]:
        """Return logits of the optimal action after each token; the query is first."""
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
            # On a CPU, Flax's attention layer takes 2.5 times as long.
            query, key, value = jnp.moveaxis(
                inner.reshape(size, length, 3, shape.heads, -1), 2, 0
            )
            mixed = jax.nn.dot_product_attention(query, key, value, is_causal=True)
            x = x + dense(shape.width, name=f"attend_{layer}")(mixed.reshape(x.shape))
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
    """Return the query's token, then one token for each transition.

    Args:
        shape: dimensions of the network.
        query: the current observation.
        stage: its stage; ignored if `shape.stages` is 0.
        context: transitions, [*B, L - 1].

    """

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
    """Return the transitions of episodes; the last one's outcome is unknown, -1."""
    seen = jnp.asarray(played.observation, jnp.int32)
    following = jnp.concatenate([seen[..., 1:], jnp.full_like(seen[..., :1], -1)], -1)
    return Transitions(
        seen, jnp.asarray(played.action, jnp.int32), following, played.reward
    )


def one_after_another(episodes: Transitions) -> Transitions:
    """Join the N episodes of each task, [B, N, T] -> [B, N T]."""
    return Transitions(*(x.reshape(*x.shape[:-2], -1) for x in episodes))


def followed_by(first: Transitions, then: Transitions) -> Transitions:
    """Concatenate two sequences of transitions of each task."""
    pairs = zip(first, then, strict=True)
    return Transitions(
        *(jnp.concatenate([a, b.astype(a.dtype)], axis=-1) for a, b in pairs)
    )


def table_policy(
    shape: DPTShape, params: Params, support: Trajectory, *, horizon: int
) -> TabularPolicy:
    """Return the policy for observed states, from a query per task, stage and state.

    Args:
        shape: dimensions of the network.
        params: parameters of the network.
        support: demonstrations of each task.
        horizon: decisions per episode.

    """
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
    """Memory of an episode at stage t: the first t of T transitions are known.

    Attributes:
        transitions: the episode's transitions, [B, N, T].
        seen: the last observation.
        action: the last action.

    """

    transitions: Transitions
    seen: Int[Array, "B N"]
    action: Int[Array, "B N"]


class HistoryPolicy(eqx.Module):
    """The policy for hidden states, which reads demonstrations and the episode so far.

    Attributes:
        params: parameters of the network.
        context: the demonstrations of each task.
        shape: dimensions of the network.
        horizon: decisions per episode.

    """

    params: Params
    context: Transitions
    shape: DPTShape = eqx.field(static=True)
    horizon: int = eqx.field(static=True)

    def init(self, model: Model) -> None:
        """Return None; the first decision makes the memory, for N episodes."""

    def act(
        self,
        memory: Own | None,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], Own]:
        """Take the action with the highest logit after the known transitions."""
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
        last = self.context.seen.shape[-1] + t  # later transitions are unknown
        action = logits[:, last].argmax(-1).reshape(seen.shape).astype(jnp.int32)
        return action, Own(own, seen, action)

    def follow(self, memory: Own, action: Int[Array, "B N"]) -> Own:
        """Return the memory if the last decision had been `action`."""
        return memory._replace(action=action)
