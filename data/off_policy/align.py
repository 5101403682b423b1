"""Order the entries of a policy's table like the observations and actions of logs."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from sdm.data.logs import Logs


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
