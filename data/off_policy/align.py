"""Order the entries of a policy's table like the observations and actions of logs."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from sdm.data.logs import Logs
from sdm.tasks.family import Kind, Spaces


def aligned(
    table: Float[np.ndarray, "T S A"],
    logs: Logs,
    *,
    observations: Sequence[str] | None,
    actions: Sequence[str] | None,
    where: str,
) -> Float[np.ndarray, "T S2 A2"]:
    """Return a table for the observations and actions of the logs.

    Args:
        table: π_t(a | s).
        logs: the logs.
        observations: the table's observations by name; None if they are numbered.
        actions: the table's actions by name; None if they are numbered.
        where: name of the policy, for errors.

    Raises:
        ValueError: if the table lacks an observation of the logs, or takes an action
            that the logs do not have.

    """
    row = places(observations, logs.observations, table.shape[1])
    if (row < 0).any():
        missing = [logs.observations[i] for i in np.flatnonzero(row < 0)]
        raise ValueError(
            f"`{where}`: has no row for the observation `{missing[0]}` of the logs "
            f"({len(missing)} of {len(row)} are missing)"
        )
    column = places(actions, logs.actions, table.shape[2])
    return entries_of(table, logs, row, column, actions=actions, where=where)


def entries_of(
    table: Float[np.ndarray, "T S A"],
    logs: Logs,
    row: Int[np.ndarray, " S2"],
    column: Int[np.ndarray, " A2"],
    *,
    actions: Sequence[str] | None,
    where: str,
) -> Float[np.ndarray, "T S2 A2"]:
    """Return a table for the observations and actions of the logs.

    Args:
        table: π_t(a | s).
        logs: the logs.
        row: its index of each observation of the logs.
        column: its index of each action of the logs; -1 for those that it lacks.
        actions: the table's actions by name; None if they are numbered.
        where: name of the policy, for errors.

    Raises:
        ValueError: if the table takes an action that the logs do not have.

    """
    chosen = np.zeros((len(table), len(row), len(column)), table.dtype)
    known = column >= 0
    chosen[:, :, known] = table[:, row][:, :, column[known]]
    others = np.setdiff1d(np.arange(table.shape[2]), column)
    taken = table[:, row][:, :, others] > 0
    if taken.any():
        t, s, a = (int(i) for i in np.argwhere(taken)[0])
        name = str(others[a]) if actions is None else actions[others[a]]
        raise ValueError(
            f"`{where}`: takes the action `{name}` after `{logs.observations[s]}` at "
            f"stage {t}, but the logs have no such action: {', '.join(logs.actions)}"
        )
    return chosen


def places_in(
    spaces: Spaces, kind: Kind, logs: Logs, where: str
) -> tuple[Int[np.ndarray, " S"], Int[np.ndarray, " A"]]:
    """Return a family's index of each observation and of each action of the logs.

    Args:
        spaces: the family's observations and actions.
        kind: kind of its tasks.
        logs: the logs.
        where: name of the policy and of its family, for errors.

    Raises:
        ValueError: if the family lacks one of them.

    """
    components = spaces.seen(kind)
    known = components[0].values if len(components) == 1 else ()
    named = known if set(logs.observations) <= set(known) else None
    seen = places(named, logs.observations, spaces.symbols(kind))
    named = spaces.actions if set(logs.actions) <= set(spaces.actions) else None
    taken = places(named, logs.actions, len(spaces.actions))
    for what, found, names in (
        ("observation", seen, logs.observations),
        ("action", taken, logs.actions),
    ):
        if (found < 0).any():
            name = names[int(np.flatnonzero(found < 0)[0])]
            raise ValueError(
                f"{where}: has no {what} `{name}`: it numbers {spaces.symbols(kind)} "
                f"observations and {len(spaces.actions)} actions from 0"
            )
    return seen, taken


def places(
    own: Sequence[str] | None, wanted: Sequence[str], size: int
) -> Int[np.ndarray, " N"]:
    """Return the index of each wanted name; -1 for a name that is not there.

    Entries without names are numbered from 0; if no name of the logs is a number, they
    stand for the entries in their order, if there are equally many.
    """
    if own is not None:
        index = {name: i for i, name in enumerate(own)}
    else:
        index = {str(i): i for i in range(size)}
        if size == len(wanted) and not any(name in index for name in wanted):
            return np.arange(size)
    return np.array([index.get(name, -1) for name in wanted], int)
