"""The energy task as its description says it, and sampling that slices agree on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import ROUNDING

from sdm.data.optimality_gap import optimality_gap
from sdm.solvers_jax import (
    EnergyFamily,
    check_model,
    evaluate_policy,
    solve,
)
from sdm.tasks.policy import constant_action, deterministic, uniform_random


def test_moves_and_rewards_are_those_described():
    mdp = EnergyFamily(max_energy=4, charge_cost=0.1).mdp(jnp.array(0.7))
    p, r = np.asarray(mdp.transition), np.asarray(mdp.reward)
    for s in range(5):
        for a in range(3):
            wanted = np.zeros(5)
            wanted[min(s + 1, 4) if a < 2 else max(s - 1, 0)] += 0.7
            wanted[s] += 1 - 0.7
            np.testing.assert_allclose(p[s, a], wanted, rtol=0, atol=ROUNDING)
            assert r[s, a] == pytest.approx(-0.1 if a < 2 else s / 4)
    np.testing.assert_allclose(mdp.initial, 0.2, rtol=ROUNDING)


def test_sampled_tasks_are_well_posed_and_in_range():
    family, key = EnergyFamily(p_min=0.3, p_max=0.4), jax.random.key(0)
    p = family.parameters(key, 1000, split="train")["p"]
    assert 0.3 <= p.min() < 0.301 and 0.399 < p.max() <= 0.4
    check_model(family.sample(key, 1000))


def test_a_task_depends_on_its_index_not_on_the_batch():
    family, key = EnergyFamily(), jax.random.key(3)
    whole = family.parameters(key, 10, split="train")["p"]
    part = family.parameters(key, 3, split="train", first=4)["p"]
    np.testing.assert_array_equal(whole[4:7], part)
    assert len(np.unique(whole)) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p_min": -0.1}, "p_min = -0.1: must lie between 0 and 1"),
        ({"p_max": 1.1}, "p_max = 1.1: must lie between 0 and 1"),
        ({"p_min": 0.9, "p_max": 0.2}, "p_min = 0.9 is larger than p_max = 0.2"),
        ({"max_energy": 0}, "max_energy = 0"),
        ({"discount": 1.01}, "discount = 1.01"),
    ],
)
def test_a_family_that_makes_no_task_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EnergyFamily(**options)


# Expected gaps in per cent at T = 10, 20, 30, computed independently of this code when
# the defaults were calibrated, and printed to one decimal.
PUBLISHED = {
    (0.2, 0.9): {
        "random": (57.4, 49.9, 46.1),
        "always-work": (14.5, 33.8, 42.9),
        "mean-plan": (4.2, 6.2, 5.5),
    },
    (0.05, 0.2): {
        "random": (69.2, 65.2, 61.9),
        "always-work": (0.2, 1.0, 1.9),
        "mean-plan": (17.3, 43.2, 51.5),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("span", PUBLISHED)
@pytest.mark.parametrize("horizon", [10, 20, 30])
def test_exact_expected_gaps_are_the_published_ones(span, horizon):
    """Expectation over p by the midpoint rule, whose error is far below a rounding."""
    low, high = span
    points = 400
    p = low + (high - low) * (jnp.arange(0.0, points) + 0.5) / points
    mdp = EnergyFamily().mdp(p)
    best = solve(mdp, horizon=horizon).value
    policies = {
        "random": uniform_random(mdp, horizon),
        "always-work": constant_action(mdp, horizon, EnergyFamily.work),
        "mean-plan": deterministic(
            solve(EnergyFamily().mdp(jnp.full(points, 0.55)), horizon=horizon).policy, 3
        ),
    }
    column = (10, 20, 30).index(horizon)
    for name, policy in policies.items():
        value = evaluate_policy(mdp, policy.probabilities)
        gap = 100 * optimality_gap(value, best).mean
        # 0.05 for the printed digit, and as much again for the sampling behind it.
        assert gap == pytest.approx(PUBLISHED[span][name][column], abs=0.1), name
