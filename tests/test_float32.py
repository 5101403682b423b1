"""Single precision, which a program that sets nothing gets from JAX."""

import jax
import numpy as np

from sdm.solvers_jax import EnergyFamily, evaluate_policy, rollout, solve
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
