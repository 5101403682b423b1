"""Random rewards: the law of the reward that a decision pays.

A model's `reward` is r(s, a), the expected reward, by which solvers plan. Without a
law, a decision pays exactly that. With one, it pays a random reward with this mean,
which episodes contain and agents observe. The reward may depend on the next state.
"""

from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


@runtime_checkable
class RewardLaw(Protocol):
    """Law of the rewards of a batch of tasks.

    A law is a pytree whose arrays have the tasks' batch axes first, so that whatever
    selects tasks of a model selects their laws.
    """

    def draw(
        self,
        task: Int[Array, "B 1"],
        state: Int[Array, "B N"],
        action: Int[Array, "B N"],
        following: Int[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> Float[Array, "B N"]:
        """Draw the reward of one decision in N episodes of each task.

        Args:
            task: index of each row's task.
            state: states.
            action: actions.
            following: next states.
            key: a random key for each decision.

        """
        ...

    def log_likelihood(
        self,
        state: Int[Array, "N T"],
        action: Int[Array, "N T"],
        reward: Float[Array, "N T"],
    ) -> Float[Array, "G N T"]:
        """Return the log-likelihood of rewards in each of G tasks, given the states.

        The next state of decision t < T - 1 is the state of decision t + 1, which is
        also given; that of the last decision is unknown.
        """
        ...


def law_of(model: Any) -> RewardLaw | None:
    """Return the law of a model's rewards; None if they are certain."""
    law: RewardLaw | None = getattr(model, "law", None)
    return law


def realised(
    model: Any,
    expected: Float[Array, "B N"],
    task: Int[Array, "B 1"],
    state: Int[Array, "B N"],
    action: Int[Array, "B N"],
    following: Int[Array, "B N"],
    key: Key[Array, "B N"] | None,
) -> Float[Array, "B N"]:
    """Return the rewards that decisions pay.

    Args:
        model: the model.
        expected: their expectation, -inf if an action is not admissible.
        task: index of each row's task.
        state: states.
        action: actions.
        following: next states.
        key: a random key for each decision; None if the rewards are certain.

    """
    law = law_of(model)
    if law is None:
        return expected
    assert key is not None
    paid = law.draw(task, state, action, following, key).astype(expected.dtype)
    return jnp.where(jnp.isneginf(expected), expected, paid)
