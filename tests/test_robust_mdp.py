"""Robust backward induction: closed form, enumeration, and its limits."""

import itertools

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_apomdp
from tolerances import ROUNDING

from sdm.solvers_jax import EnergyFamily, RobustMDP, solve


def robust(seed, alpha, models=3):
    model = random_apomdp(seed, alpha, models=models, states=4, actions=3)
    return RobustMDP(
        model.transition, model.reward, model.initial, alpha, model.discount
    )


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_values_are_those_of_plain_recursion(alpha):
    model = robust(0, alpha)
    p, r = np.asarray(model.transition), np.asarray(model.reward)

    def value(s, left):
        if not left:
            return 0.0
        each = []
        for a in range(3):
            future = [
                sum(p[k, s, a, n] * value(n, left - 1) for n in range(4))
                for k in range(3)
            ]
            mixed = alpha * min(future) + (1 - alpha) * max(future)
            each.append(r[s, a] + 0.9 * mixed)
        return max(each)

    wanted = sum(float(model.initial[s]) * value(s, 3) for s in range(4))
    assert solve(model, horizon=3).value == pytest.approx(wanted)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_energy_has_a_closed_form(alpha):
    """Value rises with energy: worst is the smallest p to charge, the largest to work.

    (And best the other way round.) So each action has a success probability of its own,
    and the robust task is an ordinary one.
    """
    family, chances = EnergyFamily(), [0.3, 0.5, 0.8]
    tasks = family.mdp(jnp.asarray(chances))
    model = RobustMDP(
        tasks.transition, tasks.reward[0], tasks.initial[0], alpha, tasks.discount
    )
    low, high = tasks.transition[0], tasks.transition[2]
    charge, work = (low, high) if alpha == 1 else (high, low)
    mixed = jnp.concatenate([charge[:, :2], work[:, 2:]], axis=1)
    plain = type(tasks)(mixed, tasks.reward[0], tasks.initial[0], tasks.discount)
    np.testing.assert_allclose(
        solve(model, horizon=10).q, solve(plain, horizon=10).q, rtol=ROUNDING
    )


def test_one_model_is_an_mdp():
    family = EnergyFamily()
    mdp = family.mdp(jnp.asarray([0.3, 0.7]))
    one = RobustMDP(mdp.transition[:, None], mdp.reward, mdp.initial, 0.3, mdp.discount)
    np.testing.assert_allclose(
        solve(one, horizon=9).q, solve(mdp, horizon=9).q, rtol=ROUNDING
    )


def test_a_batch_is_the_stack_of_its_tasks():
    tasks = [robust(seed, 0.5) for seed in range(3)]
    whole = RobustMDP(
        *(
            jnp.stack([getattr(t, name) for t in tasks])
            for name in ("transition", "reward", "initial")
        ),
        0.5,
        0.9,
    )
    found = solve(whole, horizon=5)
    for i, task in enumerate(tasks):
        np.testing.assert_allclose(found.q[i], solve(task, horizon=5).q, rtol=ROUNDING)


def test_pessimism_is_worth_less():
    values = [float(solve(robust(1, a), horizon=5).value) for a in (0.0, 0.5, 1.0)]
    assert values[0] > values[1] > values[2]
    assert all(a != b for a, b in itertools.pairwise(values))


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("transition", lambda x: x[0], "must be .*K, S, A, S"),
        ("transition", lambda x: x * 2, "probabilities sum to 2"),
        ("alpha", lambda x: 1.5, "alpha = 1.5"),
        ("reward", lambda x: x.at[0, 0].set(jnp.nan), "must be finite"),
    ],
)
def test_a_model_that_is_none_is_refused(field, change, message):
    model = robust(0, 0.5)
    solve(model, horizon=2)
    changed = change(getattr(model, field))
    broken = eqx.tree_at(lambda m: getattr(m, field), model, changed)
    with pytest.raises(ValueError, match=message):
        solve(broken, horizon=2)
