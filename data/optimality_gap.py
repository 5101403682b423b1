"""The metric: how far from optimal, with a confidence interval over tasks.

The optimality gap of a task is (R* - R) / R*, with R and R* the mean discounted returns
of the policy and of the oracle over the same episodes; the gap of a policy is its mean
over tasks, with a two-sided Student-t interval (Zhang, Aghaei, Saghafian, 2026,
experiments). Where R* is negative the gap is counted in |R*|, so that worse is still
more. A task with R* = 0 has no gap and is left out of the mean; one whose |R*| is tiny
counts, but may decide the mean alone: both are reported.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

TINY = 0.01  # of the mean |R*|: a gap that is a hundred times as noisy as usual


@dataclass(frozen=True)
class OptimalityGap:
    """Mean gap over tasks, as fractions of the optimal return.

    Attributes:
        mean: the gap; 0 is optimal.
        low: lower end of the 95 % interval; nan for a single task.
        high: upper end of the 95 % interval; nan for a single task.
        undefined_tasks: indices of tasks with an optimal return of zero.
        tiny_tasks: indices of tasks with an optimal return, positive or negative, below
            `TINY` of the usual one.

    """

    mean: float
    low: float
    high: float
    undefined_tasks: tuple[int, ...]
    tiny_tasks: tuple[int, ...]


def optimality_gap(
    value: ArrayLike, optimal: ArrayLike, *, confidence: float = 0.95
) -> OptimalityGap:
    """Gap of the per-task returns `value` to the returns `optimal`, both [tasks]."""
    ours, best = np.asarray(value, np.float64), np.asarray(optimal, np.float64)
    return _mean_in_returns(best - ours, best, confidence)


def paired_difference(
    value: ArrayLike,
    reference: ArrayLike,
    optimal: ArrayLike,
    *,
    confidence: float = 0.95,
) -> OptimalityGap:
    """How much larger the gap of `value` is than that of `reference`, task by task.

    Where both met the same luck, the interval of the difference is narrower than those
    of the gaps; it holds zero where the two cannot be told apart.
    """
    ours, theirs, best = (
        np.asarray(x, np.float64) for x in (value, reference, optimal)
    )
    return _mean_in_returns(theirs - ours, best, confidence)


def _mean_in_returns(
    lost: NDArray[np.float64], best: NDArray[np.float64], confidence: float
) -> OptimalityGap:
    """Mean over tasks of what is lost, as a share of the optimal return."""
    defined = best != 0
    gaps = lost[defined] / np.abs(best[defined])
    if gaps.size == 0:
        raise ValueError("no task has an optimal return other than zero: no gap exists")
    mean, half = float(gaps.mean()), float("nan")
    if gaps.size > 1:  # a single task has no interval
        half = float(stats.sem(gaps) * stats.t.ppf((1 + confidence) / 2, gaps.size - 1))
    tiny = defined & (np.abs(best) < TINY * np.abs(best).mean())
    missing, small = (
        tuple(int(i) for i in np.flatnonzero(tasks)) for tasks in (~defined, tiny)
    )
    return OptimalityGap(mean, mean - half, mean + half, missing, small)
