"""Estimate models of logs, and score the estimate in held-out episodes."""

from typing import Any

import numpy as np
from jaxtyping import Bool

from sdm.data.estimation.config import EstimationConfig
from sdm.data.estimation.estimator import Estimate, Estimator, Progress
from sdm.data.logs import Logs, LogsError

Report = dict[str, Any]


def estimate_models(
    logs: Logs,
    estimator: Estimator,
    config: EstimationConfig | None = None,
    *,
    seed: int = 0,
    progress: Progress = lambda step, done, total: None,
) -> tuple[Estimate, Report]:
    """Return models of the tasks of logs, and a report on them.

    Args:
        logs: the episodes, two or more.
        estimator: how to estimate.
        config: what the estimate assumes; the defaults if not given.
        seed: random seed of draws and of the choice of held-out episodes.
        progress: called with the name of a step, work done and all work.

    Returns:
        The models, estimated from all episodes, and values that JSON can represent:
        `states`, `actions`, `episodes`, `unvisited` pairs of state and action in all
        tasks, `radius` (`min`, `median` and `max` over visited rows, or None),
        `held_out_log_likelihood` per decision in nats, or None if it is -inf, and
        others.

    Raises:
        LogsError: if there is one episode, or a task has no transition.
        ValueError: if the estimator does not support an option.

    """
    config = EstimationConfig() if config is None else config
    if logs.episodes < 2:
        raise LogsError(
            "logs: one episode, must be 2 or more to estimate a model",
            "log more episodes",
        )
    test = held_out_episodes(logs, config.held_out, seed)
    found = estimator.estimate(
        logs, config, held_out=test, seed=seed, progress=progress
    )
    score = found.score
    radii = None if found.radius is None else np.concatenate(found.radius)
    sizes = np.shape(found.models[0].reward)[-2:]
    return found, {
        "estimator": estimator.name,
        "class": type(found.models[0]).__name__,
        "states": len(found.states) or sizes[0],
        "actions": len(found.actions),
        "observations": len(found.observations or found.states),
        "episodes": logs.episodes,
        "tasks": len(logs.tasks),
        "horizon": found.horizon,
        "discount": config.discount,
        "pairs": found.pairs * len(found.models),
        "unvisited": sum(found.unvisited),
        "radius": None if radii is None or not len(radii) else _spread(radii),
        "held_out_episodes": int(test.sum()),
        "held_out_log_likelihood": None
        if score is None or not np.isfinite(score)
        else score,
        "notes": list(found.notes),
        "warnings": _warnings(found, radii, score),
        **(found.measured or {}),
    }


def held_out_episodes(logs: Logs, share: float, seed: int) -> Bool[np.ndarray, " N"]:
    """Return which episodes are held out: a share of each task, but never all of them.

    An episode of one decision of unknown consequence cannot be scored, and stays.
    """
    generator, chosen = np.random.default_rng(seed), np.zeros(logs.episodes, bool)
    for task in range(len(logs.tasks)):
        mine = generator.permutation(np.flatnonzero(logs.task == task))
        count = round(share * len(mine)) or 1
        chosen[mine[: min(count, len(mine) - 1)]] = True
    return chosen


def _spread(x: np.ndarray) -> dict[str, float | None]:
    """Return the spread of radii; None stands for infinity, which JSON lacks."""
    ends = {"min": x.min(), "median": np.median(x), "max": x.max()}
    return {k: float(v) if np.isfinite(v) else None for k, v in ends.items()}


def _warnings(
    found: Estimate, radii: np.ndarray | None, score: float | None
) -> list[str]:
    """Return what makes the estimate weak."""
    texts = []
    pairs = found.pairs * len(found.models)
    if sum(found.unvisited) > pairs / 2:
        texts.append(
            f"weak identification: {sum(found.unvisited)} of {pairs} pairs of state "
            "and action are unvisited"
        )
    vacuous = VACUOUS.get(type(found.models[0]).__name__, np.inf)
    if radii is not None and len(radii) and np.mean(radii >= vacuous) > 0.5:
        texts.append(
            f"weak identification: {np.mean(radii >= vacuous):.0%} of the visited rows "
            "have a set of all distributions"
        )
    if score is not None and not np.isfinite(score):
        texts.append(
            "a held-out transition has the probability 0 in the estimate: set a "
            "positive prior, with support `all`"
        )
    return texts


VACUOUS = {"L1MDP": 2.0}  # radius from which on a ball holds every distribution
