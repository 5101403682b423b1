"""Make sparse transitions of lists, of compressed sparse rows, and of dense arrays."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.tasks.transitions import SparseTransition, check_lists


def sparse_transition(successors: object, probabilities: object) -> SparseTransition:
    """Return a sparse transition, with ascending next states and duplicates merged.

    A next state that is listed several times for a state and action has the sum of the
    probabilities. It reads values on the host.

    Args:
        successors: indices of next states [S, A, N], or [*B, S, A, N] if they differ
            between tasks.
        probabilities: P(s' | s, a) of each [*B, S, A, N].

    Raises:
        ValueError: if shapes do not agree or an index is out of range.
        TypeError: if an index is not an integer.

    """
    index, chance = np.asarray(successors), np.array(probabilities)
    check_lists(index, chance)
    if (np.diff(index, axis=-1) > 0).all():  # nothing to sort or to merge
        return SparseTransition(jnp.asarray(index, jnp.int32), jnp.asarray(chance))
    order = np.argsort(index, axis=-1, kind="stable")
    index = np.take_along_axis(index, order, -1)
    chance = np.take_along_axis(chance, np.broadcast_to(order, chance.shape), -1)
    for n in range(index.shape[-1] - 1, 0, -1):
        again = np.broadcast_to(index[..., n] == index[..., n - 1], chance.shape[:-1])
        chance[..., n - 1] += np.where(again, chance[..., n], 0)
        chance[..., n][again] = 0
    return SparseTransition(jnp.asarray(index, jnp.int32), jnp.asarray(chance))


def transition_from_csr(
    data: object, indices: object, indptr: object, *, states: int, actions: int
) -> SparseTransition:
    """Return the transition of a matrix in compressed sparse rows, as of SciPy.

    Args:
        data: probabilities of the entries.
        indices: next state of each entry.
        indptr: first entry of each row, and the number of entries; row s A + a is that
            of state s and action a.
        states: number of states S.
        actions: number of actions A.

    Raises:
        ValueError: if the arrays do not agree.
        TypeError: if an index is not an integer.

    """
    chance, index, first = (np.asarray(x) for x in (data, indices, indptr))
    if first.shape != (states * actions + 1,) or chance.shape != index.shape:
        raise ValueError(
            f"indptr has shape {first.shape}, data {chance.shape}, indices "
            f"{index.shape}: must be ({states * actions + 1},) for {states} states and "
            f"{actions} actions, and two equal shapes"
        )
    count = np.diff(first)
    if (count < 0).any() or first[0] != 0 or first[-1] != len(chance):
        raise ValueError(
            f"indptr: must rise from 0 to {len(chance)}, the number of entries"
        )
    shape = (states * actions, max(1, int(count.max())))
    lists, weights = np.zeros(shape, index.dtype), np.zeros(shape, chance.dtype)
    filled = np.arange(shape[1]) < count[:, None]
    lists[filled], weights[filled] = index, chance
    axes = (states, actions, shape[1])
    return sparse_transition(lists.reshape(axes), weights.reshape(axes))


def sparse(transition: Float[Array, "*B S A S"]) -> SparseTransition:
    """Return the sparse form of a dense transition; it reads values on the host.

    All tasks share one list of next states per state and action if the longest is no
    longer than it would be for some task alone.
    """
    array = np.asarray(transition)
    possible = np.asarray(array > 0)
    together = np.asarray(possible.any(tuple(range(array.ndim - 3))))
    if together.sum(-1).max() == possible.sum(-1).max():
        possible = together
    count = max(1, int(possible.sum(-1).max()))
    # A stable sort puts the possible states first, ascending, then the first others.
    index = np.sort(np.argsort(~possible, axis=-1, kind="stable")[..., :count], -1)
    every = np.broadcast_to(index, (*array.shape[:-1], count))
    return SparseTransition(
        jnp.asarray(index, jnp.int32),
        jnp.asarray(np.take_along_axis(array, every, axis=-1)),
    )
