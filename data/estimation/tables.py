"""What estimators of tabular models share: tasks one by one, and the held-out score."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from sdm.data.estimation.config import EstimationConfig
from sdm.data.estimation.counts import Counts, count_tasks
from sdm.data.estimation.estimator import Estimate, Progress
from sdm.data.estimation.rows import Rows, normalised, posterior_of
from sdm.data.estimation.space import (
    Decisions,
    Space,
    decisions_of,
    space_of,
    worst_return,
)
from sdm.data.logs import NOTHING, Logs

# Returns the model of a task, its rows and the radius of each row, if it has them.
ModelOf = Callable[[Counts, float], tuple[Any, Rows, Float[np.ndarray, "S A"] | None]]


def estimate_tasks(
    logs: Logs,
    config: EstimationConfig,
    model: ModelOf,
    held_out: np.ndarray,
    progress: Progress,
    *,
    by_stage: bool = False,
    notes: Callable[[bool], tuple[str, ...]] = lambda random: (),
) -> Estimate:
    """Return a model of each task of logs.

    Args:
        logs: the episodes.
        config: what the estimate assumes.
        model: makes the model of a task.
        held_out: episodes in which the posterior mean of the others is scored.
        progress: called with tasks done.
        by_stage: whether to count each stage separately.
        notes: what the estimate assumes, in words, for logs whose rewards of a state
            and action differ or not.

    """
    space = space_of(logs, discount=config.discount, outcomes=config.outcomes)
    tables = _counted(logs, decisions_of(logs, space), space, config, by_stage)
    worst = config.worst
    if worst is None:
        worst = worst_return(logs, config.discount)
    random = any(bool(counts.varies.any()) for counts in tables)
    models, unvisited, radii, pairs = [], [], [], 0
    for index, counts in enumerate(tables):
        made, rows, radius = model(counts, worst)
        models.append(made)
        unvisited.append(int(rows.unvisited.sum()))
        pairs = int(np.broadcast_to(counts.decided, counts.paid.shape).sum())
        if radius is not None:
            radii.append(radius[counts.decided & ~rows.unvisited])
        progress("estimating models", index + 1, len(tables))
    score = None
    if held_out.any():
        train, test = logs.select(~held_out), logs.select(held_out)
        score = score_transitions(train, test, config, by_stage=by_stage)
    return Estimate(
        score=score,
        models=tuple(models),
        states=space.names,
        actions=space.actions,
        observations=(),
        horizon=space.horizon,
        unvisited=tuple(unvisited),
        pairs=pairs,
        radius=tuple(radii) if radii else None,
        notes=(*_space_notes(space, config, worst), *notes(random)),
    )


def _counted(
    logs: Logs,
    decisions: Decisions,
    space: Space,
    config: EstimationConfig,
    by_stage: bool,
) -> tuple[Counts, ...]:
    stages = space.horizon if by_stage else None
    return count_tasks(
        decisions, logs.task, len(logs.tasks), space, config, stages=stages
    )


def _space_notes(
    space: Space, config: EstimationConfig, worst: float
) -> tuple[str, ...]:
    """Return what the states and unvisited rows mean."""
    notes = []
    if len(space.outcomes):
        notes.append(
            f"Episodes end in {len(space.outcomes)} outcomes, which pay one decision "
            f"later: solve with a horizon of {space.horizon}."
        )
    treatment = {
        "worst": f"end the episode with the return {worst:g}",
        "forbid": "are forbidden by a mask; where all actions are unvisited, they end "
        f"the episode with the return {worst:g}",
        "prior": "have the mean of the prior and the mean reward",
    }[config.unvisited]
    return (
        *notes,
        f"States and actions with fewer than {config.min_visits} decisions "
        f"{treatment}.",
    )


def score_transitions(
    train: Logs, test: Logs, config: EstimationConfig, *, by_stage: bool = False
) -> float:
    """Return the mean log probability of held-out transitions, in nats.

    The probabilities are posterior means from the other episodes of the same task; -inf
    if one is 0.

    Args:
        train: the episodes to estimate from.
        test: the held-out episodes.
        config: what the estimate assumes.
        by_stage: whether stages are counted separately.

    """
    both = _joined(train, test)
    space = space_of(both, discount=config.discount, outcomes=config.outcomes)
    every = decisions_of(both, space)
    known = every.following != NOTHING
    first = every.episode < train.episodes
    kept = _chosen(every, first)
    tables = count_tasks(
        kept,
        train.task,
        len(train.tasks),
        space,
        config,
        stages=space.horizon if by_stage else None,
    )
    held = _chosen(every, ~first & known)
    task = both.task[held.episode]
    scores = []
    for k, counts in enumerate(tables):
        mine = task == k
        s, a, following = (x[mine] for x in (held.state, held.action, held.following))
        time = (held.stage[mine],) if by_stage else ()
        chance = normalised(posterior_of(counts, config))[(*time, s, a)]
        if counts.successors is None:
            found = chance[np.arange(len(s)), following]
        else:
            listed = counts.successors[s, a] == following[:, None]
            found = np.where(listed, chance, 0.0).max(-1, initial=0.0)
        with np.errstate(divide="ignore"):
            scores.append(np.log(found))
    return float(np.concatenate(scores).mean())


def _chosen(decisions: Decisions, mask: np.ndarray) -> Decisions:
    return Decisions(*(x[mask] for x in vars(decisions).values()))


def _joined(train: Logs, test: Logs) -> Logs:
    """Return the episodes of both logs, which have the same names and length."""
    names = ("observation", "action", "reward", "done", "task")
    both: dict[str, Any] = {
        name: np.concatenate([getattr(train, name), getattr(test, name)])
        for name in names
    }
    return dataclasses.replace(train, probability=None, **both)
