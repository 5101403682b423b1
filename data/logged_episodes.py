"""Whole logged episodes, in the estimated tasks of a folder that `sdm estimate` wrote.

States of estimates are observations, then outcomes and the end (`estimation.space`). An
episode that ended stays in the end until the last decision. One that was cut off before
is no whole one, since nobody knows what would have followed.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from sdm.data.estimation.files import model_names
from sdm.data.estimation.space import Space, decisions_of, space_of
from sdm.data.logged_dataset import LoggedEpisodes
from sdm.data.logs import NOTHING, Logs, LogsError
from sdm.tasks.family import Kind, NamedTasks, Params, TaskFamily
from sdm.tasks.streams import Stream, stream_key

HINT = "pass the folder that `sdm estimate` made from these logs, with `--setting`"


def training_episodes(
    logs: Logs, family: TaskFamily, *, kind: Kind = "mdp", horizon: int | None = None
) -> tuple[LoggedEpisodes, Params]:
    """Return the whole episodes of a family's training tasks, and the tasks.

    Args:
        logs: the logs that the tasks were estimated from.
        family: the family, whose tasks have the names of the logs' tasks.
        kind: kind of the tasks.
        horizon: decisions per episode, T; if not given, those that the longest episode
            has in its estimate.

    Returns:
        The episodes, and the parameters of all training tasks.

    Raises:
        LogsError: if the family lacks a task, an observation or an action of the logs,
            or no training task has a whole episode.

    """
    place = _training_tasks(logs, family)
    key = stream_key(0, Stream.TRAIN_TASKS)  # which named tasks do not depend on
    params = family.parameters(key, int(place.max()) + 1, split="train")
    discount = float(np.max(np.asarray(family.model(params, kind).discount)))
    space = _space(logs, family, kind, discount)
    task = place[logs.task]
    horizon = horizon or space.horizon
    seen = logs.observation[:, 0] != NOTHING
    kept = (task >= 0) & seen & (logs.done | (logs.length >= horizon))
    if not kept.any():
        raise LogsError(
            f"logs: no episode of a training task has {horizon} decisions, or an end",
            "pass a smaller `--horizon`",
        )
    left_out = int(((task >= 0) & ~kept).sum())
    if left_out:
        warnings.warn(
            f"{left_out} of {int((task >= 0).sum())} episodes of training tasks are "
            f"left out: cut off before {horizon} decisions, or nothing was observed "
            "before the first",
            stacklevel=2,
        )
    order = np.flatnonzero(kept)[np.argsort(task[kept], kind="stable")]
    whole = _padded(logs.select(order), space, horizon)
    names, actions = _observations(family, kind), family.spaces.actions
    shown = np.array([names.index(name) for name in space.names])
    taken = np.array([actions.index(name) for name in space.actions])
    state, action, reward = whole
    return LoggedEpisodes(task[order], shown[state], taken[action], reward), params


def _space(logs: Logs, family: TaskFamily, kind: Kind, discount: float) -> Space:
    """Return the states of the estimates, which have outcomes or not."""
    names = set(_observations(family, kind))
    space = space_of(logs, discount=discount)
    if not names >= set(space.endings):
        space = space_of(logs, discount=discount, outcomes=False)
    for what, known, wanted in (
        ("observation", names, space.names),
        ("action", set(family.spaces.actions), space.actions),
    ):
        missing = [name for name in wanted if name not in known]
        if missing:
            raise LogsError(
                f"family `{family.name}`: has no {what} `{missing[0]}` of the logs "
                f"({len(missing)} of {len(wanted)} are missing)",
                HINT,
            )
    return space


def _observations(family: TaskFamily, kind: Kind) -> Sequence[str]:
    """Return the names of observations; () if they have several components or none."""
    seen = family.spaces.seen(kind)
    return seen[0].values if len(seen) == 1 else ()


def _training_tasks(logs: Logs, family: TaskFamily) -> Int[np.ndarray, " K"]:
    """Return the index of each logged task among training tasks; -1 for others."""
    if not isinstance(family, NamedTasks):
        raise LogsError(f"family `{family.name}`: its tasks have no names", HINT)
    training, test = family.task_names("train"), family.task_names("test")
    names = [name.removesuffix(".npz") for name in model_names(logs.tasks)]
    for name, task in zip(names, logs.tasks, strict=True):
        if name not in (*training, *test):
            raise LogsError(
                f"family `{family.name}`: has no model `{name}` of task `{task}`", HINT
            )
    place = {name: i for i, name in enumerate(training)}
    found = np.array([place.get(name, -1) for name in names])
    if (found < 0).all():
        raise LogsError(
            f"family `{family.name}`: all tasks of the logs are test tasks",
            "pass all episodes that the folder was made from",
        )
    return found


def _padded(
    logs: Logs, space: Space, horizon: int
) -> tuple[Int[np.ndarray, "E T"], Int[np.ndarray, "E T"], Float[np.ndarray, "E T"]]:
    """Return states, actions and rewards of episodes, which stay in the end."""
    shape = (logs.episodes, max(horizon, space.horizon) + 1)
    state = np.full(shape, space.end)
    action, reward = np.zeros(shape, np.int64), np.zeros(shape)
    made = decisions_of(logs, space)
    at = made.episode, made.stage
    state[at], action[at], reward[at] = made.state, made.action, made.reward
    paid = (made.following >= space.first_outcome) & (made.following < space.end)
    after = made.episode[paid], made.stage[paid] + 1
    state[after] = made.following[paid]
    if paid.any():
        outcome = made.following[paid] - space.first_outcome
        reward[after] = space.outcomes[outcome] / space.discount
    return state[:, :horizon], action[:, :horizon], reward[:, :horizon]
