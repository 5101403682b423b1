"""Counting, the truncated posterior against quadrature, and the plan made with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from sdm.policies.certainty_equivalence import (
    count_moves,
    estimate_p,
    plan_for,
    truncated_beta_mean,
)
from sdm.solvers_jax import EnergyFamily, Trajectory, rollout, solve
from sdm.tasks.policy import deterministic, uniform_random
from sdm.tasks.rollout import task_keys


def test_only_moves_that_could_have_changed_the_state_count():
    states = jnp.array([[[0, 1, 1, 9, 9, 8], [0, 0, 0, 1, 2, 2]]], jnp.int32)
    actions = jnp.array([[[0, 2, 1, 0, 2, 2], [2, 0, 1, 1, 2, 0]]], jnp.int32)
    seen = Trajectory(states, actions, jnp.zeros((1, 2, 6)))
    attempted, moved = count_moves(EnergyFamily(), seen)
    # First: charge moves; work stays; charge "moves" (1 to 9); charge at the top
    # cannot; work moves; the last is not shown. Second: work at 0 cannot; stays; moves;
    # moves; work stays.
    assert attempted.tolist() == [4 + 4] and moved.tolist() == [3 + 2]


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


def test_the_estimate_converges_to_the_truth_and_the_plan_to_the_optimum():
    family = EnergyFamily()
    mdp = family.sample(jax.random.key(0), 30)
    keys = task_keys(jax.random.key(1), 30)
    support = rollout(keys, mdp, uniform_random(mdp, 20), horizon=20, episodes=400)
    p = np.asarray(mdp.transition)[:, 0, 0, 1]
    # About 6,000 moves each: a standard error under 0.0065; five of them.
    found = estimate_p(family, support)
    np.testing.assert_allclose(found, p, atol=0.033)
    planned = plan_for(family, jnp.asarray(found), horizon=10).probabilities
    optimal = deterministic(solve(mdp, horizon=10).policy, 3).probabilities
    assert (np.asarray(planned) == np.asarray(optimal)).mean() > 0.98
