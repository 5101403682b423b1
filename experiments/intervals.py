"""Gaps and differences of gaps over seeds, from rows, with confidence intervals.

A row holds one seed: its tasks, its episodes and, for a trained policy, its training.
Seeds share nothing, so that their means are independent, and contain the variation of
tasks. Two intervals of the mean over seeds are computed:

- over tasks: the tasks of all seeds are the sample, as if training did not vary;
- over seeds: Student-t with S - 1 degrees of freedom on the means of the seeds.

A policy without training has the first. A trained one has the wider of the two, so that
few seeds that agree by chance do not hide the variation of tasks. From one seed, its
interval is over tasks only, and says nothing about another training.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy import stats

Row = Mapping[str, Any]
Estimator = Literal["regret", "returns"]


class NotComparableError(ValueError):
    """Rows from which a number cannot be computed."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % interval.

    Attributes:
        mean: the mean.
        low: lower end; None if there is a single task.
        high: upper end; None likewise.
        seeds: the mean of each seed.

    """

    mean: float
    low: float | None
    high: float | None
    seeds: tuple[float, ...]


@dataclass(frozen=True)
class Difference(Interval):
    """A mean paired difference over tasks and seeds.

    Attributes:
        p: two-sided p-value of a mean of 0; None if there is a single task.
        tasks: number of tasks in all seeds.
        estimator: estimate of the lost returns, that with the narrower interval.

    """

    p: float | None
    tasks: int
    estimator: str


def measured(result: Row, measure: str) -> tuple[float, float | None, float | None]:
    """Return a measure of a result with its interval over tasks, in per cent.

    Raises:
        NotComparableError: if the result lacks the measure.

    """
    if measure == "gap":
        return result["gap_percent"], result["ci_low"], result["ci_high"]
    try:
        ends = (result[f"{measure}_ci_low"], result[f"{measure}_ci_high"])
        return result[f"{measure}_gap_percent"], *ends
    except KeyError:
        raise NotComparableError(
            f"rows without `{measure}_gap_percent` are of tasks with one model, or of "
            "a version that played in the first model only; the measure `gap` is known"
        ) from None


def over_seeds(results: Sequence[Row], measure: str, *, trained: bool) -> Interval:
    """Return the mean of a measure over seeds.

    Args:
        results: the result of each seed.
        measure: one of `spec.MEASURES`.
        trained: whether the policy is trained.

    """
    found = [measured(result, measure) for result in results]
    means = tuple(float(mean) for mean, _, _ in found)
    mean, spread = statistics.fmean(means), _half_width(means) if trained else 0.0
    below, above = [], []
    for middle, low, high in found:
        if low is None or high is None:
            return Interval(mean, None, None, means)
        below.append(middle - low)
        above.append(high - middle)
    low, high = (math.hypot(*ends) / len(means) for ends in (below, above))
    return Interval(mean, mean - max(low, spread), mean + max(high, spread), means)


def _half_width(means: Sequence[float]) -> float:
    """Return half the Student-t interval of a mean; 0 for a single value."""
    if len(means) < 2:
        return 0.0
    return float(stats.sem(means) * stats.t.ppf(0.975, len(means) - 1))


def task_gaps(
    result: Row, measure: str, estimator: Estimator
) -> Float[np.ndarray, " B"] | None:
    """Return the gap of each task, in per cent; NaN where it is undefined.

    Args:
        result: result with the values of each task.
        measure: one of `spec.MEASURES`.
        estimator: estimate of the lost returns.

    Returns:
        The gaps; None if the tasks have no regrets.

    Raises:
        NotComparableError: if the result lacks the values of each task.

    """
    if "returns" not in result:
        raise NotComparableError(
            "rows of an older version hold no values of each task; run their cells "
            "again"
        )
    if measure != "gap":
        if "returns_by_model" not in result:
            measured(result, measure)  # says why
        if estimator == "regret":
            return None
        lost, best = _in_models(result, measure)
    elif estimator == "regret":
        if "regrets" not in result:
            return None
        lost, best = np.array(result["regrets"]), np.array(result["optimal_values"])
    else:
        best = np.array(result["optimal_returns"])
        lost = best - np.array(result["returns"])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(best == 0, np.nan, 100 * lost / np.abs(best))


def _in_models(result: Row, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Return lost and optimal returns by a measure over all models."""
    ours, best = (
        np.array(result[name])
        for name in ("returns_by_model", "optimal_returns_by_model")
    )

    def value(returns: np.ndarray) -> np.ndarray:
        worst, top = returns.min(-1), returns.max(-1)
        alpha = result["alpha"]
        return {
            "worst_model": worst,
            "alpha_meu": alpha * worst + (1 - alpha) * top,
            "random_model": returns.mean(-1),
        }[measure]

    return value(best) - value(ours), value(best)


def paired(
    pairs: Sequence[tuple[Row, Row]], measure: str, *, trained: bool
) -> Difference:
    """Return the mean difference of two policies' gaps, paired by task and seed.

    Args:
        pairs: results of both policies for each seed, on the same tasks.
        measure: one of `spec.MEASURES`.
        trained: whether either policy is trained.

    Raises:
        NotComparableError: if a row lacks the values of each task.

    """
    found = [
        (each, estimator)
        for estimator in ("regret", "returns")
        if (each := _differences(pairs, measure, estimator)) is not None
    ]
    # Ties go to the first.
    chosen, estimator = min(found, key=lambda one: _error(one[0]) or 0.0)
    means = tuple(float(each.mean()) for each in chosen)
    mean, tasks = statistics.fmean(means), sum(each.size for each in chosen)
    error = _error(chosen)
    if error is None:
        return Difference(mean, None, None, means, None, tasks, estimator)
    free = tasks - len(chosen)
    half, p = error * stats.t.ppf(0.975, free), _p_value(mean, error, free)
    if trained and len(means) > 1:
        half = max(half, _half_width(means))
        p = max(p, _p_value(mean, float(stats.sem(means)), len(means) - 1))
    return Difference(mean, mean - half, mean + half, means, p, tasks, estimator)


def _differences(
    pairs: Sequence[tuple[Row, Row]], measure: str, estimator: Estimator
) -> list[Float[np.ndarray, " B"]] | None:
    """Return the differences of each seed's tasks; None without regrets."""
    found = []
    for first, second in pairs:
        ours, theirs = (task_gaps(x, measure, estimator) for x in (first, second))
        if ours is None or theirs is None:
            return None
        both = ours - theirs
        found.append(both[~np.isnan(both)])
    return found


def _error(differences: Sequence[np.ndarray]) -> float | None:
    """Return the standard error over tasks of the mean over seeds."""
    if any(each.size < 2 for each in differences):
        return None
    errors = [float(stats.sem(each)) for each in differences]
    return math.hypot(*errors) / len(errors)


def _p_value(mean: float, error: float, free: int) -> float:
    """Return the two-sided p-value of Student's t-test that a mean is 0."""
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean) / error, free))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for their number by Holm's step-down method.

    One that is not known, None, counts as 1 and remains None: a comparison does not
    become more certain where others cannot be made.
    """
    known = [1.0 if p is None else p for p in p_values]
    corrected, most = [0.0] * len(known), 0.0
    for rank, i in enumerate(np.argsort(known, kind="stable")):
        most = max(most, min(1.0, (len(known) - rank) * known[i]))
        corrected[i] = most
    return [
        None if p is None else new for p, new in zip(p_values, corrected, strict=True)
    ]
