"""A lower confidence bound on a mean, by betting."""

import numpy as np
import pytest

from sdm.data.planning.mean_bound import MOST, lower_mean


def by_a_grid(numbers, least, confidence):
    """Return the bound by loops over the numbers and a fine grid of means."""
    span = max(numbers) - least
    y = [(x - least) / span for x in numbers]
    wealth = 1 / (1 - confidence)
    best = 0.0
    for m in np.linspace(0.0001, 1, 10_000):
        capital, spread = 1.0, 0.25
        seen = []
        for each in y:
            stake = np.sqrt(2 * np.log(wealth) / (len(y) * spread))
            capital *= 1 + min(stake, MOST / m) * (each - m)
            if capital >= wealth:
                best = m
                break
            seen.append(each)
            means = [(0.5 + sum(seen[: i + 1])) / (i + 2) for i in range(len(seen))]
            around = sum((x - c) ** 2 for x, c in zip(seen, means, strict=True))
            spread = (0.25 + around) / (len(seen) + 1)
    return least + span * best


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_is_the_largest_mean_that_loses_the_bet(seed):
    numbers = np.random.default_rng(seed).normal(2.0, 1.0, 25)
    found = lower_mean(numbers, -1.0, confidence=0.9)
    # Steps of the grid are 1e-4 of the largest number's distance to -1.
    step = 1e-4 * (numbers.max() + 1)
    assert found == pytest.approx(by_a_grid(numbers, -1.0, 0.9), abs=1.5 * step)


@pytest.mark.parametrize(("chance", "n"), [(0.99, 20), (0.99, 60), (0.5, 40)])
def test_rare_disasters_do_not_break_it(chance, n):
    """With normal intervals, 19 and 47 % of the first two hold."""
    random = np.random.default_rng(0)
    draws = (random.random((200, n)) < chance).astype(float)
    bounds = np.array([lower_mean(y, 0.0, confidence=0.95) for y in draws])
    # Of 200, 184 or more hold in 99.5 % of tests if the probability is 0.95.
    assert (bounds <= chance).sum() >= 184
    assert bounds.mean() > chance - 1.1 / np.sqrt(n)  # and it says something


def test_equal_numbers_leave_what_may_happen_to_three_in_n():
    for n in (30, 300, 3000):
        found = lower_mean(np.ones(n), -4.0, confidence=0.95)
        # At least ln(20) = 3.0 of n, and more since stakes stay below one.
        assert 3.0 / n < (1 - found) / 5 < 4.5 / n


def test_it_moves_and_scales_with_the_numbers():
    numbers = np.random.default_rng(4).random(50)
    found = lower_mean(numbers, 0.0, confidence=0.95)
    moved = lower_mean(5 * numbers - 3, -3.0, confidence=0.95)
    assert moved == pytest.approx(5 * found - 3)
    assert lower_mean(numbers, -1.0, confidence=0.95) < found < numbers.mean()
    assert lower_mean(numbers, 0.0, confidence=0.99) < found


def test_the_smallest_number_is_a_bound():
    assert lower_mean(np.full(9, -2.0), -2.0, confidence=0.95) == -2
    few = np.array([0.0, 1.0])
    assert lower_mean(few, 0.0, confidence=0.95) == 0
    # A number below it, by rounding, counts as the smallest.
    same = [np.array([x, 1, 1, 0.5] * 9) for x in (-1e-9, 0.0)]
    one, two = (lower_mean(x, 0.0, confidence=0.95) for x in same)
    assert one == two
