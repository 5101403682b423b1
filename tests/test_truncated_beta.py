"""Means of truncated Beta distributions, and the counts of energy tasks."""

import numpy as np
import pytest
from scipy import integrate, stats

from sdm.solvers_jax import EnergyFamily
from sdm.tasks.truncated_beta import truncated_beta_mean


def test_only_moves_that_could_have_changed_the_state_count():
    states = np.array([[0, 1, 1, 9, 9, 8], [0, 0, 0, 1, 2, 2]])
    actions = np.array([[0, 2, 1, 0, 2], [2, 0, 1, 1, 2]])
    moves = EnergyFamily().tally(states[:, :-1], actions, states[:, 1:])
    # First: charge moves; work stays; charge "moves" (1 to 9); charge at the top
    # cannot; work moves. Second: work at 0 cannot; stays; moves; moves; work stays.
    assert moves.sum((0, 1)).tolist() == [3 + 2, 1 + 2]


@pytest.mark.parametrize("span", [(0.2, 0.9), (0.05, 0.2), (0.5, 0.51), (0.0, 1.0)])
@pytest.mark.parametrize("counts", [(0, 0), (10, 3), (58, 0), (58, 58)])
def test_the_posterior_mean_is_the_integral(span, counts):
    n, k = counts
    density = stats.beta(1 + k, 1 + n - k).pdf
    mass, _ = integrate.quad(density, *span)
    mean, _ = integrate.quad(lambda p: p * density(p) / mass, *span)
    found = truncated_beta_mean(np.array([1.0 + k]), np.array([1.0 + n - k]), *span)
    # Where almost all of the density lies outside the span, differences of tails keep
    # eight digits or more; quadrature claims 1e-8.
    np.testing.assert_allclose(found, mean, rtol=1e-6)


def test_a_known_p_needs_no_estimate():
    assert truncated_beta_mean(np.array([3.0]), np.array([4.0]), 0.6, 0.6) == 0.6


def test_what_no_p_explains_leaves_the_nearest():
    """Far outside of the range, the end that is nearer."""
    low = truncated_beta_mean(np.array([1426.0]), np.array([76.0]), 0.2, 0.5)
    high = truncated_beta_mean(np.array([401.0]), np.array([3601.0]), 0.5, 0.9)
    np.testing.assert_allclose([low[0], high[0]], [0.5, 0.5], atol=1e-3)
