"""The policy protocol, and tabular policies.

A policy acts in N episodes of each of B tasks at once. It receives one observation per
episode (the state if tasks are fully observed) and the reward of its last decision, and
carries its memory between stages. Policies that JAX can trace run in the compiled loop
of `rollout`; a language model implements the same protocol and runs from the host.
"""

from functools import partial
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sdm.tasks.models import MDP, Model


@runtime_checkable
class Policy(Protocol):
    """Interface of a policy."""

    def init(self, model: Model) -> Any:
        """Return the memory at the start of an episode in the tasks of `model`."""

    def act(
        self,
        memory: Any,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], Any]:
        """Choose actions at stage `t` and return the memory for the next stage.

        `reward` is the reward of stage t - 1, and zero at stage 0.
        """
        ...


@runtime_checkable
class Following(Policy, Protocol):
    """A policy that can follow decisions that are not its own.

    Its action is a function of what it observed, did and was paid so far, and its
    memory is None before the first decision.
    """

    def follow(self, memory: Any, action: Int[Array, "B N"]) -> Any:
        """Return the memory after a decision, if it had taken these actions."""
        ...


class TabularPolicy(eqx.Module):
    """A Markov policy given by a table of action probabilities per task.

    Attributes:
        probabilities: π_t(a | s).

    """

    probabilities: Float[Array, "B T S A"]

    def init(self, model: Model) -> None:
        """Return None: the policy has no memory."""

    def act(
        self,
        memory: None,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], None]:
        """Sample actions from the table by inverse transform."""
        chances = self.chances(t, observation)
        return draw(chances, _uniform(key, chances)), None

    def chances(
        self, t: int | Int[Array, ""], observation: Int[Array, "B N"]
    ) -> Float[Array, "B N A"]:
        """Return the action probabilities after an observation at stage `t`."""
        return jnp.take_along_axis(
            self.probabilities[:, t], observation[..., None], axis=1
        )


def _uniform(
    key: Key[Array, "B N"], like: Float[Array, "B N A"]
) -> Float[Array, "B N"]:
    """Return a uniform number for each key."""
    return jax.vmap(jax.vmap(lambda k: jax.random.uniform(k, dtype=like.dtype)))(key)


def draw(
    probabilities: Float[Array, "*#B C"], uniform: Float[Array, "*#B"]
) -> Int[Array, "*B"]:
    """Sample categories by inverse transform: the smallest c with uniform < cdf(c).

    The same uniform number yields nearby categories for nearby distributions, so that
    common random numbers reduce variance. Categories of probability zero are never
    sampled, even if the cumulative sum is rounded.
    """
    cumulative = probabilities.cumsum(-1)
    reached = (uniform * cumulative[..., -1])[..., None] >= cumulative
    possible = probabilities > 0
    last = possible.shape[-1] - 1 - possible[..., ::-1].argmax(-1)
    return jnp.minimum(reached.sum(-1), last).astype(jnp.int32)


def deterministic(policy: Int[Array, "B T S"], actions: int) -> TabularPolicy:
    """Return the policy that takes action `policy[b, t, s]` with probability 1."""
    return TabularPolicy(jax.nn.one_hot(policy, actions, dtype=jnp.result_type(float)))


def uniform_random(mdp: MDP, horizon: int) -> TabularPolicy:
    """Return the policy that takes all admissible actions equally often.

    Duplicate actions count as often as they occur.
    """
    (tasks, states), actions = mdp.initial.shape, mdp.reward.shape[-1]
    shape = (tasks, horizon, states, actions)
    if mdp.admissible is None:
        return TabularPolicy(jnp.full(shape, 1 / actions, mdp.reward.dtype))
    mask = mdp.admissible.astype(mdp.reward.dtype)
    equal = mask / mask.sum(-1, keepdims=True)
    by_stage = equal if equal.ndim == len(shape) else equal[:, None]
    return TabularPolicy(jnp.broadcast_to(by_stage, shape))


class RandomPolicies(eqx.Module):
    """A stationary random policy in each episode.

    After each observation, the action probabilities are uniform on the simplex of the
    admissible actions.

    Attributes:
        keys: a key for the policy of each episode.
        admissible: probabilities of `uniform_random`, positive for admissible actions.

    """

    keys: Key[Array, "B N"]
    admissible: Float[Array, "B T S A"]

    def init(self, model: Model) -> None:
        """Return None: the policy has no memory."""

    def act(
        self,
        memory: None,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], None]:
        """Sample actions of each episode's policy."""
        own = jax.vmap(jax.vmap(jax.random.fold_in))(self.keys, observation)
        weigh = partial(
            jax.random.exponential,
            shape=self.admissible.shape[-1:],
            dtype=self.admissible.dtype,
        )
        possible = TabularPolicy(self.admissible).chances(t, observation) > 0
        chances = jnp.where(possible, jax.vmap(jax.vmap(weigh))(own), 0.0)
        return draw(chances, _uniform(key, chances)), None


def any_optimal(q: Float[Array, "B T S A"]) -> TabularPolicy:
    """Return the policy that takes all actions of the highest value equally often."""
    best = (q == q.max(-1, keepdims=True)).astype(q.dtype)
    return TabularPolicy(best / best.sum(-1, keepdims=True))


def constant_action(mdp: MDP, horizon: int, action: int) -> TabularPolicy:
    """Return the policy that always takes the same action."""
    (tasks, states), actions = mdp.initial.shape, mdp.reward.shape[-1]
    choice = jnp.full((tasks, horizon, states), action, jnp.int32)
    return deterministic(choice, actions)
