"""Depth-first search: against exact values, other methods and its own policy."""

import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_values import policy_values
from random_models import alternating, random_mdp, random_pomdp, tasks_of, tiger
from test_penalties import case, small
from tolerances import ROUNDING

from sdm.solvers_jax import POMDP, DepthFirst, PointBased, save_pomdp, solve
from sdm.solvers_jax.belief_tree import belief_tree_value
from sdm.solvers_jax.search_bounds import Points
from sdm.solvers_jax.search_model import search_model
from sdm.solvers_jax.search_solution import _keep_continuations
from sdm.solvers_jax.search_tree import Tree
from sdm.tasks.transition_lists import sparse_transition

T = 4
FINE = DepthFirst(gap=1e-6)


def sparse(model):
    """The same task with lists of next states, in an order of their own."""
    dense = np.asarray(model.transition)
    order = np.argsort(-dense, axis=-1)
    lists = sparse_transition(order, np.take_along_axis(dense, order, -1))
    return eqx.tree_at(lambda m: m.transition, model, lists)


def masked(seed):
    """A batch in which the first action is always admissible, the others at random."""
    model = random_pomdp(seed, states=4, actions=3, batch=(12,))
    allowed = np.random.default_rng(seed).random(model.reward.shape) < 0.8
    allowed[..., 0] = True
    return eqx.tree_at(
        lambda m: m.admissible,
        model,
        jnp.asarray(allowed),
        is_leaf=lambda leaf: leaf is None,
    )


@pytest.mark.slow
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("horizon", [1, T])
def test_bounds_contain_the_exact_value_and_the_policy_earns_the_lower(horizon, first):
    model = random_pomdp(3, states=4, actions=3, symbols=3, batch=(12,), first=first)
    found = solve(model, horizon=horizon, method=FINE)
    exact = [belief_tree_value(one, horizon=horizon) for one in tasks_of(model)]
    # No allowance: the bounds are widened by what rounding can do.
    assert (found.lower <= np.array(exact)).all()
    assert (np.array(exact) <= found.upper).all()
    assert found.converged.all()
    assert (policy_values(model, found, horizon) >= np.asarray(found.lower)).all()


def test_a_rough_search_has_valid_bounds_and_a_policy_that_earns_them():
    model = random_pomdp(4, states=5, actions=4, symbols=3, batch=(12,))
    found = solve(model, horizon=T, method=DepthFirst(gap=0.3))
    exact = np.array([belief_tree_value(one, horizon=T) for one in tasks_of(model)])
    assert (found.lower <= exact).all() and (exact <= found.upper).all()
    # Some task stops early, or the test would be that of a fine search.
    assert (found.upper - found.lower > 1e-3).any()
    assert (policy_values(model, found, T) >= np.asarray(found.lower)).all()


def test_sparse_and_dense_transitions_have_equal_bounds():
    model = random_pomdp(5, states=40, actions=3, symbols=3, first=False)
    kept = np.asarray(model.transition).copy()
    kept[kept < np.sort(kept, axis=-1)[..., -5:-4]] = 0  # five next states of each row
    model = eqx.tree_at(
        lambda m: m.transition, model, jnp.asarray(kept / kept.sum(-1, keepdims=True))
    )
    dense, lists = (solve(x, horizon=3, method=FINE) for x in (model, sparse(model)))
    for name in ("lower", "upper"):
        # Both are within the gap of the same value.
        near = {"rtol": 2 * FINE.gap}
        np.testing.assert_allclose(getattr(dense, name), getattr(lists, name), **near)
    assert search_model(model, 3).lists is not None
    assert search_model(random_pomdp(5, states=40), 3).lists is None


def test_one_state_per_symbol_is_the_mdp():
    mdp = random_mdp(6, states=5, actions=3)
    shown = np.broadcast_to(np.eye(5), (3, 5, 5))
    seen = POMDP(
        mdp.transition,
        jnp.asarray(shown),
        mdp.reward,
        mdp.initial,
        mdp.discount,
        jnp.eye(5),
    )
    found = solve(seen, horizon=6, method=DepthFirst(gap=0.0))
    exact = solve(mdp, horizon=6)
    np.testing.assert_allclose(found.lower, exact.value, atol=ROUNDING)
    np.testing.assert_allclose(found.upper, exact.value, atol=ROUNDING)
    actions = found.action(2, jnp.eye(5))
    np.testing.assert_array_equal(actions, exact.action(2, jnp.arange(5)))


@pytest.mark.slow
@pytest.mark.parametrize(("discount", "horizon"), [(0.0, 1), (0.5, 8), (0.9, 60)])
def test_without_a_horizon_is_the_limit_of_long_horizons(discount, horizon):
    model = eqx.tree_at(lambda m: m.discount, random_pomdp(7, batch=(3,)), discount)
    found = solve(model, horizon=None, gap=0.01)
    if horizon < 10:
        tasks = tasks_of(model)
        low = high = np.array([belief_tree_value(x, horizon=horizon) for x in tasks])
    else:
        # Its bounds are valid whenever it stops.
        long = solve(model, horizon=horizon, method=DepthFirst(gap=0.01, seconds=1.0))
        low, high = long.lower, long.upper
    most = np.abs(np.asarray(model.reward)).max()
    rest = discount**horizon * most / (1 - discount)
    assert found.converged.all()
    assert (found.lower <= high + rest).all() and (low - rest <= found.upper).all()


@pytest.mark.slow
def test_the_policy_without_a_horizon_earns_its_certificate():
    model = random_pomdp(8, batch=(6,))
    model = eqx.tree_at(lambda m: m.discount, model, 0.5)
    found = solve(model, horizon=None, gap=1e-4)
    horizon = 11
    rest = 0.5**horizon * np.abs(np.asarray(model.reward)).max() / (1 - 0.5)
    earned = policy_values(model, found, horizon)
    assert (earned + rest >= np.asarray(found.lower)).all()
    belief = jnp.full((6, 1, 3), 1 / 3)
    np.testing.assert_array_equal(found.action(0, belief), found.action(99, belief))


@pytest.mark.slow
def test_tiger_without_a_horizon():
    # SARSOP: 19.3711 to 19.3721; its digits are rounded.
    found = solve(tiger(), horizon=None, gap=1e-4)
    assert found.lower <= 19.3722 and found.upper >= 19.371
    assert found.converged


def test_played_episodes_reach_the_beliefs_that_the_policy_meets():
    """The value of tiger is 19.37 (SARSOP, within 0.001); blind policies earn -20."""
    task = search_model(tiger(), None)

    def lower_after(trials, play):
        tree = Tree(task, None)
        for _ in range(trials):
            tree.trial(1e-6, lambda: False, play=play)
        found = task.proof.bounds(*(np.array([x]) for x in tree.bounds))
        assert found.lower <= 19.3721 + 1e-3 and found.upper >= 19.3711 - 1e-3
        return found.lower.item(), tree

    before, _ = lower_after(0, True)
    after, tree = lower_after(30, True)
    assert before < -15 and after > 18
    # Symbols are drawn: both sides are heard first, each with probability 1/2.
    listened = [child for (a, _), child in tree.roots[0].children.items() if a == 0]
    assert len(listened) == 2


@pytest.mark.parametrize(
    ("name", "horizon", "right"),
    [
        ("zero", 4, 0.0),
        ("tiger_forbidden", 10, 6.693368),
        ("penalty_1e6", 8, 2.213558),
        ("mixed_rewards", 4, 7.931159),
    ],
)
def test_penalties_and_an_optimum_of_zero(name, horizon, right):
    found = solve(case(name), horizon=horizon, method=DepthFirst(gap=1e-4))
    assert found.converged
    # The known values have six decimals.
    assert found.lower - 1e-6 <= right <= found.upper + 1e-6


def test_a_large_penalty_does_not_blur_the_policy():
    found = solve(small(), horizon=3, method=FINE)
    assert found.action(0, jnp.array([[0.5, 0.5]])).item() == 1
    np.testing.assert_allclose(found.lower, 6.19, rtol=1e-6)


@pytest.mark.slow
def test_masks_hold_in_every_state_that_is_possible():
    model = masked(9)
    found = solve(model, horizon=T, method=FINE)
    exact = np.array([belief_tree_value(one, horizon=T) for one in tasks_of(model)])
    assert (found.lower <= exact).all() and (exact <= found.upper).all()
    assert found.converged.all()
    # Forbidden actions pay nothing here: a policy that took one would earn no less.
    paid = jnp.where(model.admissible, model.reward, -1e6)
    strict = eqx.tree_at(lambda m: m.reward, model, paid)
    assert (policy_values(strict, found, T) >= np.asarray(found.lower)).all()


@pytest.mark.parametrize("horizon", [6, pytest.param(None, marks=pytest.mark.slow)])
def test_a_plan_is_found_where_no_action_can_be_repeated(horizon):
    method = DepthFirst(gap=1e-3)
    found = solve(alternating(), horizon=horizon, method=method)
    # Action 0 in state 0 pays 1, action 1 in state 1 pays 0.
    pays = 0.9 ** np.arange(0, 400 if horizon is None else horizon, 2)
    np.testing.assert_allclose(found.lower, pays.sum(), rtol=1e-3)
    assert found.converged and found.lower <= found.upper
    certain = [[[1.0, 0.0]], [[0.0, 1.0]]]
    assert [found.action(t, jnp.array(b)).item() for t, b in enumerate(certain)] == [
        0,
        1,
    ]


def test_no_admissible_policy_is_an_error():
    model = random_pomdp(10)
    mask = jnp.array([[True, False], [False, True], [True, True]])
    model = eqx.tree_at(
        lambda m: m.admissible, model, mask, is_leaf=lambda leaf: leaf is None
    )
    with pytest.raises(ValueError, match="no policy avoids"):
        solve(model, horizon=2, method=FINE)


def test_scaled_and_shifted_rewards_scale_and_shift_the_bounds():
    model = random_pomdp(11)
    moved = eqx.tree_at(lambda m: m.reward, model, 7 * model.reward + 3)
    years = (1 - 0.9**T) / (1 - 0.9)
    one, other = (
        solve(x, horizon=T, method=DepthFirst(gap=0.0)) for x in (model, moved)
    )
    np.testing.assert_allclose(other.lower, 7 * one.lower + 3 * years, atol=1e-9)
    np.testing.assert_allclose(other.upper, 7 * one.upper + 3 * years, atol=1e-9)


def test_every_vector_continues_with_vectors_that_are_kept():
    """Without its continuations, the best vector would promise what no policy earns."""
    model = random_pomdp(16, states=4, actions=3)
    p, z, r = map(np.asarray, (model.transition, model.observation, model.reward))
    for horizon in (T, None):
        found = solve(model, horizon=horizon, method=DepthFirst(gap=0.005))
        alpha, choice = np.asarray(found.alpha_vectors), np.asarray(found.choice)
        ends = [*alpha[1:], np.zeros((1, 4))] if horizon else alpha
        for now, actions, after in zip(alpha, choice, ends, strict=True):
            for vector, a in zip(now, actions, strict=True):
                first, second = (0.9 * (after * z[a, :, o]) @ p[:, a].T for o in (0, 1))
                backed = r[:, a] + first[:, None] + second
                assert (vector <= backed + ROUNDING).all(-1).any()


def test_points_never_fall_below_the_value():
    """The sawtooth of points with exact values bounds the exact value elsewhere."""
    model = random_pomdp(13, states=9, actions=2, symbols=2, first=False)
    tree = Tree(search_model(model, T), T)
    for _ in range(20):
        tree.trial(0.0, lambda: False)
    random = np.random.default_rng(0)
    units = tree.model.units
    scale, centre = units.scale.item(), units.centre.item()
    checked = 0
    for t in range(1, T - 1):  # the informed bound of the last stage is exact
        points: Points = tree.stages[t].points
        for kept in (9, 1, 2):  # dense beliefs, and beliefs of few states
            belief = np.zeros(9)
            belief[:kept] = random.dirichlet(np.ones(kept))
            states = np.flatnonzero(belief)
            joint = belief[states][None]
            bound = points.corner @ belief - points.drops(joint, states, (0, 0))[0]
            task = eqx.tree_at(lambda m: m.initial, model, jnp.asarray(belief))
            exact = belief_tree_value(task, horizon=T - t)
            years = sum(0.9**i for i in range(T - t))
            assert scale * bound + centre * years >= exact - ROUNDING
            checked += points.log != (0, 0)
    assert checked == 6
    stored = [stage.points for stage in tree.stages]
    assert any(p.wide.count for p in stored)


def test_narrow_and_wide_points_give_equal_drops():
    random = np.random.default_rng(1)
    informed = random.normal(size=(24, 2)) + 5
    narrow, wide = Points(informed), Points(informed)
    wide.narrow = 0
    for size in (1, 2, 3, 3, 2):
        states = np.sort(random.choice(24, size, replace=False))
        belief = random.dirichlet(np.ones(size))
        upper = float(narrow.corner[states] @ belief - random.uniform(0.5, 2))
        for points in (narrow, wide):
            assert points.improve(None, states, belief, upper) is not None
    assert narrow.lists.count == 5 and wide.wide.count == 5
    joint = random.random((6, 24)) * (random.random((6, 24)) < 0.9)
    drops = [p.drops(joint, np.arange(24), (0, 0)) for p in (narrow, wide)]
    np.testing.assert_allclose(drops[0], drops[1], atol=ROUNDING)
    assert (drops[0] > 0).any()


def test_a_time_limit_and_an_interrupt_leave_the_best_answer():
    model = random_pomdp(14, states=8, actions=4, symbols=4)
    seen = []

    def interrupt(seconds, lower, upper):
        seen.append((seconds, lower, upper))
        if len(seen) == 2:
            raise KeyboardInterrupt

    quick = solve(model, horizon=30, method=DepthFirst(gap=0.0, seconds=0.01))
    assert not quick.converged and quick.lower < quick.upper
    with pytest.warns(UserWarning, match="the search was interrupted after"):
        stopped = solve(
            model, horizon=30, method=DepthFirst(gap=0.0, progress=interrupt)
        )
    assert not stopped.converged
    assert seen[0][1] <= seen[1][1] <= stopped.lower <= stopped.upper <= seen[1][2]
    assert seen[1][2] <= seen[0][2]
    best = solve(model, horizon=30, method=DepthFirst(gap=0.0, seconds=2.0))
    assert best.upper - best.lower < stopped.upper - stopped.lower
    for found in (quick, stopped):
        assert found.lower <= best.upper and best.lower <= found.upper


def test_a_batch_is_its_tasks():
    model = random_pomdp(15, batch=(2, 3))
    found = solve(model, horizon=3, method=DepthFirst(gap=1e-3))
    one = jax.tree.map(lambda x: x[1, 2] if np.ndim(x) else x, model)
    alone = solve(one, horizon=3, method=DepthFirst(gap=1e-3))
    assert found.lower.shape == (2, 3)
    np.testing.assert_allclose(found.lower[1, 2], alone.lower, rtol=2e-3)
    belief = jnp.full((2, 3, 4, 3), 1 / 3)
    assert found.action(0, belief).shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (tiger(1.0), {}, "the discount must be below 1, found 1"),
        (tiger(), {"method": "points"}, "set the number of decisions, or use the"),
        (tiger(), {"method": PointBased()}, "or use the method search"),
        (random_mdp(0), {}, "horizon = None: set the number of decisions"),
        (tiger(), {"seconds": 0.0}, "seconds = 0.0: must be above 0"),
        (tiger(), {"gap": -1.0}, "gap = -1.0: must be 0 or more"),
        (tiger(), {"seconds": -1.0}, "seconds = -1.0: must be above 0"),
    ],
)
def test_what_cannot_be_solved_without_a_horizon_is_said(model, options, words):
    with pytest.raises(ValueError, match=words):
        solve(model, horizon=None, **options)


def test_beliefs_and_stages_are_checked():
    found = solve(tiger(), horizon=2, method=DepthFirst())
    with pytest.raises(ValueError, match="t = 2: must be a stage from 0 to 1"):
        found.action(2, jnp.full((1, 2), 0.5))
    with pytest.raises(ValueError, match="beliefs over states"):
        found.action(0, jnp.full((1, 3), 0.5))
    for wrong in (np.nan, -0.5):
        with pytest.raises(ValueError, match=r"x\[0, 1\] = .* must be a probability"):
            found.action(0, jnp.array([[0.5, wrong]]))


def test_the_example_of_the_docs_runs(tmp_path, monkeypatch):
    page = Path(__file__).resolve().parents[1] / "docs" / "solvers" / "depth_first.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    save_pomdp(tiger(), "tiger.POMDP")
    found: dict[str, object] = {}
    exec(code, found)
    # SARSOP: 19.3711 to 19.3721; its digits are rounded.
    assert found["endless"].lower <= 19.3722 and found["endless"].upper >= 19.371
    assert found["limited"].lower < found["endless"].upper


@pytest.mark.parametrize("sign", [-1, 1])
def test_first_bounds_without_a_horizon_hold_wherever_iteration_stops(sign):
    task = random_pomdp(16, symbols=3)
    # With observed states, the informed bound is the value and leaves no room.
    task = eqx.tree_at(
        lambda m: (m.reward, m.observation),
        task,
        (sign * jnp.abs(task.reward), jnp.stack([jnp.eye(3)] * 2)),
    )
    model = search_model(task, None)
    known, blind = model.forever(lambda: True)
    for a, move in enumerate(model.moves):
        exact = np.linalg.solve(np.eye(3) - 0.9 * move, model.reward[:, a])
        assert (blind[:, a] <= exact + ROUNDING).all()
        # As near as the iteration promises.
        assert (blind[:, a] >= exact - 1e-2).all()
    # A bound that its own backup does not raise is above the fixed point.
    assert (model.informed(known) <= known + ROUNDING).all()


def test_what_a_kept_plan_continues_with_is_kept():
    kept = np.array([False, False, True, False])
    _keep_continuations(kept, np.array([[0, 0], [0, 1], [1, 2], [2, 3]]))
    assert kept.tolist() == [True, True, True, False]
