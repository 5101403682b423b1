"""Single precision, which a program that sets nothing gets from JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdm.solvers_jax import POMDP, EnergyFamily, evaluate_policy, rollout, solve
from sdm.tasks.policy import deterministic
from sdm.tasks.rollout import task_keys


def test_float32_solutions_are_right_to_single_precision():
    family, key = EnergyFamily(), jax.random.key(0)
    p = family.parameters(key, 50, split="train")["p"]
    wide = solve(family.mdp(p), horizon=30)
    with jax.enable_x64(False):
        mdp = family.mdp(jax.numpy.asarray(p, "float32"))
        narrow = solve(mdp, horizon=30)
        policy = deterministic(narrow.policy, 3)
        attained = evaluate_policy(mdp, policy.probabilities)
        played = rollout(task_keys(key, 50), mdp, policy, horizon=30, episodes=2)
        assert narrow.q.dtype == played.reward.dtype == "float32"
    # Thirty stages of sums, each with a relative rounding of 6e-8.
    np.testing.assert_allclose(narrow.value, wide.value, rtol=5e-6)
    np.testing.assert_allclose(attained, wide.value, rtol=5e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["points", "search"])
def test_barred_actions_are_never_taken_in_single_precision(method):
    with jax.enable_x64(False):
        seen = jnp.eye(3)
        model = POMDP(
            transition=jnp.broadcast_to(seen[:, None], (3, 3, 3)),
            observation=jnp.broadcast_to(seen, (3, 3, 3)),
            reward=jnp.array([[0.0, 0, 0], [0, 1, -9], [0, -9, 1]]),
            initial=jnp.full(3, 1 / 3),
            discount=0.5,
            initial_observation=seen,
            admissible=jnp.array([[True, False, False], [True] * 3, [True] * 3]),
        )
        for horizon in (1, 4):
            found = solve(model, horizon=horizon, method=method)
            assert found.action(0, seen).tolist() == [0, 1, 2]
            wanted = 2 / 3 * (1 - 0.5**horizon) / (1 - 0.5)
            np.testing.assert_allclose(found.lower, wanted, rtol=1e-4)
