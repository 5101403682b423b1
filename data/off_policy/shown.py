"""Logged episodes that a policy is shown as demonstrations of the same task."""

import numpy as np

from sdm.data.logs import Logs


def shown_episodes(
    logs: Logs, number: int, who: str, *, decisions: int = 0
) -> list[tuple[int, ...]]:
    """Return the episodes that each episode is shown.

    Episode i is shown the first episodes of its task, without itself.

    Args:
        logs: the logs.
        number: how many it is shown.
        who: the policy, for errors.
        decisions: the only length of shown episodes; 0 for any.

    Raises:
        ValueError: if a task has too few such episodes.

    """
    able = logs.length == decisions if decisions else np.ones(logs.episodes, bool)
    first = [
        np.flatnonzero((logs.task == task) & able)[: number + 1].tolist()
        for task in range(len(logs.tasks))
    ]
    shown = []
    for i, task in enumerate(logs.task):
        chosen = [j for j in first[task] if j != i][:number]
        if len(chosen) < number:
            some = f" of {decisions} decisions" if decisions else ""
            raise ValueError(
                f"logs: task `{logs.tasks[task]}` must have more than {number} "
                f"episodes{some}, to show {number} others to {who}, found "
                f"{len(first[task])}; show fewer by `--demonstrations`"
            )
        shown.append(tuple(chosen))
    return shown
