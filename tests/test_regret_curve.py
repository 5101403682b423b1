"""Regret curves, the exponent of their growth, and measures of exploration."""

import numpy as np
import pytest
from tolerances import ROUNDING

from sdm.evaluation.exploration import (
    greedy_fraction,
    k_min_fraction,
    suffix_failure_frequency,
)
from sdm.evaluation.regret_curve import regret_curve, regret_exponent


def power(exponent, rounds=50):
    """Regret of each round, whose sum grows like t to the exponent."""
    return np.diff(np.arange(rounds + 1.0) ** exponent)


@pytest.mark.parametrize("exponent", [0.3, 0.5, 1.0])
def test_a_power_law_has_its_exponent(exponent):
    regret = 3 * np.stack([power(exponent), 2 * power(exponent)])
    found = regret_exponent(regret)
    for end in (found.slope, found.low, found.high):
        assert end == pytest.approx(exponent, abs=1e-9)


def test_the_interval_covers_the_slope_of_the_expectation_as_often_as_it_says():
    """Of 150 data sets, at least 88 %.

    That is 95 %, less three standard errors of a share, and the error of a bootstrap of
    60 replicates, about one point.
    """
    generator = np.random.default_rng(0)
    truth, inside = regret_exponent(power(0.6)[None]).slope, 0
    for seed in range(150):
        scale = generator.gamma(1.0, size=(60, 1))
        noise = generator.exponential(size=(60, 50))
        found = regret_exponent(scale * noise * power(0.6), resamples=300, seed=seed)
        inside += found.low <= truth <= found.high
    assert 0.88 <= inside / 150 < 1


def test_the_slope_is_that_of_least_squares_from_the_first_round_on():
    regret = np.random.default_rng(0).exponential(size=(20, 30))
    log = np.log(np.cumsum(regret, -1).mean(0))[4:]
    wanted = np.polyfit(np.log(np.arange(5, 31)), log, 1)[0]
    assert regret_exponent(regret, first=5).slope == pytest.approx(wanted, abs=1e-9)


def test_rounds_without_regret_are_left_out():
    regret = np.concatenate([np.zeros(10), np.ones(30)])[None].repeat(2, 0)
    mean = np.cumsum(regret[0])[10:]
    wanted = np.polyfit(np.log(np.arange(11, 41)), np.log(mean), 1)[0]
    assert regret_exponent(regret).slope == pytest.approx(wanted, abs=1e-9)
    assert regret_exponent(np.zeros((3, 20))) is None
    assert regret_exponent(np.eye(1, 20, 18)) is None  # two rounds


def test_one_replicate_has_no_interval():
    found = regret_exponent(power(0.5)[None])
    assert np.isnan(found.low) and np.isnan(found.high)
    curve = regret_curve(power(0.5)[None])
    assert np.isnan(curve.low).all()
    np.testing.assert_allclose(curve.mean, np.arange(1, 51.0) ** 0.5, rtol=1e-9)


def test_the_curve_has_the_intervals_of_student():
    regret = np.random.default_rng(1).normal(size=(8, 3))
    found = regret_curve(regret)
    last = regret.sum(-1)
    half = 2.3646242510103 * last.std(ddof=1) / np.sqrt(8)  # t, 7 degrees of freedom
    assert found.mean[-1] == pytest.approx(last.mean(), abs=ROUNDING)
    assert found.high[-1] == pytest.approx(last.mean() + half, abs=1e-9)
    assert found.low[-1] == pytest.approx(last.mean() - half, abs=1e-9)


def test_invalid_regret_is_named():
    with pytest.raises(ValueError, match=r"shape \(0, 4\): must have a replicate"):
        regret_exponent(np.zeros((0, 4)))
    bad = np.ones((2, 4))
    bad[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"regret\[\(1, 2\)\] = nan: must be finite"):
        regret_curve(bad)
    with pytest.raises(ValueError, match="first = 5: must be a round, 1 to 4"):
        regret_exponent(np.ones((2, 4)), first=5)


def test_arms_of_equal_means_are_both_greedy():
    action = np.array([[0, 0, 0, 1, 1]])
    reward = np.zeros((1, 5, 2))
    reward[0, :3, 0] = 0.1, 0.2, 0.3  # whose sum exceeds 3 times 0.2 by rounding
    reward[0, 3:, 1] = 0.2
    seen = action[..., None] == np.arange(2)
    assert reward[0, :3, 0].sum() / 3 > 0.2
    # Of four rounds, only the first on arm 1 is not.
    assert greedy_fraction(action, reward, seen) == 0.75


def test_measures_of_exploration_are_those_of_loops():
    generator = np.random.default_rng(0)
    action = generator.integers(0, 3, (6, 9))
    reward = generator.integers(0, 2, (6, 9, 3)).astype(float)
    seen = action[..., None] == np.arange(3)
    least, greedy, rounds, failures = 0.0, 0, 0, 0
    for i in range(6):
        least += 3 * min(list(action[i]).count(a) / 9 for a in range(3)) / 6
        failures += 2 not in action[i, 4:]
        for t in range(1, 9):
            means = {}
            for arm in range(3):
                own = [reward[i, s, arm] for s in range(t) if action[i, s] == arm]
                if own:
                    means[arm] = sum(own) / len(own)
            greedy += means.get(action[i, t]) == max(means.values())
            rounds += 1
    assert k_min_fraction(action, 3) == pytest.approx(least)
    assert greedy_fraction(action, reward, seen) == pytest.approx(greedy / rounds)
    found = suffix_failure_frequency(action == 2, 5)
    assert found == pytest.approx(failures / 6) and 0 < failures < 6
    with pytest.raises(ValueError, match="first = 10: must be a round, 1 to 9"):
        suffix_failure_frequency(action == 2, 10)
