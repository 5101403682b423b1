"""The optimality gap, with a confidence interval over tasks.

The optimality gap of a task is (R* - R) / R*, with R and R* the mean discounted returns
of the policy and of the oracle over the same episodes; the gap of a policy is its mean
over tasks, with a two-sided Student-t interval (Zhang, Aghaei, Saghafian, 2026,
experiments). If R* is negative, the gap is divided by |R*|, so that a larger gap is
still worse. A task with R* = 0 has no gap and is excluded from the mean. A task with a
tiny |R*| is included, but may dominate the mean. Both are reported.

The lost return R* - R has two estimates: the difference of returns, with common random
numbers, and the regret by the performance-difference lemma (`regret`). The headline is
the one with the narrower interval.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

TINY = 0.01  # share of the mean |R*| below which a gap is 100 times as noisy as usual


@dataclass(frozen=True)
class OptimalityGap:
    """Mean gap over tasks, as a fraction of the optimal return.

    Attributes:
        mean: the gap; 0 is optimal.
        low: lower end of the 95 % interval; nan for a single task.
        high: upper end of the 95 % interval; nan for a single task.
        undefined_tasks: indices of tasks with an optimal return of zero.
        tiny_tasks: indices of other tasks whose absolute optimal return is below `TINY`
            of its mean over tasks.

    """

    mean: float
    low: float
    high: float
    undefined_tasks: tuple[int, ...]
    tiny_tasks: tuple[int, ...]


def optimality_gap(
    value: ArrayLike, optimal: ArrayLike, *, confidence: float = 0.95
) -> OptimalityGap:
    """Return the optimality gap of a policy.

    Args:
        value: mean return of the policy in each task, [tasks].
        optimal: mean return of the oracle in each task, [tasks].
        confidence: level of the confidence interval.

    Raises:
        ValueError: if the optimal return is zero in every task.

    """
    ours, best = np.asarray(value, np.float64), np.asarray(optimal, np.float64)
    return _mean_in_returns(best - ours, best, confidence)


def regret_gap(
    regret: ArrayLike, optimal: ArrayLike, slack: ArrayLike = 0.0
) -> OptimalityGap:
    """Return the optimality gap of a policy from its regret.

    Args:
        regret: estimated regret of the policy in each task, [tasks].
        optimal: expected return of the oracle in each task, [tasks].
        slack: most by which the optimum exceeds it, [tasks], relative to which the
            upper end of the interval is.

    Raises:
        ValueError: if the optimal return is zero in every task.

    """
    lost, best = np.asarray(regret, np.float64), np.asarray(optimal, np.float64)
    found = _mean_in_returns(lost, best, 0.95)
    share = _mean_in_returns(np.broadcast_to(slack, best.shape), best, 0.95).mean
    return dataclasses.replace(found, high=found.high + share)


def narrower(returns: OptimalityGap, regret: OptimalityGap) -> OptimalityGap:
    """Return the estimate with the narrower interval; the one from regret if equal.

    It is the rule for the headline. It looks at widths only, never at the means.
    """
    width = returns.high - returns.low
    return returns if width < regret.high - regret.low else regret


def paired_difference(
    value: ArrayLike,
    reference: ArrayLike,
    optimal: ArrayLike,
    *,
    confidence: float = 0.95,
) -> OptimalityGap:
    """Return the gap of a policy minus the gap of a reference policy, paired by task.

    With common random numbers, the interval of the difference is narrower than those of
    the gaps. If it contains zero, the difference is not significant.

    Args:
        value: mean return of the policy in each task, [tasks].
        reference: mean return of the reference policy in each task, [tasks].
        optimal: mean return of the oracle in each task, [tasks].
        confidence: level of the confidence interval.

    Raises:
        ValueError: if the optimal return is zero in every task.

    """
    ours, theirs, best = (
        np.asarray(x, np.float64) for x in (value, reference, optimal)
    )
    return _mean_in_returns(theirs - ours, best, confidence)


def _mean_in_returns(
    lost: NDArray[np.float64], best: NDArray[np.float64], confidence: float
) -> OptimalityGap:
    """Return the mean over tasks of the lost return, as a share of the optimal one."""
    defined = best != 0
    gaps = lost[defined] / np.abs(best[defined])
    if gaps.size == 0:
        raise ValueError(
            "optimality gap: undefined, since no task has an optimal return other than "
            "zero"
        )
    mean, half = float(gaps.mean()), float("nan")
    if gaps.size > 1:  # a single task has no interval
        half = float(stats.sem(gaps) * stats.t.ppf((1 + confidence) / 2, gaps.size - 1))
    tiny = defined & (np.abs(best) < TINY * np.abs(best).mean())
    missing, small = (
        tuple(int(i) for i in np.flatnonzero(tasks)) for tasks in (~defined, tiny)
    )
    return OptimalityGap(mean, mean - half, mean + half, missing, small)
