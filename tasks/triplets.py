"""Transitions as triplets: the nonzero entries of P(s' | s, a), and how to store them.

Readers of files collect triplets, whose number is that of the nonzero probabilities.
`dense_transition` is the only function that allocates an array of size S × S.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sdm.storage.memory import available_memory, in_words

# Bytes per entry of a dense array while JAX copies it: the original and the copy.
BYTES = 16


class Triplets(NamedTuple):
    """Nonzero transition probabilities, sorted by action, state and next state.

    Attributes:
        action: index a.
        state: index s.
        next_state: index s'.
        probability: P(s' | s, a).

    """

    action: Int[np.ndarray, " N"]
    state: Int[np.ndarray, " N"]
    next_state: Int[np.ndarray, " N"]
    probability: Float[np.ndarray, " N"]


class MemoryLimitError(ValueError):
    """A model that needs more memory than there is."""


def check_memory(size: int, what: str) -> None:
    """Raise `MemoryLimitError` if `size` bytes for `what` exceed the available memory.

    Call this function before allocating.
    """
    available = available_memory()
    if available is not None and size > available:
        raise MemoryLimitError(
            f"{what} needs {in_words(size)} of memory, found {in_words(available)} "
            "available"
        )


def check_size(states: int, actions: int, observations: int | None) -> None:
    """Raise `MemoryLimitError` if the arrays of a model do not fit in memory.

    Args:
        states: number of states S.
        actions: number of actions A.
        observations: number of observations O; None for an MDP.

    """
    symbols = observations or 0
    what = f"a model with {states} states and {actions} actions"
    if observations is not None:
        what = f"a model with {states} states, {actions} actions and {symbols} symbols"
    check_memory(BYTES * actions * states * (states + symbols), what)


def dense_transition(
    triplets: Triplets, *, states: int, actions: int
) -> Float[np.ndarray, "S A S"]:
    """Return P(s' | s, a) as a dense array, the next state last."""
    dense = np.zeros((states, actions, states))
    where = (triplets.state, triplets.action, triplets.next_state)
    dense[where] = triplets.probability
    return dense
