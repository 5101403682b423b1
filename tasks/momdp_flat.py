"""Models with mixed observability as equivalent models of other classes.

With Y hidden values and O symbols, the state (x, y) has the number x Y + y, and the
symbol (x, o) has the number x O + o: the agent sees x in every symbol.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.tasks.models import MDP, POMDP, Model, states_observed
from sdm.tasks.momdp import AXES, MOMDP
from sdm.tasks.policy import Policy
from sdm.tasks.rewards import observe_rewards
from sdm.tasks.transition_lists import sparse_transition
from sdm.tasks.transitions import SparseTransition, dense


def flat_pomdp(model: MOMDP) -> POMDP:
    """Return the POMDP with states (x, y) and symbols (x, o).

    It has lists of next states, but an observation matrix of A X Y X O entries: use it
    for small models. If the agent observes its rewards, states and symbols also have
    the level of the last reward: see `observe_rewards`.
    """
    visible, hidden, actions, symbols = model.sizes
    seen = np.eye(visible, dtype=np.asarray(model.initial).dtype)[:, None, :, None]
    shown, first = _array(model, "observation"), _array(model, "initial_observation")
    if shown is None:
        shown = np.ones((*model.batch, actions, visible, hidden, 1), seen.dtype)
    if first is None:
        first = np.zeros((*model.batch, visible, hidden, symbols), seen.dtype)
        first[..., 0] = 1
    both = shown[..., None, :] * seen  # [*B, A, X, Y, X', O]
    opening = first[..., None, :] * seen
    shape = (*model.batch, visible * hidden, visible * symbols)
    mask = _array(model, "admissible")
    pomdp = POMDP(
        transition=_moves(model),
        observation=jnp.asarray(both.reshape(*model.batch, actions, *shape[-2:])),
        reward=jnp.asarray(_states(_array(model, "reward"), model)),
        initial=jnp.asarray(model.initial.reshape(*model.batch, -1)),
        discount=model.discount,
        initial_observation=jnp.asarray(opening.reshape(shape)),
        admissible=None if mask is None else jnp.asarray(np.repeat(mask, hidden, -2)),
    )
    if not model.observes_reward:
        return pomdp
    axes = len(model.batch)
    one = jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[axes:]) if np.ndim(x) else x,
        eqx.tree_at(lambda m: m.transition, pomdp, dense(pomdp.transition)),
    )
    larger = observe_rewards(one).model
    assert isinstance(larger, POMDP)
    return jax.tree.map(
        lambda x: x.reshape(*model.batch, *x.shape[1:]) if np.ndim(x) else x, larger
    )


def _array(model: MOMDP, name: str) -> Any:
    """Return an array with batch axes, also if the tasks share it; None if None."""
    x = getattr(model, name)
    if x is None:
        return None
    axes = {**AXES, "admissible": "XA"}[name]
    own = np.shape(x)[-len(axes) :]
    return np.broadcast_to(np.asarray(x), (*model.batch, *own))


def _states(x: np.ndarray, model: MOMDP) -> np.ndarray:
    """Merge the axes of visible and hidden values, the first after the batch axes."""
    axes = len(model.batch)
    return x.reshape(*x.shape[:axes], -1, *x.shape[axes + 2 :])


def _moves(model: MOMDP) -> SparseTransition:
    """Return P(x', y' | x, y, a) as lists of next states."""
    _, hidden, _, _ = model.sizes
    chance = _array(model, "transition")  # [*B, X, Y, A, N]
    index = np.asarray(model.listed())[..., None, :, :] * hidden
    index = np.repeat(index, hidden, axis=-3)  # [… X, Y, A, N]
    every = np.arange(hidden)
    if model.hidden_transition is None:
        index = index + every[:, None, None]
    else:
        index = (index[..., None] + every).reshape(*index.shape[:-1], -1)
        chance = chance[..., None] * _array(model, "hidden_transition")
        chance = chance.reshape(*chance.shape[:-2], -1)
    if index.ndim > 4:
        index = _states(index, model)
    else:
        index = index.reshape(-1, *index.shape[2:])
    return sparse_transition(index, _states(chance, model))


@states_observed.register
def _(model: MOMDP) -> MDP:
    mask = _array(model, "admissible")
    return MDP(
        _moves(model),
        jnp.asarray(_states(_array(model, "reward"), model)),
        jnp.asarray(_states(np.asarray(model.initial), model)),
        model.discount,
        None if mask is None else jnp.asarray(np.repeat(mask, model.sizes[1], -2)),
    )


def flat_mdp(model: MOMDP) -> MDP:
    """Return the MDP with states (x, y, o), number (x Y + y) O + o, to play episodes.

    It has no array of X² entries. What an agent observes of it: see `SeesVisible`.
    """
    symbols = model.sizes[-1]
    moves = _moves(model)
    index, chance = np.asarray(moves.successors), np.asarray(moves.probabilities)
    initial = _states(np.asarray(model.initial), model)
    reward, mask = _states(_array(model, "reward"), model), None
    if model.admissible is not None:
        mask = np.repeat(_array(model, "admissible"), model.sizes[1], -2)
    if symbols > 1:
        shown = _states(np.moveaxis(_array(model, "observation"), -4, -2), model)
        index, chance = _with_symbols(index, chance, shown)
        first = _array(model, "initial_observation")
        begin = np.zeros((*initial.shape, symbols), initial.dtype)
        begin[..., 0] = 1
        begin = begin if first is None else _states(first, model)
        initial = (initial[..., None] * begin).reshape(*initial.shape[:-1], -1)
        reward = np.repeat(reward, symbols, axis=-2)
        mask = None if mask is None else np.repeat(mask, symbols, axis=-2)
        index, chance = (np.repeat(x, symbols, axis=-3) for x in (index, chance))
    return MDP(
        sparse_transition(index, chance),
        jnp.asarray(reward),
        jnp.asarray(initial),
        model.discount,
        None if mask is None else jnp.asarray(mask),
    )


def _with_symbols(
    index: np.ndarray, chance: np.ndarray, shown: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return lists of next states and symbols.

    Args:
        index: next states [… S, A, N].
        chance: their probabilities [*B, S, A, N].
        shown: Z(o | s', a) [*B, S, A, O].

    """
    *batch, _, actions, _ = chance.shape
    symbols = shown.shape[-1]
    flat = shown.reshape(-1, *shown.shape[-3:])
    lists = np.broadcast_to(index, chance.shape).reshape(-1, *chance.shape[-3:])
    task = np.arange(len(flat))[:, None, None, None]
    rows = flat[task, lists, np.arange(actions)[:, None]]  # [B, S, A, N, O]
    joint = chance.reshape(lists.shape)[..., None] * rows
    pairs = index[..., None] * symbols + np.arange(symbols)
    return (
        pairs.reshape(*index.shape[:-1], -1),
        joint.reshape(*batch, *joint.shape[1:3], -1),
    )


class SeesVisible(eqx.Module):
    """A policy that observes the symbol x O + o in states (x, y, o) of `flat_mdp`.

    Attributes:
        policy: the policy.
        hidden: number of hidden values Y.
        symbols: number of symbols O; with 1, the policy observes x.

    """

    policy: Policy
    hidden: int = eqx.field(static=True)
    symbols: int = eqx.field(static=True)

    def init(self, model: Model) -> Any:
        """Return the policy's memory."""
        return self.policy.init(model)

    def act(
        self,
        memory: Any,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], Any]:
        """Choose actions by the visible part of the state."""
        seen = observation // (self.hidden * self.symbols) * self.symbols
        seen = seen + observation % self.symbols
        return self.policy.act(memory, t, seen, reward, key)
