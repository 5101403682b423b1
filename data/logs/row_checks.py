"""Check the rows of a log, and sort them by episode and step."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from sdm.data.logs.episodes import NOTHING
from sdm.data.logs.problems import Problems

Limits = tuple[float | None, float | None]
LARGEST = 1 << 30  # step, so that differences of two steps fit


@dataclass(frozen=True)
class Rows:
    """Rows of a log, sorted by episode and step.

    Attributes:
        label: number of the row in its file; see `Problems`.
        episode: code of the episode.
        step: number of the decision, from 0.
        observation: code of the observation, or `NOTHING`.
        action: code of the action; `NOTHING` after the last decision.
        reward: the reward; NaN if there is none.
        task: code of the task.
        done: whether the row says that the episode has ended; None if no row can.
        probability: probability of the action; None if no row has it.
        opening: whether the row is the first one of its episode.
        last: whether it is the last one.

    """

    label: Int[np.ndarray, " R"]
    episode: Int[np.ndarray, " R"]
    step: Int[np.ndarray, " R"]
    observation: Int[np.ndarray, " R"]
    action: Int[np.ndarray, " R"]
    reward: Float[np.ndarray, " R"]
    task: Int[np.ndarray, " R"]
    done: Bool[np.ndarray, " R"] | None
    probability: Float[np.ndarray, " R"] | None
    opening: Bool[np.ndarray, " R"]
    last: Bool[np.ndarray, " R"]


def check_rows(
    found: Mapping[str, np.ndarray], problems: Problems, limits: Limits
) -> Rows:
    """Return the sorted rows; record their problems.

    Args:
        found: columns of codes and numbers, and `label`; steps as `whole_steps` returns
            them.
        problems: records the problems. The rows are not usable if there are any.
        limits: smallest and largest possible reward; None if unknown.

    """
    label = found["label"]
    for name in ("episode", "task"):
        if name in found:
            problems.add(f"`{name}` is missing", label, found[name] == NOTHING)
    problems.check()  # such rows cannot be sorted
    order = _order(found)
    rows = _sorted(found, order)
    base = _check_gaps(rows, problems)
    if not isinstance(order, slice):
        _check_order(found["episode"], found["step"], label, problems)
    _check_content(rows, problems)
    _check_reward(rows, problems, limits)
    _check_probability(rows, problems)
    return replace(rows, step=rows.step - base) if base else rows


def whole_steps(
    step: Float[np.ndarray, " R"], label: Int[np.ndarray, " R"], problems: Problems
) -> Int[np.ndarray, " R"]:
    """Return steps as integers; record those that are missing, or are none."""
    missing = np.isnan(step)
    problems.add("`step` is missing", label, missing)
    odd = ~missing & (step != np.round(step))
    problems.add("`step` is not a whole number", label, odd, step)
    far = ~missing & ~odd & (np.abs(step) > LARGEST)
    problems.add(f"`step` is beyond ±{LARGEST}", label, far, step)
    return np.where(missing | odd | far, 0, step).astype(np.int32)


def _order(found: Mapping[str, np.ndarray]) -> slice | Int[np.ndarray, " R"]:
    """Return the order by episode and step; a slice of all rows if they have it."""
    e, s = found["episode"], found["step"]
    if ((e[1:] > e[:-1]) | ((e[1:] == e[:-1]) & (s[1:] > s[:-1]))).all():
        return slice(None)
    return np.lexsort((found["label"], s, e))


def _sorted(
    found: Mapping[str, np.ndarray], order: slice | Int[np.ndarray, " R"]
) -> Rows:
    episode = found["episode"][order]
    change = episode[1:] != episode[:-1]
    optional = {
        name: found[column][order] if column in found else None
        for name, column in (("done", "done"), ("probability", "behavior_probability"))
    }
    return Rows(
        label=found["label"][order],
        episode=episode,
        step=found["step"][order],
        observation=found["observation"][order],
        action=found["action"][order],
        reward=found["reward"][order],
        task=found["task"][order] if "task" in found else np.zeros_like(episode),
        opening=np.append(True, change),
        last=np.append(change, True),
        **optional,
    )


def _check_gaps(rows: Rows, problems: Problems) -> int:
    """Record steps that are repeated or missing, in sorted rows.

    Returns:
        The first step of episodes, 0 or 1.

    """
    at, step = rows.label, rows.step
    jump = np.diff(step, prepend=step[:1])
    repeated = ~rows.opening & (jump == 0)
    problems.add("`step` is repeated within its episode", at, repeated, step)
    missing = ~rows.opening & (jump > 1)
    problems.add("the step before is missing", at, missing, step)
    least = int(step[rows.opening].min())
    base = least if least in (0, 1) else 0
    what = f"episodes must start at step {base}, but start later or earlier"
    problems.add(what, at, rows.opening & (step != base), step)
    return base


def _check_order(
    episode: Int[np.ndarray, " R"],
    step: Int[np.ndarray, " R"],
    label: Int[np.ndarray, " R"],
    problems: Problems,
) -> None:
    """Record steps that are smaller than the one read before in their episode."""
    as_read = np.lexsort((label, episode))
    e, s, at = episode[as_read], step[as_read], label[as_read]
    back = np.append(False, (e[1:] == e[:-1]) & (np.diff(s) < 0))
    problems.add("`step` is smaller than in an earlier row of its episode", at, back, s)


def _check_content(rows: Rows, problems: Problems) -> None:
    """Record missing values, an early end and changes of the task."""
    decision, seen = rows.action != NOTHING, rows.observation != NOTHING
    at = rows.label
    problems.add(
        "`action` is missing before the last row of its episode",
        at,
        ~decision & ~rows.last,
    )
    problems.add("an episode has no decision", at, ~decision & rows.last & rows.opening)
    # No episode may have an observation before its decisions.
    if not (seen & rows.opening).any():
        seen = seen | rows.opening
    problems.add("`observation` is missing", at, ~seen)
    if rows.done is not None:
        # The last decision is in the last row, or in the one before it.
        following = np.append(decision[1:] & ~rows.last[:-1], False)
        problems.add(
            "`done` is true before the last decision", at, rows.done & following
        )
    changed = np.append(
        False,
        (rows.task[1:] != rows.task[:-1]) & (rows.episode[1:] == rows.episode[:-1]),
    )
    problems.add("`task` changes within an episode", at, changed)


def _check_reward(rows: Rows, problems: Problems, limits: Limits) -> None:
    decision, reward, at = rows.action != NOTHING, rows.reward, rows.label
    given = ~np.isnan(reward)
    problems.add("`reward` is missing", at, decision & ~given)
    extra = ~decision & given & (reward != 0)
    problems.add("`reward` without an action", at, extra, reward)
    problems.add("`reward` is not finite", at, np.isinf(reward), reward)
    low, high = limits
    if low is not None:
        problems.add(
            f"`reward` is below {low:g}", at, decision & (reward < low), reward
        )
    if high is not None:
        problems.add(
            f"`reward` is above {high:g}", at, decision & (reward > high), reward
        )


def _check_probability(rows: Rows, problems: Problems) -> None:
    chance, at = rows.probability, rows.label
    if chance is None:
        return
    name, decision = "`behavior_probability`", rows.action != NOTHING
    problems.add(f"{name} is missing", at, decision & np.isnan(chance))
    never = decision & (chance == 0)
    problems.add(f"{name} is 0, but the action was taken,", at, never)
    wrong = decision & ((chance < 0) | (chance > 1))
    problems.add(f"{name} must lie between 0 and 1,", at, wrong, chance)
