"""Transitions as triplets: the nonzero entries of P(s' | s, a), and how to store them.

Readers of files collect triplets, whose number is that of the nonzero probabilities.
`transition_of` lists the next states if that takes less than a quarter of the memory of
an array of size S × S.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from sdm.storage.memory import check_memory
from sdm.tasks.transitions import SparseTransition, Transition

# Bytes per entry of a dense array while JAX copies it: the original and the copy.
BYTES = 16
LISTED = 2 * (4 + 8)  # the same for an index and a probability
SPARE = 4  # lists are used if they take at most this part of the dense array


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


def summed_triplets(
    action: Int[np.ndarray, " M"],
    state: Int[np.ndarray, " M"],
    next_state: Int[np.ndarray, " M"],
    probability: Float[np.ndarray, " M"],
) -> Triplets:
    """Return sorted triplets, with the sum of the probabilities of equal indices."""
    where, inverse = np.unique(
        np.stack([action, state, next_state]), axis=1, return_inverse=True
    )
    total = np.bincount(inverse, weights=probability, minlength=where.shape[1])
    possible = total > 0
    a, s, following = where[:, possible]
    return Triplets(a, s, following, total[possible])


def check_size(states: int, actions: int, observations: int | None) -> None:
    """Raise `MemoryLimitError` if the arrays of a model do not fit in memory.

    Args:
        states: number of states S.
        actions: number of actions A.
        observations: number of observations O; None for an MDP.

    """
    # Transitions may be lists: `transition_of` checks them.
    what = f"a model with {states} states and {actions} actions"
    if observations is not None:
        what = what.replace(" and", ",") + f" and {observations} symbols"
    check_memory(BYTES * actions * states * (observations or 1), what)


def transition_of(triplets: Triplets, *, states: int, actions: int) -> Transition:
    """Return P(s' | s, a), as lists of next states if that is much smaller.

    Raises:
        MemoryLimitError: if it does not fit in memory.

    """
    row = triplets.action * states + triplets.state
    count = np.bincount(row, minlength=states * actions)
    longest = int(count.max())
    listed, full = (states * actions * x for x in (longest * LISTED, states * BYTES))
    what = f"a model with {states} states and {actions} actions"
    if listed * SPARE > full:
        check_memory(full, what)
        return jnp.asarray(_dense_transition(triplets, states=states, actions=actions))
    check_memory(listed, f"{what}, and up to {longest} next states of each,")
    index = np.zeros((states, actions, longest), np.int32)
    chance = np.zeros(index.shape)
    place = np.arange(len(row)) - np.repeat(count.cumsum() - count, count)
    where = (triplets.state, triplets.action, place)
    index[where], chance[where] = triplets.next_state, triplets.probability
    # Where a list is shorter, its last state fills it up, with probability zero.
    index = np.maximum.accumulate(index, axis=-1)
    return SparseTransition(jnp.asarray(index), jnp.asarray(chance))


def _dense_transition(
    triplets: Triplets, *, states: int, actions: int
) -> Float[np.ndarray, "S A S"]:
    """Return P(s' | s, a) as a dense array, the next state last."""
    dense = np.zeros((states, actions, states))
    where = (triplets.state, triplets.action, triplets.next_state)
    dense[where] = triplets.probability
    return dense
