"""The policy protocol, and the policies that are tables.

A policy plays N episodes of each of B tasks at once. It sees one observation per
episode (the state itself where tasks are fully observed) and the reward of its last
decision, and carries whatever it must remember in a memory of its own. Policies made
of JAX operations run inside `rollout`'s compiled loop; a language model implements the
same protocol and is stepped from the host.
"""

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sdm.tasks.models import MDP, Model


@runtime_checkable
class Policy(Protocol):
    """What a policy must be able to do."""

    def init(self, model: Model) -> Any:
        """Memory at the start of an episode in the tasks of `model`."""

    def act(
        self,
        memory: Any,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], Any]:
        """Choose actions at stage `t` and return the memory for the next stage.

        `reward` is that of stage t - 1, and zero at stage 0.
        """
        ...


class TabularPolicy(eqx.Module):
    """A Markov policy given by its action probabilities, one table a task.

    Attributes:
        probabilities: π_t(a|s).

    """

    probabilities: Float[Array, "B T S A"]

    def init(self, model: Model) -> None:
        """Nothing is remembered."""

    def act(
        self,
        memory: None,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], None]:
        """Draw actions from the table by inverse transform, one uniform each."""
        chances = jnp.take_along_axis(
            self.probabilities[:, t], observation[..., None], axis=1
        )
        uniform = jax.vmap(
            jax.vmap(lambda k: jax.random.uniform(k, dtype=chances.dtype))
        )
        return draw(chances, uniform(key)), None


def draw(
    probabilities: Float[Array, "*#B C"], uniform: Float[Array, "*#B"]
) -> Int[Array, "*B"]:
    """Categories drawn by inverse transform: the smallest c with uniform < cdf(c).

    The same uniform number gives nearby categories for nearby distributions, which is
    what makes common random numbers reduce variance. A category of probability zero is
    never drawn, whatever the rounding of the cumulative sum.
    """
    cumulative = probabilities.cumsum(-1)
    reached = (uniform * cumulative[..., -1])[..., None] >= cumulative
    possible = probabilities > 0
    last = possible.shape[-1] - 1 - possible[..., ::-1].argmax(-1)
    return jnp.minimum(reached.sum(-1), last).astype(jnp.int32)


def deterministic(policy: Int[Array, "B T S"], actions: int) -> TabularPolicy:
    """The policy that takes action `policy[b, t, s]` with certainty."""
    return TabularPolicy(jax.nn.one_hot(policy, actions, dtype=jnp.result_type(float)))


def uniform_random(mdp: MDP, horizon: int) -> TabularPolicy:
    """Every action equally likely, duplicates of an action counted separately."""
    tasks, states, actions = mdp.reward.shape
    shape = (tasks, horizon, states, actions)
    return TabularPolicy(jnp.full(shape, 1 / actions, mdp.reward.dtype))


def any_optimal(q: Float[Array, "B T S A"]) -> TabularPolicy:
    """Every action of the highest value equally likely."""
    best = (q == q.max(-1, keepdims=True)).astype(q.dtype)
    return TabularPolicy(best / best.sum(-1, keepdims=True))


def constant_action(mdp: MDP, horizon: int, action: int) -> TabularPolicy:
    """Always the same action."""
    tasks, states, actions = mdp.reward.shape
    choice = jnp.full((tasks, horizon, states), action, jnp.int32)
    return deterministic(choice, actions)
