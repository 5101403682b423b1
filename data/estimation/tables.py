"""What estimators of tabular models share: tasks one by one, and the held-out score."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from sdm.data.estimation.config import EstimationConfig
from sdm.data.estimation.counts import Counts, count_tasks, tally
from sdm.data.estimation.estimator import Estimate, Progress
from sdm.data.estimation.rows import Rows, normalised, posterior_of
from sdm.data.estimation.space import Space, space_of, worst_return
from sdm.data.logs import Logs

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
    stages = space.horizon if by_stage else None
    tables = count_tasks(logs, space, config, stages=stages)
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
        score = score_transitions(logs, held_out, space, config, stages=stages)
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
    few = f"with fewer than {config.min_visits}" if config.min_visits > 1 else "without"
    return (*notes, f"States and actions {few} decisions {treatment}.")


def score_transitions(
    logs: Logs,
    held_out: Bool[np.ndarray, " N"],
    space: Space,
    config: EstimationConfig,
    *,
    stages: int | None = None,
) -> float:
    """Return the mean log probability of held-out transitions, in nats.

    The probabilities are posterior means from the other episodes of the same task; -inf
    if one is 0.

    Args:
        logs: all episodes.
        held_out: which of them are scored.
        space: the states.
        config: what the estimate assumes.
        stages: number of stages to count separately; None for one count of all.

    """
    tables = count_tasks(logs, space, config, stages=stages, episodes=~held_out)
    lists = tables[0].successors
    test = tally(logs, space, lists, stages=stages, episodes=held_out)
    if test.unlisted:
        return -np.inf
    total = 0.0
    for counts, count in zip(tables, test.count, strict=True):
        seen = count > 0
        chance = normalised(posterior_of(counts, config))[seen]
        with np.errstate(divide="ignore"):
            total += float((count[seen] * np.log(chance)).sum())
    return total / float(test.count.sum())
