"""Hidden candidates: bounds and policies against the tree of all histories."""

from functools import cache

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_mdp
from tolerances import ROUNDING, SINGLE

from sdm.solvers_jax import hidden_model, momdp_search, solve
from sdm.solvers_jax.momdp_moves import moves_of
from sdm.tasks.momdp import first_beliefs

# One shape for most tests: one compilation.
T, SIZE, POINTS = 3, 5, 8


def candidates(seed=0, *, size=SIZE):
    """Models with few different rewards: they tell some of the models apart."""
    models = random_mdp(seed, size, states=3, actions=2)
    return eqx.tree_at(lambda m: m.reward, models, models.reward.round())


def weights(seed=1, *, tasks=4, size=SIZE):
    return np.random.default_rng(seed).dirichlet(np.ones(size), tasks)


def solve_hidden_model(models, weight, *, horizon, rewards=False, **options):
    model = hidden_model(models, weight, observes_reward=rewards)
    return solve(model, horizon=horizon, atol=0.0, **options)


def outcomes(models, joint, x, a, rewards):
    """Unnormalised beliefs after a decision, for every state and reward seen."""
    p, r = np.asarray(models.transition), np.asarray(models.reward)
    groups = sorted(set(r[:, x, a])) if rewards else [None]
    for following in range(p.shape[-1]):
        for paid in groups:
            agrees = np.ones(len(p)) if paid is None else r[:, x, a] == paid
            yield following, joint * p[:, x, a, following] * agrees


def exact(models, joint, x, t, rewards, choose=None):
    """Value of acting optimally, or as `choose` says, by recursion over histories."""
    if t == T or joint.sum() == 0:
        return 0.0
    r, discount = np.asarray(models.reward), float(models.discount)
    values = []
    actions = range(r.shape[2]) if choose is None else [choose(t, x, joint)]
    for a in actions:
        total = float(joint @ r[:, x, a])
        for following, after in outcomes(models, joint, x, a, rewards):
            total += discount * exact(models, after, following, t + 1, rewards, choose)
        values.append(total)
    return max(values)


def exact_values(models, weight, rewards, choose=None):
    start = np.asarray(models.initial)
    return np.array(
        [
            sum(
                exact(
                    models,
                    w * start[:, x],
                    x,
                    0,
                    rewards,
                    choose and (lambda *now, i=i: choose(i, *now)),
                )
                for x in range(start.shape[1])
            )
            for i, w in enumerate(weight)
        ]
    )


@cache
def exact_values_of(seed, rewards):
    return exact_values(candidates(seed), weights(seed), rewards)


@pytest.mark.slow
@pytest.mark.parametrize("rewards", [False, True])
@pytest.mark.parametrize("points", [1, POINTS])
def test_bounds_contain_the_exact_value_and_the_policy_earns_the_lower_one(
    points, rewards
):
    for seed in (4, 11):
        models, weight = candidates(seed), weights(seed)
        found = solve_hidden_model(
            models, weight, horizon=T, points=points, rewards=rewards, gap=0.0
        )
        wanted = exact_values_of(seed, rewards)
        # No allowance: the bounds are widened by what rounding can do.
        assert (found.lower <= wanted).all() and (wanted <= found.upper).all()
        informed = weight @ np.asarray(solve(models, horizon=T).value)
        assert (found.upper <= informed + ROUNDING).all()

        def choose(task, t, x, joint, found=found):
            belief = np.tile(joint / joint.sum(), (len(found.lower), 1, 1))
            state = jnp.full(belief.shape[:2], x, jnp.int32)
            return int(found.action(t, (state, jnp.asarray(belief)))[task, 0])

        earned = exact_values(models, weight, rewards, choose)
        assert (earned >= np.asarray(found.lower) - ROUNDING).all()


def test_rewards_that_are_seen_are_worth_something():
    blind, seeing = (exact_values_of(4, observed) for observed in (False, True))
    assert (seeing > blind + 1e-3).all()


def test_with_every_reachable_belief_the_bounds_meet():
    models, weight = candidates(3), weights(3)
    found = solve_hidden_model(models, weight, horizon=T, points=64, gap=0.0)
    # Which plan is best is decided in single precision.
    np.testing.assert_allclose(found.upper, found.lower, rtol=SINGLE)


def test_a_belief_that_is_certain_is_worth_what_its_candidate_is():
    models = candidates(6)
    found = solve_hidden_model(models, np.eye(SIZE), horizon=T, points=1, gap=0.0)
    value = solve(models, horizon=T).value
    np.testing.assert_allclose(found.lower, value, rtol=ROUNDING)
    np.testing.assert_allclose(found.upper, value, rtol=ROUNDING)


@pytest.mark.slow
def test_one_candidate_is_an_mdp():
    models = candidates(size=1)
    found = solve_hidden_model(models, np.ones((2, 1)), horizon=T, points=POINTS)
    mdp = solve(models, horizon=T)
    np.testing.assert_allclose(found.lower, mdp.value.repeat(2), rtol=ROUNDING)
    np.testing.assert_allclose(found.upper, mdp.value.repeat(2), rtol=ROUNDING)
    state = jnp.broadcast_to(jnp.arange(3, dtype=jnp.int32), (2, 3))
    for t in range(T):
        action = found.action(t, (state, jnp.ones((2, 3, 1))))
        np.testing.assert_array_equal(action, mdp.policy.repeat(2, 0)[:, t])


def test_a_single_decision_is_that_of_the_mean_reward():
    models, weight = candidates(), weights()
    found = solve_hidden_model(models, weight, horizon=1, points=POINTS)
    joint = weight[:, :, None] * np.asarray(models.initial)  # [B, K, S]
    best = np.einsum("bks,ksa->bsa", joint, np.asarray(models.reward)).max(-1).sum(-1)
    np.testing.assert_allclose(found.lower, best, rtol=ROUNDING)
    np.testing.assert_allclose(found.upper, best, rtol=ROUNDING)


def test_a_batch_is_the_stack_of_its_tasks():
    """Beliefs are shared, so bounds differ; both hold the same value."""
    models, weight = candidates(4), weights(4, tasks=POINTS + 3)
    whole = solve_hidden_model(models, weight, horizon=T, points=POINTS, gap=0.0)
    exactly = exact_values(models, weight, False)
    for i in (0, POINTS + 2):
        one = solve_hidden_model(
            models, weight[i : i + 1], horizon=T, points=POINTS, gap=0.0
        )
        assert one.lower[0] <= exactly[i] <= one.upper[0]
        assert whole.lower[i] <= exactly[i] <= whole.upper[i]
        # A task's beliefs fit: alone, it is solved.
        np.testing.assert_allclose(one.lower[0], exactly[i], rtol=1e-3)


def test_more_points_tighten_the_bounds():
    models, weight = candidates(5), weights(5)
    widths = [
        np.asarray(found.upper - found.lower).mean()
        for points in (1, 4, POINTS, 64)
        for found in [
            solve_hidden_model(models, weight, horizon=T, points=points, gap=0.0)
        ]
    ]
    assert (np.diff(widths) < 0).all()


def test_refinement_stops_at_the_gap_that_was_asked():
    models, weight = candidates(5), weights(5)
    ask = {"horizon": T, "points": 64}
    loose = solve_hidden_model(models, weight, gap=0.2, **ask)
    tight = solve_hidden_model(models, weight, gap=0.0, **ask)
    assert (loose.upper - loose.lower <= 0.2 * loose.upper).all()
    assert (loose.upper - loose.lower > tight.upper - tight.lower).any()


def search_of(models, weight):
    model = hidden_model(models, weight)
    root, mass = (np.swapaxes(x[:, :, 0], 0, 1) for x in first_beliefs(model))
    return momdp_search.Search(moves_of(model, horizon=T), root, mass / len(weight))


def test_beliefs_are_distinct_and_reached_with_their_probability():
    search = search_of(candidates(3), weights(3))
    search.expand(64)
    for beliefs in search.points:
        assert beliefs.reach.sum() == pytest.approx(1)
    search.sweep()
    search.expand(64)
    for beliefs in search.points[1:]:
        for point, n in zip(beliefs.point, beliefs.filled, strict=True):
            assert len(np.unique(point[:n].round(8), axis=0)) == n


def test_beliefs_without_a_gap_are_not_added(monkeypatch):
    search = search_of(candidates(3), weights(3))
    search.expand(1)
    search.sweep()
    before = [beliefs.filled.copy() for beliefs in search.points]
    shape = momdp_search.gap_at
    monkeypatch.setattr(
        momdp_search, "gap_at", lambda *given: jnp.zeros_like(shape(*given))
    )
    assert search.expand(64) == 0
    after = [beliefs.filled for beliefs in search.points]
    np.testing.assert_array_equal(after, before)


@pytest.mark.slow
def test_refinement_goes_on_until_every_task_has_the_gap():
    weight = np.stack([np.eye(SIZE)[0], weights(5)[0]])  # the first is solved at once
    found = solve_hidden_model(candidates(5), weight, horizon=T, points=4, gap=1e-9)
    assert (found.upper - found.lower <= 1e-9 * found.upper).all()


def test_a_state_in_which_no_task_starts_has_the_action_of_the_weights():
    models, weight = candidates(), np.eye(SIZE)
    start = jnp.zeros_like(models.initial).at[:, 0].set(1)
    models = eqx.tree_at(lambda m: m.initial, models, start)
    found = solve_hidden_model(models, weight, horizon=1, points=POINTS)
    best = np.einsum("bk,ksa->bsa", weight, np.asarray(models.reward)).argmax(-1)
    np.testing.assert_array_equal(found.first_actions(), best)


def test_rounding_of_large_rewards_tells_nothing():
    models = candidates(4)
    rounded = 1 + 1e-13 * jnp.arange(SIZE, dtype=float)[:, None, None]
    models = eqx.tree_at(lambda m: m.reward, models, 1e9 * models.reward[:1] * rounded)
    blind, seeing = (
        solve_hidden_model(
            models, weights(), horizon=T, points=POINTS, rewards=observed
        )
        for observed in (False, True)
    )
    np.testing.assert_allclose(seeing.upper, blind.upper, rtol=ROUNDING)


@pytest.mark.slow
def test_actions_that_move_alike_can_tell_different_things():
    models, weight = candidates(4), weights(4)
    alike = models.transition.at[:, :, 1].set(models.transition[:, :, 0])
    paid = models.reward.at[:, :, 0].set(0.0)
    paid = paid.at[:, :, 1].set(jnp.arange(SIZE, dtype=float)[:, None] - 2)
    models = eqx.tree_at(lambda m: (m.transition, m.reward), models, (alike, paid))
    found = solve_hidden_model(models, weight, horizon=T, points=64, rewards=True)
    wanted = exact_values(models, weight, True)
    assert (found.lower <= wanted).all() and (wanted <= found.upper).all()
    np.testing.assert_allclose(found.lower, wanted, rtol=1e-3)


@pytest.mark.slow
def test_one_belief_bounds_two_decisions_exactly_from_above():
    """The value of the last decision is that of its best action: QMDP's bound."""
    models, weight = candidates(4), weights(4)
    one, every = (
        solve_hidden_model(models, weight, horizon=2, points=points, gap=0.0)
        for points in (1, 64)
    )
    np.testing.assert_allclose(one.upper, every.upper, rtol=ROUNDING)
    np.testing.assert_allclose(every.lower, every.upper, rtol=SINGLE)
