"""α-MEU over K models: against the exact tree, and where it must be simpler."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_apomdp, random_pomdp, tasks_of, tiger
from tolerances import ROUNDING

from sdm.solvers_jax import APOMDP, EnergyFamily, RobustMDP, solve
from sdm.solvers_jax.belief_tree import belief_tree_value, value_at
from sdm.tasks.rollout import task_keys

ALPHAS = (0.0, 0.3, 0.5, 1.0)
# One shape for most tests: one compilation of each number of points.
SHAPE = {"models": 3, "states": 4, "actions": 3, "symbols": 4, "batch": (8,)}
T, POINTS = 4, 32


@cache
def solved(seed, alpha, points=POINTS):
    """A batch of tasks and its solution, which several tests look at."""
    model = random_apomdp(seed, alpha, **SHAPE)
    return model, solve(model, horizon=T, points=points)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_values_are_right_and_the_error_estimate_is_honest(alpha):
    model, found = solved(11, alpha, points=None)
    exact = [belief_tree_value(task, horizon=T) for task in tasks_of(model)]
    wrong = np.abs(np.asarray(found.value) - exact)
    span = np.ptp(np.asarray(model.reward), axis=(1, 2)) * T
    assert (wrong <= 0.005 * span).all()  # what is promised at the default resolution
    assert (wrong <= np.asarray(found.error)).all()


@pytest.mark.slow
def test_an_optimistic_agent_has_real_bounds():
    model, found = solved(11, 0.0)
    exact = np.array([belief_tree_value(task, horizon=T) for task in tasks_of(model)])
    assert (found.lower <= exact).all() and (exact <= found.upper).all()
    np.testing.assert_allclose(found.error, found.upper - found.lower, rtol=ROUNDING)


@pytest.mark.slow
def test_bounds_are_only_given_where_they_hold():
    _, found = solved(11, 0.5)
    assert found.lower is None and found.upper is None and (found.error > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_one_model_is_a_pomdp(alpha):
    pomdp = random_pomdp(6, states=4, actions=3, symbols=4, batch=(8,))
    one = APOMDP(
        pomdp.transition[:, None],
        pomdp.observation[:, None],
        pomdp.reward,
        pomdp.initial,
        alpha,
        pomdp.discount,
        pomdp.initial_observation[:, None],
    )
    # Without a coarser round: the default method for POMDPs begins with 32 points.
    found, wanted = (
        solve(one, horizon=T, points=POINTS),
        solve(pomdp, horizon=T, gap=0.0, points=POINTS),
    )
    assert (found.lower <= wanted.upper).all() and (wanted.lower <= found.upper).all()


@pytest.mark.parametrize("alpha", [pytest.param(0.0, marks=pytest.mark.slow), 0.5])
def test_equal_models_are_one_model(alpha):
    pomdp = random_pomdp(6, states=4, actions=3, symbols=4, batch=(8,))
    same = [jnp.stack([x] * 3, axis=1) for x in (pomdp.transition, pomdp.observation)]
    first = jnp.stack([pomdp.initial_observation] * 3, axis=1)
    model = APOMDP(*same, pomdp.reward, pomdp.initial, alpha, pomdp.discount, first)
    found = solve(model, horizon=T, points=POINTS)
    wanted = solve(pomdp, horizon=T, gap=0.0, points=POINTS)
    width = found.error + wanted.upper - wanted.lower
    assert (abs(found.value - wanted.value) <= width).all()


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.3, pytest.param(1.0, marks=pytest.mark.slow)])
def test_perfect_observation_is_the_robust_mdp(alpha):
    family = EnergyFamily(q=1.0, models=3, alpha=alpha, max_energy=3)
    model, _ = family.apomdp(task_keys(jax.random.key(1), 8), jnp.linspace(0.2, 0.9, 8))
    robust = RobustMDP(
        model.transition, model.reward, model.initial, alpha, model.discount
    )
    exact = solve(robust, horizon=T).value
    found = solve(model, horizon=T, points=POINTS)
    # Every reachable belief is a corner, and is a point; single precision weighs them.
    np.testing.assert_allclose(found.value, exact, rtol=1e-6)


@pytest.mark.slow
def test_pessimism_is_worth_less_than_optimism():
    values = [np.asarray(solved(11, alpha)[1].value) for alpha in ALPHAS]
    assert (np.diff(values, axis=0) < 0).all()


def test_the_order_of_the_models_does_not_matter():
    model, ours = solved(11, 0.5)
    order = np.array([2, 0, 1])
    turned = APOMDP(
        model.transition[:, order],
        model.observation[:, order],
        model.reward,
        model.initial,
        0.5,
        model.discount,
        model.initial_observation[:, order],
    )
    theirs = solve(turned, horizon=T, points=POINTS)
    error = jnp.maximum(ours.error, theirs.error)
    assert (abs(ours.value - theirs.value) <= error).all()


@pytest.mark.slow
def test_actions_are_the_best_by_exact_lookahead():
    model, found = solved(11, 0.3, points=None)
    belief = np.random.default_rng(1).dirichlet(np.ones(4), 25)
    value = value_at(tasks_of(model)[0], belief, horizon=4)
    taken = found.action(0, jnp.broadcast_to(belief, (8, 25, 4)))[0]
    taken = np.asarray(taken)
    loss = value.max(-1) - value[np.arange(25), taken]
    # Beliefs that the task does not reach: interpolated, so not exact.
    assert loss.max() <= 0.01 * np.ptp(np.asarray(model.reward[0])) * 4


def spread(found):
    """Largest distance of the values at the points of a stage."""
    alpha = float(found.model.alpha[0])
    vectors, points = (np.asarray(x) for x in (found.plans.vector, found.plans.point))
    most = 0.0
    for stage in range(vectors.shape[1] - 1):
        each = np.einsum("bnks,bns->bnk", vectors[:, stage], points[:, stage])
        value = alpha * each.min(-1) + (1 - alpha) * each.max(-1)
        most = np.maximum(most, value.max(-1) - value.min(-1))
    return np.asarray(found.units.scale) * most


def test_the_error_is_what_three_resolutions_and_the_spread_say():
    _, found = solved(11, 0.5)
    first, second, third = np.moveaxis(np.asarray(found.rounds.value), -1, 0)
    least = found.error - abs(third - second) - abs(second - first) / 2
    # A hundredth of a standard deviation, which is less than the distance of extremes,
    # and rounding in single precision.
    assert (least > 1e-4 * spread(found)).all()
    assert (least < 1e-2 * spread(found) + 1e-4).all()
    np.testing.assert_array_equal(found.value, third)


def ambiguous_tiger(penalty=None):
    """The tiger where the agent hears well, less well or badly; an action may cost."""
    plain = tiger()
    heard = np.stack([np.asarray(plain.observation)] * 3)
    for k, q in enumerate((0.85, 0.75, 0.65)):
        heard[k, 0] = [[q, 1 - q], [1 - q, q]]
    arrays = plain.transition, plain.reward
    if penalty is not None:
        heard = np.concatenate([heard, heard[:, 1:2]], axis=1)
        arrays = (
            np.concatenate([plain.transition, plain.transition[:, 1:2]], axis=1),
            np.pad(plain.reward, ((0, 0), (0, 1)), constant_values=-penalty),
        )
    moved, paid = map(jnp.asarray, arrays)
    moved = jnp.stack([moved] * 3)
    return APOMDP(moved, jnp.asarray(heard), paid, plain.initial, 0.5, 0.95)


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [pytest.param(None, marks=pytest.mark.slow), 1e6])
def test_the_error_follows_the_values_and_not_the_range_of_rewards(penalty):
    model = ambiguous_tiger(penalty)
    found = solve(model, horizon=10)
    exact = belief_tree_value(ambiguous_tiger(), horizon=10)
    # Rewards range over 110 and more, values of good policies over ten.
    assert abs(found.value - exact) <= found.error <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("models", [2, 3])
def test_the_error_covers_the_true_error_of_random_tasks(alpha, models):
    shape = SHAPE | {"models": models, "symbols": 3, "batch": (40,)}
    model = random_apomdp(200 + models, alpha, **shape)
    found = solve(model, horizon=T)
    exact = [belief_tree_value(task, horizon=T) for task in tasks_of(model)]
    assert (abs(found.value - np.array(exact)) <= found.error).all()


@pytest.mark.slow
@pytest.mark.parametrize(("offset", "factor"), [(1e6, 1.0), (-1e8, 1.0), (0.0, 1e-40)])
def test_a_common_bonus_and_another_currency_change_nothing_else(offset, factor):
    model, ours = solved(11, 0.5)
    other = eqx.tree_at(lambda m: m.reward, model, factor * model.reward + offset)
    theirs = solve(other, horizon=T, points=POINTS)
    wanted = factor * ours.value + offset * (1 - 0.9**4) / 0.1
    # Rewards of size 1e8 are given to 1e-8: so much is lost before we see them.
    np.testing.assert_allclose(theirs.value, wanted, rtol=1e-12, atol=1e-6 * factor)
    np.testing.assert_allclose(theirs.error, factor * ours.error, rtol=1e-2)
    belief = np.random.default_rng(1).dirichlet(np.ones(4), (8, 25))
    for t in (0, 3):
        one, two = (x.action_value(t, jnp.asarray(belief)) for x in (ours, theirs))
        left = offset * (1 - 0.9 ** (4 - t)) / 0.1
        np.testing.assert_allclose(two, factor * one + left, rtol=ROUNDING, atol=0)


def test_rewards_that_are_all_equal_have_one_value():
    model, _ = solved(11, 0.5)
    equal = eqx.tree_at(lambda m: m.reward, model, jnp.full_like(model.reward, 0.3))
    found = solve(equal, horizon=T, points=POINTS)
    np.testing.assert_allclose(found.value, 0.3 * (1 - 0.9**4) / 0.1, rtol=1e-12)
    assert (0 < found.error).all() and (found.error < 1e-12).all()  # rounding


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_one_decision_is_the_best_expected_reward(alpha):
    # Many points of nothing: XLA once made 1e253 of a product with constant zeros.
    model = random_apomdp(2, alpha, **SHAPE)
    found = solve(model, horizon=1, points=512)
    exact = [belief_tree_value(task, horizon=1) for task in tasks_of(model)]
    np.testing.assert_allclose(found.value, exact, rtol=1e-6)
    assert np.isfinite(found.rounds.value).all()
