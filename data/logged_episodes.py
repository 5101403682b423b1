"""Whole logged episodes, in the estimated tasks of a folder that `sdm estimate` wrote.

States of estimates are observations, then outcomes and the end (`estimation.space`). An
episode that ended goes through its outcome to the end, and stays there until the last
decision. Rewards are the logged ones, at the decision that they were logged at. An
episode that was cut off before is no whole one, since nobody knows what would have
followed.
"""

import re
import warnings

import numpy as np
from jaxtyping import Bool, Int

from sdm.data.estimation.files import plain_name
from sdm.data.estimation.space import Space, decisions_of, space_of
from sdm.data.logged_dataset import LoggedEpisodes
from sdm.data.logs import NOTHING, Logs, LogsError
from sdm.data.off_policy.align import places
from sdm.tasks.family import Kind, NamedTasks, Params, TaskFamily
from sdm.tasks.streams import Stream, stream_key

HINT = "pass the folder that `sdm estimate` made from these logs"


def training_episodes(
    logs: Logs, family: TaskFamily, *, kind: Kind = "mdp", horizon: int | None = None
) -> tuple[LoggedEpisodes, Params]:
    """Return the whole episodes of a family's training tasks, and the tasks.

    Args:
        logs: the logs that the tasks were estimated from, or some of their tasks.
        family: the family, whose tasks have the names of the logs' tasks.
        kind: kind of the tasks.
        horizon: decisions per episode, T; those of the longest one if not given.

    Returns:
        The episodes, and the parameters of all training tasks.

    Raises:
        LogsError: if the family lacks a task, an observation or an action of the logs,
            or no training task has a whole episode.

    """
    place = _training_tasks(logs, family)
    key = stream_key(0, Stream.TRAIN_TASKS)  # which named tasks do not depend on
    params = family.parameters(key, int(place.max()) + 1, split="train")
    space, shown, taken = _places(logs, family, kind)
    task, horizon = place[logs.task], horizon or logs.horizon
    kept = _whole(logs, task >= 0, horizon)
    order = np.flatnonzero(kept)[np.argsort(task[kept], kind="stable")]
    chosen = logs.select(order)
    state, action = _padded(chosen, space, horizon)
    reward = np.zeros(action.shape)
    reward[:, : chosen.horizon] = chosen.reward[:, :horizon]
    length = np.minimum(chosen.length, horizon)
    found = LoggedEpisodes(
        task=task[order],
        observation=shown[state],
        action=taken[action],
        reward=reward,
        length=length,
        beyond=int(len(space.outcomes) > 0),
    )
    return found, params


def _whole(
    logs: Logs, mine: Bool[np.ndarray, " N"], horizon: int
) -> Bool[np.ndarray, " N"]:
    """Return which episodes of training tasks are whole, and warn of the others."""
    blind = logs.observation[:, 0] == NOTHING
    cut = ~logs.done & (logs.length < horizon)
    kept = mine & ~blind & ~cut
    if not kept.any():
        raise LogsError(
            f"logs: no episode of a training task has {horizon} decisions, or an end",
            "pass a smaller `--horizon`",
        )
    for why, left_out in (
        (f"cut off before {horizon} decisions", mine & cut),
        ("without an observation before the first decision", mine & blind & ~cut),
    ):
        if left_out.any():
            warnings.warn(
                f"{int(left_out.sum())} of the {int(mine.sum())} episodes of training "
                f"tasks are left out: {why}",
                stacklevel=3,
            )
    return kept


def _places(
    logs: Logs, family: TaskFamily, kind: Kind
) -> tuple[Space, Int[np.ndarray, " S1"], Int[np.ndarray, " A"]]:
    """Return the states of the estimates, and where the family has them and actions.

    Estimates have outcomes or not. What has no names in the family is numbered from 0.
    """
    spaces = family.spaces
    components = spaces.seen(kind)
    names = components[0].values if len(components) == 1 else ()
    space = space_of(logs)
    if not set(names) >= set(space.endings):
        space = space_of(logs, outcomes=False)
    found = []
    for what, known, wanted, size in (
        ("observation", names, space.names, spaces.symbols(kind)),
        ("action", spaces.actions, space.actions, len(spaces.actions)),
    ):
        numbered = all(map(str.isdecimal, wanted)) and not {*wanted} & {*known}
        place = places(None if numbered else known, wanted, size)
        missing = np.flatnonzero(place < 0)
        if len(missing):
            able = sorted(f"`--setting {x}`" for x in family.kinds if x != kind)
            raise LogsError(
                f"family `{family.name}`, {kind}: has no {what} "
                f"`{wanted[int(missing[0])]}` of the logs ({len(missing)} of "
                f"{len(wanted)} are missing)",
                " or ".join([HINT, *able]),
            )
        found.append(place)
    return space, found[0], found[1]


def _training_tasks(logs: Logs, family: TaskFamily) -> Int[np.ndarray, " K"]:
    """Return the index of each logged task among training tasks; -1 for others."""
    if not isinstance(family, NamedTasks):
        raise LogsError(f"family `{family.name}`: its tasks have no names", HINT)
    training, test = family.task_names("train"), family.task_names("test")
    place = dict.fromkeys(map(_unnumbered, test), -1)
    place |= {_unnumbered(name): i for i, name in enumerate(training)}
    if len(place) < len(training) + len(test):
        raise LogsError(
            f"family `{family.name}`: two files have the same name after their numbers",
            "give the tasks names that differ in letters or digits",
        )
    names = [plain_name(task) for task in logs.tasks]
    for name, task in zip(names, logs.tasks, strict=True):
        if name not in place:
            raise LogsError(
                f"family `{family.name}`: has no model of task `{task}`, found models "
                f"of {', '.join(place)}",
                HINT,
            )
    found = np.array([place[name] for name in names])
    if (found < 0).all():
        raise LogsError(
            f"family `{family.name}`: all tasks of the logs are test tasks",
            "pass all episodes that the folder was made from",
        )
    return found


def _unnumbered(name: str) -> str:
    """Return the name of a model's file without the number of the task."""
    return re.sub(r"^\d+-", "", name)


def _padded(
    logs: Logs, space: Space, horizon: int
) -> tuple[Int[np.ndarray, "E T"], Int[np.ndarray, "E T"]]:
    """Return states and actions of episodes, which stay in the end."""
    shape = (logs.episodes, max(horizon, logs.horizon) + 1)
    state, action = np.full(shape, space.end), np.zeros(shape, np.int64)
    made = decisions_of(logs, space)
    state[made.episode, made.stage] = made.state
    action[made.episode, made.stage] = made.action
    paid = (made.following >= space.first_outcome) & (made.following < space.end)
    state[made.episode[paid], made.stage[paid] + 1] = made.following[paid]
    return state[:, :horizon], action[:, :horizon]
