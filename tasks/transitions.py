"""Transition probabilities, dense or as lists of possible next states.

A dense transition is an array [*B, S, A, S]. A sparse one is a `SparseTransition`,
which lists the N next states that a state and an action can lead to. Only `dense` makes
an array of size S × S of it.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from sdm.storage.memory import check_memory
from sdm.tasks.array_checks import check_rows, raise_first
from sdm.tasks.batches import take_tasks as take_tasks


class SparseTransition(eqx.Module):
    """Transition probabilities of N possible next states.

    A next state of probability zero fills up the list of a state and action with fewer
    than N. Next states ascend, and none has a positive probability twice, so that
    episodes of a sparse and a dense model with the same random numbers agree.

    Attributes:
        successors: index of each next state; without the axes *B if all tasks have the
            same.
        probabilities: P(s' | s, a) of each next state.

    """

    successors: Int[Array, "... S A N"]
    probabilities: Float[Array, "... S A N"]

    @property
    def shared(self) -> bool:
        """Whether all tasks of a batch have the same next states."""
        return self.successors.ndim < self.probabilities.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the dense array, [*B, S, A, S]."""
        *batch, states, actions, _ = self.probabilities.shape
        return (*batch, states, actions, states)

    @property
    def dtype(self) -> np.dtype:
        """Type of the probabilities."""
        return np.dtype(self.probabilities.dtype)

    def per_task(self) -> list[bool]:
        """Return which of its arrays have the axis of tasks; see `per_task`."""
        return [not self.shared, True]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return int(self.successors.nbytes + self.probabilities.nbytes)


SHORT = 16  # next states

Transition = Float[Array, "... S A S"] | SparseTransition


def check_lists(index: np.ndarray, chance: np.ndarray) -> None:
    """Raise an error unless an index of next states agrees with probabilities."""
    if index.dtype.kind not in "iu":
        raise TypeError(
            f"successors has dtype {index.dtype}: must be integers, indices of states"
        )
    if chance.ndim < 3 or index.shape not in (chance.shape, chance.shape[-3:]):
        raise ValueError(
            f"successors has shape {index.shape}: must be [S, A, N] or [*B, S, A, N], "
            f"to agree with the shape of probabilities, {chance.shape}"
        )
    states = chance.shape[-3]
    raise_first(
        "successors",
        (index < 0) | (index >= states),
        lambda i: f" = {index[i]}: must be a state, 0 to {states - 1}",
        "entries",
    )


def chances(transition: Any) -> Any:
    """Return the array of probabilities; another array is returned as it is."""
    if isinstance(transition, SparseTransition):
        return transition.probabilities
    return transition


def check_transition(transition: Transition) -> None:
    """Raise `ValueError` unless rows are distributions over states that exist."""
    if isinstance(transition, SparseTransition):
        index, chance = (
            np.asarray(x) for x in (transition.successors, transition.probabilities)
        )
        check_lists(index, chance)
        if (np.diff(index, axis=-1) < 0).any():
            raise ValueError(
                "successors must ascend along the last axis: make the transition with "
                "`sparse_transition`, which sorts them"
            )
    check_rows("transition", chances(transition))


def is_sparse(transition: Transition) -> bool:
    """Return whether a transition lists possible next states."""
    return isinstance(transition, SparseTransition)


def dense(transition: Any) -> Any:
    """Return a transition as one array [*B, S, A, S]; an array is returned as it is.

    Raises:
        MemoryLimitError: if it does not fit in memory.

    """
    if not isinstance(transition, SparseTransition):
        return transition
    chance = transition.probabilities
    size = math.prod(transition.shape) * chance.dtype.itemsize
    check_memory(size, f"a dense transition of shape {transition.shape}")
    index = jnp.broadcast_to(transition.successors, chance.shape)
    flat = jnp.zeros((chance[..., 0].size, transition.shape[-1]), chance.dtype)
    row = jnp.arange(len(flat))[:, None]
    count = chance.shape[-1]
    filled = flat.at[row, index.reshape(-1, count)].add(chance.reshape(-1, count))
    return filled.reshape(transition.shape)


def expected(
    transition: Transition, value: Float[Array, "*#B S"]
) -> Float[Array, "*B S A"]:
    """Return Σ_s' P(s' | s, a) v(s') of every state and action.

    Leading axes of `value` are broadcast: with K models, pass a value [*B, 1, S].
    """
    if not isinstance(transition, SparseTransition):
        return jnp.einsum("...san,...n->...sa", transition, value)
    ahead = at_successors(transition.successors, value)
    return (transition.probabilities * ahead).sum(-1)


def expectation(transition: Transition) -> Callable[[Array], Array]:
    """Return `expected` of one task's transition, [S] to [S, A], for repeated use.

    Short lists are read one next state of all states and actions after the other, in
    half the time.
    """
    if not isinstance(transition, SparseTransition):
        return lambda value: expected(transition, value)
    states, actions, count = transition.probabilities.shape
    if count > SHORT:
        return lambda value: expected(transition, value)
    lists, chance = (
        jnp.moveaxis(x, -1, 0).reshape(count, -1)
        for x in (transition.successors, transition.probabilities)
    )

    def ahead(value: Float[Array, " S"]) -> Float[Array, "S A"]:
        parts = (
            p * value.at[i].get(mode="promise_in_bounds")
            for p, i in zip(chance, lists, strict=True)
        )
        return sum(parts, jnp.zeros((), value.dtype)).reshape(states, actions)

    return ahead


def at_successors(
    successors: Int[Array, "*#B S A N"], value: Shaped[Array, "*#B S"]
) -> Shaped[Array, "*B S A N"]:
    """Return the value of every listed next state."""
    if successors.ndim == 3:
        # Indices were checked when the list was made.
        return value.at[..., successors].get(mode="promise_in_bounds")
    batch = jnp.broadcast_shapes(successors.shape[:-3], value.shape[:-1])
    flat = jnp.broadcast_to(successors, (*batch, *successors.shape[-3:]))
    every = jnp.broadcast_to(value, (*batch, value.shape[-1]))
    ahead = jnp.take_along_axis(
        every, flat.reshape(*batch, -1), axis=-1, mode="promise_in_bounds"
    )
    return ahead.reshape(flat.shape)


def reaches(
    transition: Transition, chosen: Bool[Array, "*#B S"]
) -> Bool[Array, "*B S A"]:
    """Return whether a state and action can lead to one of the chosen states."""
    if not isinstance(transition, SparseTransition):
        return ((transition > 0) & chosen[..., None, None, :]).any(-1)
    there = at_successors(transition.successors, chosen)
    return ((transition.probabilities > 0) & there).any(-1)


def rows(transition: Any, *place: Any) -> tuple[Any, Any]:
    """Return the probabilities of next states after a state and an action each.

    Indices are of task, state and action, or of state and action for one task. Next
    states have the shape of the probabilities, or are None for all states in order.
    """
    if not isinstance(transition, SparseTransition):
        return transition[place], None
    lists = transition.successors
    return transition.probabilities[place], lists[place[len(place) + 1 - lists.ndim :]]


def likelihood(transition: Transition, *move: Int[Array, "..."]) -> Float[Array, "..."]:
    """Return P(s' | s, a) [B, *C] of moves s, a and s' [*C] in each task of a batch."""
    *place, following = move
    if not isinstance(transition, SparseTransition):
        return transition[:, *place, following]
    chance, there = rows(transition, slice(None), *place)
    met = jnp.broadcast_to(following[..., None], chance.shape)
    return jnp.where(jnp.broadcast_to(there, met.shape) == met, chance, 0).sum(-1)


def predicted(
    transition: Transition,
    belief: Float[Array, "B N K S"],
    action: Int[Array, "B N"],
) -> Float[Array, "B N K S"]:
    """Return Σ_s b_k(s) P_k(s' | s, a) in N episodes of each task.

    Args:
        transition: transitions [B, K, S, A, S] of K models of each task.
        belief: joint weight of model and state.
        action: action of each episode.

    """
    task = jnp.arange(len(belief))[:, None]
    if not isinstance(transition, SparseTransition):
        moves = jnp.moveaxis(transition, 3, 1)[task, action]  # [B, N, K, S, S']
        return jnp.einsum("bnks,bnksm->bnkm", belief, moves)
    chance = jnp.moveaxis(transition.probabilities, 3, 1)[task, action]
    mass = belief[..., None] * chance  # [B, N, K, S, successors]
    if transition.shared:
        lists = jnp.swapaxes(transition.successors, 0, 1)[action][:, :, None]
    else:
        lists = jnp.moveaxis(transition.successors, 3, 1)[task, action]
    states = belief.shape[-1]
    place = jnp.broadcast_to(lists, mass.shape).reshape(-1, mass[0, 0, 0].size)
    row = jnp.arange(len(place))[:, None]
    blank = jnp.zeros((len(place), states), mass.dtype)
    return blank.at[row, place].add(mass.reshape(place.shape)).reshape(belief.shape)


def by_task(transition: Transition) -> tuple[Any, Callable[[Any], Transition]]:
    """Return the arrays that have an axis of tasks, and what rebuilds a transition.

    To work on some tasks of a batch, select them in the arrays, then rebuild.
    """
    if isinstance(transition, SparseTransition) and transition.shared:
        lists = transition.successors
        return transition.probabilities, lambda chance: SparseTransition(lists, chance)
    return transition, lambda arrays: arrays


def of_tasks(transition: Transition, chosen: Any) -> Transition:
    """Return the transitions of some tasks, chosen on the first axis."""
    arrays, rebuild = by_task(transition)
    return rebuild(jax.tree.map(lambda x: x[chosen], arrays))


def flat(transition: Transition, axes: int) -> Transition:
    """Return the transitions of a batch with one axis in place of the first `axes`."""
    arrays, rebuild = by_task(transition)
    return rebuild(jax.tree.map(lambda x: x.reshape(-1, *x.shape[axes:]), arrays))


def of_models(transition: Transition, chosen: Any) -> Transition:
    """Return the transitions [*B, K, S, A, S] of some of the K models."""
    arrays, rebuild = by_task(transition)
    place = (..., chosen, slice(None), slice(None), slice(None))
    return rebuild(jax.tree.map(lambda x: x[place], arrays))


def of_one_model(transition: Transition) -> Transition:
    """Return transitions with an axis K of one model before the last three axes."""
    arrays, rebuild = by_task(transition)
    return rebuild(jax.tree.map(lambda x: x[..., None, :, :, :], arrays))
