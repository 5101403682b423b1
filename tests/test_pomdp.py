"""Point-based POMDP solutions: certified against exact values, and at their limits."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_pomdp, tasks_of, tiger
from tolerances import ROUNDING

from sdm.solvers_jax import POMDP, EnergyFamily, solve
from sdm.solvers_jax.belief_model import distinct_actions
from sdm.solvers_jax.belief_tree import belief_tree_value
from sdm.solvers_jax.belief_upper import sawtooth
from sdm.solvers_jax.point_based import add_points

# One shape and few rounds for most tests: each number of points is compiled once.
SHAPE = {"states": 4, "actions": 3, "symbols": 3, "batch": (16,)}
T, POINTS = 4, 128
# Two tasks and two qualities of observation, of one shape as well.
P, Q = jnp.array([0.3, 0.85, 0.3, 0.85]), (0.6, 0.8)


def energy(*qualities):
    """Energy tasks as one batch: the same tasks for each quality of observation."""
    each = P[: 4 // len(qualities)]
    batches = [EnergyFamily(q=q).pomdp(each) for q in qualities]
    return jax.tree.map(
        lambda *x: jnp.concatenate(x) if np.ndim(x[0]) else x[0], *batches
    )


@pytest.mark.parametrize("horizon", [1, T])
def test_bounds_contain_the_exact_value_and_are_tight(horizon):
    model = random_pomdp(16, **SHAPE)
    found = solve(model, horizon=horizon, gap=1e-4, points=POINTS)
    spread = np.ptp(np.asarray(model.reward), axis=(1, 2)) * horizon
    for i, one in enumerate(tasks_of(model)):
        exact = belief_tree_value(one, horizon=horizon)
        # No allowance: the bounds are widened by what rounding can do.
        assert found.lower[i] <= exact <= found.upper[i]
        # A tenth of a per cent of the range of returns, the accuracy that is promised.
        assert found.upper[i] - found.lower[i] <= 1e-3 * spread[i]


@pytest.mark.slow
@pytest.mark.parametrize("digits", ["six", "single"])
def test_bounds_are_of_the_model_as_given_where_rows_miss_one(digits):
    """Printed digits and single precision lose mass, and a large bonus with it."""

    def spoilt(rows):
        rows = np.asarray(rows)
        rough = rows.round(6) if digits == "six" else rows.astype(np.float32)
        return jnp.asarray(rough, rows.dtype)

    model = random_pomdp(5, **SHAPE)
    model = POMDP(
        spoilt(model.transition),
        spoilt(model.observation),
        model.reward + 100,
        spoilt(model.initial),
        1.0,
        spoilt(model.initial_observation),
    )
    found = solve(model, horizon=T, points=32)
    tasks = tasks_of(model)
    for i, one in enumerate(tasks):
        exact = belief_tree_value(one, horizon=T)
        # The tree's own rounding, of values near 400.
        assert found.lower[i] - 1e-11 <= exact <= found.upper[i] + 1e-11
    pruned = solve(tasks[-1], horizon=T, method="exact")
    assert pruned.lower - 1e-6 <= exact <= pruned.upper + 1e-6


@pytest.mark.slow
def test_the_tiger_lies_within_its_bounds():
    horizon = 7
    exact = belief_tree_value(tiger(), horizon=horizon)
    found = solve(tiger(), horizon=horizon, points=64)
    assert found.lower <= exact <= found.upper and found.converged
    assert found.upper - found.lower <= 0.01 * max(abs(found.lower), abs(found.upper))


def test_energy_tasks_are_solved_to_one_per_cent():
    found = solve(energy(*Q), horizon=5)
    assert found.converged.all()
    assert ((found.upper - found.lower) <= 0.0101 * found.lower).all()
    assert (found.value == found.lower).all()


@pytest.mark.slow
def test_energy_tasks_of_the_default_horizon_are_solved_to_one_per_cent():
    assert solve(energy(*Q), horizon=10).converged.all()


def test_perfect_observation_is_backward_induction():
    mdp, found = (solve(m, horizon=5) for m in (EnergyFamily().mdp(P), energy(1.0)))
    # What the bounds are widened by: some 1e-12 for values of order three.
    np.testing.assert_allclose(found.lower, mdp.value, rtol=1e-11)
    np.testing.assert_allclose(found.upper, mdp.value, rtol=1e-11)
    corners = jnp.broadcast_to(jnp.eye(10), (4, 10, 10))
    for t in range(5):
        best = jnp.take_along_axis(
            mdp.q[:, t], found.action(t, corners)[..., None], axis=-1
        )
        # Single precision chooses; where two actions tie either is right.
        np.testing.assert_allclose(best[..., 0], mdp.q[:, t].max(-1), rtol=1e-5)


@pytest.mark.slow
def test_seeing_nothing_is_the_best_fixed_sequence_of_actions():
    model = random_pomdp(5, states=4, actions=3, symbols=1, first=False)

    def worth(plan):
        belief, total = np.asarray(model.initial), 0.0
        for t, a in enumerate(plan):
            total += 0.9**t * belief @ np.asarray(model.reward)[:, a]
            belief = belief @ np.asarray(model.transition)[:, a]
        return total

    best = max(worth(plan) for plan in itertools.product(range(3), repeat=T))
    # Every one of the 27 beliefs of the last stage is a point.
    found = solve(model, horizon=T, gap=1e-6, points=32)
    assert found.lower <= best + 1e-12 and best <= found.upper + 1e-12
    assert found.upper - found.lower <= 1e-6 * abs(best) + 1e-10


def policy_value(model, solution, task, horizon):
    """Exact value of acting by a batch's solution in one task, over every history."""
    p, z = np.asarray(model.transition), np.asarray(model.observation)
    reward, discount = np.asarray(model.reward), float(model.discount)
    tasks = len(solution.value)

    def go(belief, t):
        if t == horizon:
            return 0.0
        asked = jnp.asarray(np.tile(belief, (tasks, 1, 1)))
        a = int(solution.action(t, asked)[task, 0])
        total = float(belief @ reward[:, a])
        for o in range(z.shape[-1]):
            joint = (belief @ p[:, a]) * z[a, :, o]
            if joint.sum() > 0:
                chance = joint.sum()
                total += discount * chance * go(joint / chance, t + 1)
        return total

    joint = np.asarray(model.initial)[:, None] * np.asarray(model.initial_observation)
    return sum(m * go(joint[:, o] / m, 0) for o, m in enumerate(joint.sum(0)) if m > 0)


@pytest.mark.slow
def test_the_policy_is_worth_at_least_the_lower_bound():
    model = random_pomdp(0, **SHAPE)
    found = solve(model, horizon=T, points=4, gap=0.0)
    for i, one in enumerate(tasks_of(model)[:2]):
        # Actions are chosen in single precision: a tie may be lost by that much.
        assert policy_value(one, found, i, T) >= found.lower[i] - 1e-6


@pytest.mark.slow
def test_a_batch_is_the_stack_of_its_tasks():
    model = random_pomdp(7, **SHAPE | {"batch": (8, 2)})
    whole = solve(model, horizon=T, points=32)
    assert whole.value.shape == (8, 2)
    for i, j in ((0, 1), (7, 0)):
        one = jax.tree.map(lambda x: x[i, j] if np.ndim(x) else x, model)  # noqa: B023
        found = solve(one, horizon=T, points=32)
        np.testing.assert_allclose(found.lower, whole.lower[i, j], rtol=1e-12)
        np.testing.assert_allclose(found.upper, whole.upper[i, j], rtol=1e-12)
    belief = jnp.full((8, 2, 5, 4), 0.25)
    assert whole.action(2, belief).shape == (8, 2, 5)


def test_renaming_states_actions_and_symbols_changes_nothing():
    model = random_pomdp(2, **SHAPE)
    s, a, o = (np.random.default_rng(0).permutation(n) for n in (4, 3, 3))
    renamed = POMDP(
        transition=model.transition[:, s][:, :, a][..., s],
        observation=model.observation[:, a][:, :, s][..., o],
        reward=model.reward[:, s][..., a],
        initial=model.initial[:, s],
        discount=model.discount,
        initial_observation=model.initial_observation[:, s][..., o],
    )
    options = {"horizon": T, "gap": 1e-6, "points": POINTS}
    ours, theirs = (solve(m, **options) for m in (model, renamed))
    # Which points are taken may depend on the order, within the bounds.
    assert (ours.lower <= theirs.upper).all() and (theirs.lower <= ours.upper).all()
    np.testing.assert_allclose(ours.value, theirs.value, atol=1e-3)


def test_scaling_and_shifting_rewards_scales_and_shifts_values():
    model = random_pomdp(4, **SHAPE)
    other = eqx.tree_at(lambda m: m.reward, model, 3 * model.reward - 2)
    options = {"horizon": T, "gap": 1e-7, "points": POINTS}
    ours, theirs = (solve(m, **options) for m in (model, other))
    moved = 2 * (1 + 0.9 + 0.81 + 0.729)
    # In units of their own the tasks are one, but for rounding of the rewards.
    np.testing.assert_allclose(theirs.lower, 3 * ours.lower - moved, atol=1e-5)
    np.testing.assert_allclose(theirs.upper, 3 * ours.upper - moved, atol=1e-5)


def test_an_action_listed_twice_changes_nothing_and_the_first_is_taken():
    model = random_pomdp(3, **SHAPE)
    twice = np.array([0, 0, 1, 2])
    doubled = POMDP(
        model.transition[:, :, twice],
        model.observation[:, twice],
        model.reward[..., twice],
        model.initial,
        model.discount,
        model.initial_observation,
    )
    ours, theirs = (solve(m, horizon=T, points=32) for m in (model, doubled))
    np.testing.assert_array_equal(ours.value, theirs.value)
    belief = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(4), (16, 20)))
    assert set(np.unique(theirs.action(0, belief))) <= {0, 2, 3}


@pytest.mark.slow
def test_more_points_never_loosen_the_bounds_and_the_budget_is_reported():
    model = energy(0.6, 0.7)
    few, many = (solve(model, horizon=5, gap=0.0, atol=0.0, points=n) for n in (32, 64))
    assert (many.upper - many.lower < few.upper - few.lower).all()
    assert not few.converged.any() and not many.converged.any()


@pytest.mark.slow
def test_a_symbol_that_cannot_be_seen_is_no_trouble():
    model = random_pomdp(1, **SHAPE)

    def wider(shown):
        return jnp.concatenate([shown, jnp.zeros_like(shown[..., :1])], axis=-1)

    more = eqx.tree_at(
        lambda m: (m.observation, m.initial_observation),
        model,
        (wider(model.observation), wider(model.initial_observation)),
    )
    ours, theirs = (solve(m, horizon=T, gap=0.0, points=32) for m in (model, more))
    np.testing.assert_allclose(ours.value, theirs.value, rtol=ROUNDING)


@pytest.mark.slow
def test_the_sawtooth_lies_above_every_convex_function_with_its_values():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(5, 4))

    def convex(b):
        return (b @ vectors.T).max(-1)

    point = random.dirichlet(np.full(4, 0.5), 9)
    point[0] = [0.5, 0.5, 0, 0]
    somewhere = random.dirichlet(np.full(4, 0.5), 200)
    above = sawtooth(
        *map(jnp.asarray, (somewhere, point, convex(point), convex(np.eye(4))))
    )
    assert (above >= convex(somewhere) - 1e-12).all()
    at = sawtooth(*map(jnp.asarray, (point, point, convex(point), convex(np.eye(4)))))
    np.testing.assert_allclose(at, convex(point), atol=1e-6)  # chosen in float32


@pytest.mark.slow
def test_a_common_bonus_leaves_bounds_tight_and_the_policy_good():
    model = random_pomdp(0, **SHAPE)
    bonus = eqx.tree_at(lambda m: m.reward, model, model.reward + 1e7)
    options = {"horizon": T, "points": POINTS}
    found, plain = solve(bonus, gap=1e-9, **options), solve(model, gap=1e-6, **options)
    moved = 1e7 * (1 - 0.9**4) / 0.1
    # The bonus is rounded to 1e-9; widths are relative to values of 3e7.
    assert (found.lower - moved <= plain.upper + 1e-6).all()
    assert (plain.lower <= found.upper - moved + 1e-6).all()
    belief = jnp.asarray(np.random.default_rng(1).dirichlet(np.ones(4), (16, 20)))
    value = np.asarray(plain.action_value(0, belief))
    taken = np.asarray(found.action(0, belief))
    lost = value.max(-1) - np.take_along_axis(value, taken[..., None], -1)[..., 0]
    assert lost.max() <= 0.01 * np.ptp(np.asarray(model.reward)) * T


@pytest.mark.slow
def test_alpha_vectors_are_in_units_of_the_rewards():
    model = random_pomdp(5, **SHAPE)
    found = solve(model, horizon=T, points=32)
    # After the last decision nothing is paid; before it, an action's rewards.
    assert (found.alpha_vectors[:, -1] == 0).all()
    last = np.asarray(found.alpha_vectors[0, -2, :, 0])
    paid = np.asarray(model.reward[0]).T
    assert all(np.isclose(paid, row, rtol=1e-12).all(-1).any() for row in last)
    belief = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(4), (16, 20)))
    best = (belief @ jnp.swapaxes(found.alpha_vectors[:, 0, :, 0], 1, 2)).max(-1)
    ahead = found.action_value(1, belief).max(-1)
    # Looking ahead is better, but not by more than the plans are short of the optimum.
    assert (best <= ahead + 1e-6).all() and (best >= ahead - 0.5).all()


@pytest.mark.slow
def test_tiny_probabilities_do_not_blind_the_upper_bound():
    random = np.random.default_rng(0)
    model = random_pomdp(0, **SHAPE | {"batch": (30,)})

    def thinned(x):
        x = np.where(random.random(x.shape) < 0.4, 1e-20, 1.0) * np.asarray(x)
        return jnp.asarray(x / x.sum(-1, keepdims=True))

    model = eqx.tree_at(
        lambda m: (m.transition, m.observation),
        model,
        (thinned(model.transition), thinned(model.observation)),
    )
    found = solve(model, horizon=T, gap=1e-3, points=POINTS)
    # One stays at 0.3 %; with shares that underflow to infinity it is nine.
    assert found.converged.sum() >= 29


@pytest.mark.slow
def test_converged_means_the_interval_that_is_reported():
    model = random_pomdp(0, **SHAPE)
    narrow = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), model)
    for gap in (1e-3, 1e-6):
        found = solve(narrow, horizon=T, gap=gap, points=32)
        lower, upper = np.asarray(found.lower), np.asarray(found.upper)
        width = (upper - lower) / np.maximum(abs(lower), abs(upper))
        np.testing.assert_array_equal(found.converged, width <= gap)
    exact = solve(model, horizon=T, gap=1e-9, points=POINTS)
    # Single precision is widened by what it can do, and so holds all the same.
    assert (lower <= np.asarray(exact.upper)).all()
    assert (np.asarray(exact.lower) <= upper).all()


@pytest.mark.slow
def test_new_points_are_those_wanted_most_with_their_chances():
    point = jnp.eye(3)[:1]
    belief = jnp.array([[1.0, 0, 0], [0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1.0]])
    reach, want = jnp.array([0.1, 0.2, 0.3, 0.4]), jnp.array([9.0, 1, 1, 1])
    found, weight = add_points(point, jnp.zeros(1), belief, reach, want, 2)
    # The first is there already; the next two are one, and their chances add up.
    np.testing.assert_allclose(found, [[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1]])
    np.testing.assert_allclose(weight, [0.1, 0.5, 0.4], rtol=1e-6)


@pytest.mark.slow
def test_actions_are_one_only_if_they_do_the_same_in_every_task():
    model = random_pomdp(0, actions=3, batch=(2,))
    reward = jnp.repeat(model.reward[..., :1], 3, axis=-1)
    model = eqx.tree_at(lambda m: m.reward, model, reward)
    assert distinct_actions(model) == (0, 1, 2)
    p = model.transition.at[:, :, 1].set(model.transition[:, :, 0])
    z = model.observation.at[:, 1].set(model.observation[:, 0])
    moved = eqx.tree_at(lambda m: m.transition, model, p)
    shown = eqx.tree_at(lambda m: m.observation, model, z)
    assert distinct_actions(moved) == distinct_actions(shown) == (0, 1, 2)
    both = eqx.tree_at(lambda m: m.observation, moved, z)
    assert distinct_actions(both) == (0, 2)
    other = eqx.tree_at(lambda m: m.reward, both, reward.at[1, 0, 1].add(1.0))
    assert distinct_actions(other) == (0, 1, 2)
