"""Hide components of the states of MDPs: models with mixed observability.

The MDPs list their possible next states, which all tasks share. Which entry of a list
belongs to which visible and hidden value is computed once, on the host; probabilities
are then only gathered, so that no array has an entry for each pair of states.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sdm.tasks.models import MDP
from sdm.tasks.momdp import MOMDP
from sdm.tasks.transitions import SparseTransition


@dataclass(frozen=True)
class Layout:
    """States by their visible and hidden parts, and where moves are listed.

    Attributes:
        state: the state of each visible and hidden value.
        successors: visible values that can follow a visible value and an action.
        entry: entry of the MDP's list that leads to each of them and to each hidden
            value; N, the length of the list, for none. If the hidden part never
            changes, it has no axis of next hidden values.

    """

    state: Int[np.ndarray, "X Y"]
    successors: Int[np.ndarray, "X A M"]
    entry: Int[np.ndarray, "X Y A M ..."]


def split_states(
    sizes: tuple[int, ...], hidden: tuple[int, ...]
) -> tuple[Int[np.ndarray, " S"], Int[np.ndarray, " S"]]:
    """Return the visible and the hidden value of every state.

    Args:
        sizes: number of values of each component of a state, in row-major order.
        hidden: the components that are hidden.

    """
    values = np.indices(sizes).reshape(len(sizes), -1)

    def number(chosen: list[int]) -> Int[np.ndarray, " S"]:
        found = np.zeros(math.prod(sizes), int)
        for each in chosen:
            found = found * sizes[each] + values[each]
        return found

    shown = [each for each in range(len(sizes)) if each not in hidden]
    return number(shown), number(list(hidden))


def layout(
    successors: Int[np.ndarray, "S A N"],
    possible: Bool[np.ndarray, "S A N"],
    visible: Int[np.ndarray, " S"],
    hidden: Int[np.ndarray, " S"],
) -> Layout:
    """Arrange the moves of MDPs by visible and hidden values.

    Args:
        successors: the next states that are listed.
        possible: which of them any task can reach.
        visible: the visible value of each state.
        hidden: its hidden value; the two determine the state.

    """
    states, actions, count = successors.shape
    shown, values = int(visible.max()) + 1, int(hidden.max()) + 1
    state = np.zeros((shown, values), int)
    state[visible, hidden] = np.arange(states)
    s, a, n = np.nonzero(possible)
    after = successors[s, a, n]
    decision = visible[s] * actions + a
    reached = np.unique(decision * shown + visible[after])
    starts = np.searchsorted(reached // shown, np.arange(1, shown * actions))
    lists = np.split(reached, starts)
    width = max(map(len, lists))
    # Lists of equal length, which ascend and have no value twice.
    every = np.arange(min(shown, 2 * width))
    full = [
        np.union1d(own, np.setdiff1d(every, own)[: width - len(own)])
        for own in (each % shown for each in lists)
    ]
    table = np.stack(full)
    keys = (np.arange(len(table))[:, None] * shown + table).ravel()
    place = np.searchsorted(keys, decision * shown + visible[after]) % width
    row = (visible[s], hidden[s], a, place)
    if (hidden[s] == hidden[after]).all():
        entry = np.full((shown, values, actions, width), count)
        entry[row] = n
    else:
        entry = np.full((shown, values, actions, width, values), count)
        entry[*row, hidden[after]] = n
    return Layout(state, table.reshape(shown, actions, width).astype(np.int32), entry)


def hide(model: MDP, parts: Layout) -> MOMDP:
    """Return the tasks of an MDP in which agents see the visible part of the state.

    Args:
        model: the tasks, whose transitions have the lists of the layout.
        parts: the layout.

    """
    assert isinstance(model.transition, SparseTransition)
    chance = model.transition.probabilities[..., parts.state, :, :]
    joint = _gathered(chance, parts.entry)
    moved = None
    if parts.entry.ndim > parts.state.ndim + 2:
        joint, moved = _factors(joint, parts.state.shape[1])
    return MOMDP(
        transition=joint,
        reward=model.reward[..., parts.state, :],
        initial=model.initial[..., parts.state],
        discount=model.discount,
        successors=jnp.asarray(parts.successors),
        hidden_transition=moved,
    )


def _gathered(
    chance: Float[Array, "*B X Y A N"], entry: Int[np.ndarray, "X Y A M ..."]
) -> Float[Array, "..."]:
    """Return the probabilities of listed moves; 0 for those that are not listed."""
    wide = jnp.concatenate([chance, jnp.zeros_like(chance[..., :1])], axis=-1)
    place = jnp.asarray(entry.reshape(*entry.shape[:3], -1), jnp.int32)
    place = jnp.broadcast_to(place, (*chance.shape[:-1], place.shape[-1]))
    found = jnp.take_along_axis(wide, place, axis=-1)
    return found.reshape(*chance.shape[:-1], *entry.shape[3:])


def _factors(
    joint: Float[Array, "*B X Y A M Z"], hidden: int
) -> tuple[Float[Array, "*B X Y A M"], Float[Array, "*B X Y A M Z"]]:
    """Return P(x' | x, y, a) and P(y' | x, y, a, x')."""
    chance = joint.sum(-1)
    some = (chance > 0)[..., None]
    # If the visible value cannot follow, the hidden value stays.
    stays = jnp.eye(hidden, dtype=joint.dtype)[:, None, None, :]
    stays = jnp.broadcast_to(stays, joint.shape)
    ratio = joint / jnp.where(some, chance[..., None], 1)
    return chance, jnp.where(some, ratio, stays)
