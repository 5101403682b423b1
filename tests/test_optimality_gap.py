"""The metric, against scipy's own interval and by hand."""

import numpy as np
import pytest
from scipy import stats

from sdm.data.optimality_gap import optimality_gap, paired_difference


def test_the_gap_is_the_mean_of_ratios_not_the_ratio_of_means():
    gap = optimality_gap([1.0, 1.0], [2.0, 4.0])
    assert gap.mean == pytest.approx((0.5 + 0.75) / 2)


def test_the_interval_is_students():
    random = np.random.default_rng(0)
    best = random.uniform(1, 3, 30)
    ours = best - random.uniform(0, 1, 30)
    gap = optimality_gap(ours, best)
    wanted = stats.ttest_1samp((best - ours) / best, 0).confidence_interval(0.95)
    assert (gap.low, gap.high) == pytest.approx((wanted.low, wanted.high))


def test_one_task_has_no_interval():
    gap = optimality_gap([1.0], [2.0])
    assert gap.mean == 0.5 and np.isnan(gap.low) and np.isnan(gap.high)


def test_tasks_without_an_optimal_return_are_reported():
    gap = optimality_gap([1.0, 1.0, 0.0], [2.0, 0.0, 0.0])
    assert gap.mean == 0.5 and gap.undefined_tasks == (1, 2)


def test_a_tiny_optimal_return_counts_and_is_reported():
    gap = optimality_gap([1.0, 1.0, -1e-3], [1.0, 1.0, 1e-3])
    assert gap.mean == pytest.approx(2 / 3)
    assert gap.tiny_tasks == (2,) and gap.undefined_tasks == ()


def test_worse_is_more_where_returns_are_negative():
    assert optimality_gap([-3.0], [-2.0]).mean == 0.5


def test_no_task_at_all_is_an_error():
    with pytest.raises(ValueError, match="no task has an optimal return"):
        optimality_gap([1.0], [0.0])


def test_a_paired_difference_is_that_of_the_gaps_and_surer():
    """By hand: gaps of 0.5 and 0.25 against 0.25 and 0.05."""
    best = np.array([2.0, -4.0])
    found = paired_difference([1.0, -5.0], [1.5, -4.2], best)
    assert found.mean == pytest.approx((0.25 + 0.2) / 2)
    half = stats.t.ppf(0.975, 1) * 0.025
    assert found.low == pytest.approx(0.225 - half)
    assert found.high == pytest.approx(0.225 + half)
    same = paired_difference([1.0, 3.0], [1.0, 3.0], best)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
