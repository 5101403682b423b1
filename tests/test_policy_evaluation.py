"""Exact values of policies: against every path, and against the solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumeration import value_over_all_paths
from random_models import random_mdp, rows
from tolerances import ROUNDING

from sdm.solvers_jax import EnergyFamily, evaluate_policy, solve
from sdm.tasks.policy import deterministic


@pytest.mark.parametrize("discount", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_value_is_the_sum_over_all_paths(seed, discount):
    mdp = random_mdp(seed, discount=discount)
    policy = rows(np.random.default_rng(seed + 1), 4, 3, 2)
    value = evaluate_policy(mdp, jnp.asarray(policy))
    parts = map(np.asarray, (policy, mdp.transition, mdp.reward, mdp.initial))
    # 1,296 paths are summed in another order than the recursion: rounding only.
    np.testing.assert_allclose(
        value, value_over_all_paths(*parts, discount), rtol=1e-12
    )


def test_the_optimal_policy_is_worth_the_optimal_value():
    mdp = EnergyFamily().sample(jax.random.key(0), 20)
    solution = solve(mdp, horizon=10)
    value = evaluate_policy(mdp, deterministic(solution.policy, 3).probabilities)
    np.testing.assert_allclose(value, solution.value, rtol=ROUNDING)


def test_no_random_policy_is_worth_more_than_the_optimum():
    mdp = EnergyFamily().sample(jax.random.key(1), 50)
    policy = jnp.asarray(rows(np.random.default_rng(2), 50, 6, 10, 3))
    assert (evaluate_policy(mdp, policy) < solve(mdp, horizon=6).value).all()
