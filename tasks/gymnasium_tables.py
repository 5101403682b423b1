"""Convert transition tables of Gymnasium environments to models."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from sdm.tasks.models import MDP, check_model
from sdm.tasks.triplets import summed_triplets, transition_of

# P[s][a] lists (probability, next state, reward, whether the episode ends there).
Table = Mapping[int, Mapping[int, Sequence[tuple[float, int, float, bool]]]]


class TableArrays(NamedTuple):
    """A transition table as arrays.

    Attributes:
        transition: P(s' | s, a).
        paid: P(s' | s, a) times the expected reward of the transition.
        initial: distribution of the first state.

    """

    transition: Float[np.ndarray, "S A S"]
    paid: Float[np.ndarray, "S A S"]
    initial: Float[np.ndarray, " S"]


class _Outcome(NamedTuple):
    """One entry of P[s][a]."""

    state: int
    action: int
    chance: float
    following: int
    reward: float
    ends: bool


class _Decisions(NamedTuple):
    """All outcomes of a table, M entries, with a state for the end if needed."""

    state: Int[np.ndarray, " M"]
    action: Int[np.ndarray, " M"]
    following: Int[np.ndarray, " M"]
    chance: Float[np.ndarray, " M"]
    reward: Float[np.ndarray, " M"]
    initial: Float[np.ndarray, " S"]
    actions: int


def from_gymnasium(
    source: "gymnasium.Env[Any, Any] | Table",
    *,
    discount: float,
    initial: Sequence[float] | np.ndarray | None = None,
) -> MDP:
    """Return the MDP of an environment with a transition table `P`, such as FrozenLake.

    If an episode can end in a state that is not absorbing with zero reward, the MDP has
    one additional state, the last, for the end of the episode.

    Args:
        source: an environment, wrapped or not, whose `unwrapped.P[s][a]` lists
            (probability, next state, reward, terminated); or such a table.
        discount: factor per stage, in [0, 1]; environments do not define one.
        initial: distribution of the first state; None for the environment's
            `initial_state_distrib`.

    Raises:
        ValueError: if the table or the initial distribution is missing, or they define
            no valid MDP.

    """
    found = _read(source, initial=initial)
    states, actions = len(found.initial), found.actions
    reward = np.zeros((states, actions))
    np.add.at(reward, (found.state, found.action), found.chance * found.reward)
    moves = summed_triplets(found.action, found.state, found.following, found.chance)
    model = MDP(
        transition=transition_of(moves, states=states, actions=actions),
        reward=jnp.asarray(reward),
        initial=jnp.asarray(found.initial),
        discount=discount,
    )
    check_model(model)
    return model


def read_table(
    source: "gymnasium.Env[Any, Any] | Table",
    *,
    initial: Sequence[float] | np.ndarray | None = None,
) -> TableArrays:
    """Return an environment's transition table as arrays; see `from_gymnasium`.

    Raises:
        ValueError: if the table or the initial distribution is missing, or an entry is
            invalid.

    """
    found = _read(source, initial=initial)
    states = len(found.initial)
    transition = np.zeros((states, found.actions, states))
    paid = np.zeros_like(transition)
    where = found.state, found.action, found.following
    np.add.at(transition, where, found.chance)
    np.add.at(paid, where, found.chance * found.reward)
    return TableArrays(transition, paid, found.initial)


def _read(
    source: "gymnasium.Env[Any, Any] | Table",
    *,
    initial: Sequence[float] | np.ndarray | None = None,
) -> _Decisions:
    """Return all outcomes of an environment's table after checking them."""
    table: Any = source
    if isinstance(source, gymnasium.Env):
        inner = source.unwrapped
        table = getattr(inner, "P", None)
        if table is None:
            raise ValueError(f"{type(inner).__name__}: no transition table `P`")
        if initial is None:
            initial = getattr(inner, "initial_state_distrib", None)
    if initial is None:
        raise ValueError("no distribution of the first state: pass `initial`")
    if not table or 0 not in table:
        raise ValueError("P must be a table with states 0, 1, …")
    states, actions = len(table), len(table[0])
    if np.shape(initial) != (states,):
        raise ValueError(f"initial has shape {np.shape(initial)}: must be ({states},)")
    outcomes = [
        each
        for s in range(states)
        for a in range(actions)
        for each in _outcomes(table, s, a, states=states, actions=actions)
    ]
    return _with_end(outcomes, np.asarray(initial, float), actions)


def _outcomes(
    table: Any, s: int, a: int, *, states: int, actions: int
) -> list[_Outcome]:
    """Return the entries of P[s][a] after checking them."""
    try:
        rows = [_Outcome(s, a, c, n, r, over) for c, n, r, over in table[s][a]]
        extra = len(table[s]) > actions
    except (KeyError, IndexError) as error:
        raise ValueError(f"P[{s}][{a}] is missing") from error
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"P[{s}][{a}] must list (probability, next state, reward, terminated)"
        ) from error
    if extra:
        raise ValueError(f"P[{s}] has more actions than P[0], found {len(table[s])}")
    for row in rows:
        if not 0 <= row.chance <= 1:
            raise ValueError(
                f"P[{s}][{a}] has the probability {row.chance:g}: must be 0 to 1"
            )
        if not 0 <= row.following < states:
            raise ValueError(
                f"P[{s}][{a}] leads to state {row.following}: must be 0 to {states - 1}"
            )
    return rows


def _with_end(
    outcomes: Sequence[_Outcome],
    initial: Float[np.ndarray, " S"],
    actions: int,
) -> _Decisions:
    """Return the outcomes as arrays, with a state for the end if needed."""
    states = len(initial)
    alive = np.zeros(states, bool)  # not absorbing with zero reward
    for each in outcomes:
        if each.chance and (each.following != each.state or each.reward):
            alive[each.state] = True
    ends = [bool(e.chance and e.ends and alive[e.following]) for e in outcomes]
    rows = [
        (e.state, e.action, states if to_end else e.following, e.chance, e.reward)
        for e, to_end in zip(outcomes, ends, strict=True)
    ]
    if any(ends):
        rows += [(states, a, states, 1.0, 0.0) for a in range(actions)]
    state, action, following, chance, reward = map(np.asarray, zip(*rows, strict=True))
    first = np.pad(initial, (0, any(ends)))
    paid = reward.astype(float)
    return _Decisions(state, action, following, chance, paid, first, actions)
