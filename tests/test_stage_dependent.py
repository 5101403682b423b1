"""Models whose arrays depend on the stage, against time-expanded models and by hand."""

import dataclasses
import itertools
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_apomdp, random_mdp, random_pomdp
from staged import drawn_by_stage, expanded, has, over_pairs, random_robust, repeated
from tolerances import ROUNDING
from typer.testing import CliRunner

from sdm.cli import app
from sdm.data.regret import losses
from sdm.environments.decision_env import DecisionEnv
from sdm.solvers_jax import (
    MDP,
    MOMDP,
    BeliefPolicy,
    belief_filter,
    load_pomdp,
    rollout,
    solve,
)
from sdm.solvers_jax.belief_tree import belief_tree_value, value_at
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.solvers_jax.rectangular_mdp import (
    rectangular_backward_induction,
    worst_case_value,
)
from sdm.solvers_jax.solution_files import load_solution
from sdm.solvers_jax.stage_vectors import stage_vectors
from sdm.tasks.admissible import with_mask
from sdm.tasks.belief import true_model
from sdm.tasks.cassandra_writer import save_pomdp
from sdm.tasks.hidden_mdp import hidden_model
from sdm.tasks.imported import FamilyError
from sdm.tasks.model_files import load_npz, long_horizon, save_npz
from sdm.tasks.model_folder import ModelFolder
from sdm.tasks.models import batch_shape, check_model, states_observed
from sdm.tasks.policy import deterministic, uniform_random
from sdm.tasks.rectangular import IntervalMDP, IntervalPOMDP
from sdm.tasks.rewards import observe_rewards
from sdm.tasks.rollout import rollout_on_host, task_keys
from sdm.tasks.rollout_in_models import all_models
from sdm.tasks.simulation import simulate, simulated_returns
from sdm.tasks.stages import at_stage, stages_of
from sdm.tasks.transition_lists import sparse
from sdm.tasks.transitions import dense, take_tasks

T = 3
KEY = jax.random.key(7)
# With every reachable belief among the points, what is left of the gap is the choice of
# a vector in single precision, which rounds to 6e-8 of values of at most about 10.
SELECTED = 2e-6


def masked(model, seed=0):
    """The model with half of its actions barred, one always admissible."""
    allowed = np.random.default_rng(seed).random(model.reward.shape) < 0.5
    allowed[..., 0] |= ~allowed.any(-1)
    return dataclasses.replace(model, admissible=jnp.asarray(allowed))


def listed(model):
    """The model with lists of next states."""
    return dataclasses.replace(model, transition=sparse(model.transition))


MODELS = {
    "mdp": drawn_by_stage(random_mdp, 1, T),
    "listed mdp": listed(drawn_by_stage(random_mdp, 2, T)),
    "masked mdp": masked(drawn_by_stage(random_mdp, 3, T)),
    "robust": drawn_by_stage(random_robust, 4, T),
    "listed robust": listed(drawn_by_stage(random_robust, 5, T)),
    "pomdp": drawn_by_stage(random_pomdp, 6, T),
    "apomdp": drawn_by_stage(random_apomdp, 7, T, alpha=0.4),
}
OBSERVED = ("mdp", "listed mdp", "masked mdp", "robust", "listed robust")


@pytest.fixture(scope="module")
def solved():
    """Solutions by name, of the models and of the same models over pairs."""
    options = {"pomdp": {"gap": 0.0, "points": 64}, "apomdp": {"points": 64}}
    return {
        name: tuple(
            solve(each, horizon=T, **options.get(name, {}))
            for each in (model, expanded(model, T))
        )
        for name, model in MODELS.items()
    }


# Against the time-expanded model.


@pytest.mark.slow
@pytest.mark.parametrize("name", OBSERVED)
def test_observed_states_have_the_values_of_the_expanded_model(solved, name):
    found, wide = solved[name]
    np.testing.assert_allclose(found.value, wide.value, atol=ROUNDING)
    states = found.q.shape[-2]
    for t in range(T):
        mine = slice(t * states, (t + 1) * states)
        np.testing.assert_allclose(found.q[t], wide.q[t, mine], atol=ROUNDING)
        np.testing.assert_array_equal(found.policy[t], wide.policy[t, mine])


@pytest.mark.slow
def test_hidden_states_have_the_values_of_the_expanded_model(solved):
    model = MODELS["pomdp"]
    exact = belief_tree_value(model, horizon=T)
    wide = belief_tree_value(expanded(model, T), horizon=T)
    assert exact == pytest.approx(wide, abs=ROUNDING)
    for found in solved["pomdp"]:
        assert found.lower <= exact + ROUNDING and exact <= found.upper + ROUNDING
        assert found.upper - found.lower <= SELECTED
    pruned = solve(model, horizon=T, method="exact")
    assert pruned.lower <= exact + ROUNDING and exact <= pruned.upper + ROUNDING
    assert pruned.converged


@pytest.mark.slow
def test_ambiguous_models_have_the_values_of_the_expanded_model(solved):
    model = MODELS["apomdp"]
    exact = belief_tree_value(model, horizon=T)
    wide = belief_tree_value(expanded(model, T), horizon=T)
    assert exact == pytest.approx(wide, abs=ROUNDING)
    for found in solved["apomdp"]:
        assert abs(found.value - exact) <= found.error
        # All reachable beliefs are points, at which plans have their exact value.
        assert abs(found.value - exact) <= SELECTED


@pytest.mark.slow
@pytest.mark.parametrize("attitude", ["pessimistic", "optimistic"])
def test_the_hull_of_models_has_the_values_of_the_expanded_model(attitude):
    model = MODELS["robust"]
    wide = expanded(model, T)
    found, other = (
        rectangular_backward_induction(each, horizon=T, attitude=attitude)
        for each in (model, wide)
    )
    np.testing.assert_allclose(found.value, other.value, atol=ROUNDING)
    earned = worst_case_value(model, found.policy, attitude=attitude)
    np.testing.assert_allclose(earned, found.value, atol=ROUNDING)
    for t in range(T):
        here = slice(3 * t, 3 * t + 3)
        after = slice(3 * (t + 1), 3 * (t + 1) + 3)
        if t + 1 < T:  # nature's choice after the last decision has no effect
            law = other.nature(t)[here, :, after]
            np.testing.assert_allclose(found.nature(t), law, atol=ROUNDING)


# Equal copies.


# XLA fuses a multiplication with an addition in one program and not in another, which
# changes the last bit of values of order 1, a few times over.
LAST_BITS = 1e-14


def same(found, other):
    """Check that two solutions are equal, apart from the model in them."""
    names = [n for n in vars(found) if n != "model"]
    for name in names:
        mine, theirs = (jax.tree.leaves(getattr(x, name)) for x in (found, other))
        for a, b in zip(mine, theirs, strict=True):
            exact = np.asarray(a).dtype.kind != "f"
            bits = 0 if exact else LAST_BITS
            np.testing.assert_allclose(a, b, rtol=0, atol=bits, err_msg=name)


STATIONARY = {
    "mdp": random_mdp(11, 5),
    "large mdp": random_mdp(12, states=70, actions=4),
    "listed mdp": listed(random_mdp(12, states=9)),
    "masked mdp": masked(random_mdp(13, 2)),
    "robust": random_robust(14),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STATIONARY)
def test_equal_copies_change_nothing(name):
    model = STATIONARY[name]
    found = solve(model, horizon=4)
    for size in (1, 2, 3):
        for names in itertools.combinations(has(model), size):
            same(solve(repeated(model, 4, names), horizon=4), found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [pytest.param("points", marks=pytest.mark.slow), "exact"]
)
def test_equal_copies_change_nothing_if_states_are_hidden(method):
    model = random_pomdp(15, batch=(2,))
    options = {"method": method} | ({"points": 32} if method == "points" else {})
    found = solve(model, horizon=T, **options)
    some = ("transition",), ("observation", "reward"), tuple(has(model))
    for names in some if method == "points" else some[-1:]:
        same(solve(repeated(model, T, names), horizon=T, **options), found)


@pytest.mark.slow
def test_equal_copies_change_nothing_in_ambiguous_models():
    model = random_apomdp(16, 0.5, first=False)
    found = solve(model, horizon=T, points=16)
    same(solve(repeated(model, T), horizon=T, points=16), found)


def test_a_stationary_model_is_its_model_of_every_stage():
    model = STATIONARY["mdp"]
    assert at_stage(model, 3) is model
    assert stages_of(model) is None and stages_of(repeated(model, 4)) == 4
    again = at_stage(repeated(model, 4), 2)
    np.testing.assert_array_equal(again.transition, model.transition)
    assert batch_shape(repeated(model, 4)) == batch_shape(model) == (5,)


@pytest.mark.slow
def test_a_batch_is_its_tasks():
    model = drawn_by_stage(random_mdp, 17, T, batch=(2, 2))
    found = solve(model, horizon=T)
    assert found.q.shape == (2, 2, T, 3, 2)
    for i, j in np.ndindex(2, 2):
        alone = take_tasks(take_tasks(model, i), j)
        single = solve(alone, horizon=T)
        np.testing.assert_allclose(found.q[i, j], single.q, atol=ROUNDING)
    lists = solve(listed(model), horizon=T)
    np.testing.assert_allclose(lists.q, found.q, atol=ROUNDING)


@pytest.mark.slow
def test_lists_can_be_shared_by_stages_and_tasks():
    random = np.random.default_rng(18)
    chance = jnp.asarray(random.dirichlet(np.ones(2), (2, T, 4, 2)))
    lists = jnp.asarray(
        [[[0, 1], [1, 3]], [[1, 2], [0, 2]], [[2, 3], [0, 1]], [[0, 3], [1, 2]]]
    )
    reward = jnp.asarray(random.normal(size=(2, T, 4, 2)))
    model = MDP.sparse(lists, chance, reward, jnp.full((2, 4), 0.25), 0.9)
    assert model.transition.shared
    full = dataclasses.replace(model, transition=dense(model.transition))
    found, other = (solve(each, horizon=T) for each in (model, full))
    np.testing.assert_allclose(found.q, other.q, atol=ROUNDING)
    one = take_tasks(model, 1)
    played = simulated_returns(KEY, one, solve(one, horizon=T), horizon=T, episodes=9)
    alone = take_tasks(full, 1)
    again = simulated_returns(
        KEY, alone, solve(alone, horizon=T), horizon=T, episodes=9
    )
    np.testing.assert_allclose(played, again, atol=ROUNDING)


# By hand.


def test_no_plan_is_better():
    model = drawn_by_stage(random_mdp, 21, T, states=2)
    found = solve(model, horizon=T)
    p, r, best = np.asarray(model.transition), np.asarray(model.reward), []
    for plan in itertools.product(range(2), repeat=2 * T):
        rule, value = np.reshape(plan, (T, 2)), np.zeros(2)
        for t in reversed(range(T)):
            a = rule[t]
            value = [r[t, s, a[s]] + 0.9 * p[t, s, a[s]] @ value for s in range(2)]
        best.append(np.asarray(model.initial) @ value)
    assert found.value == pytest.approx(max(best), abs=ROUNDING)


def value_of_history(model, belief, t):
    """The value of a belief at stage `t`, by recursion over histories."""
    p, z, r = (
        np.asarray(x) for x in (model.transition, model.observation, model.reward)
    )
    if t == len(r):
        return 0.0
    best = []
    for a in range(r.shape[-1]):
        total = belief @ r[t, :, a]
        for o in range(z.shape[-1]):
            joint = (belief @ p[t, :, a]) * z[t, a, :, o]
            after = value_of_history(model, joint / joint.sum(), t + 1)
            total += model.discount * joint.sum() * after
        best.append(total)
    return max(best)


@pytest.mark.slow
def test_no_policy_over_histories_is_better(solved):
    model = MODELS["pomdp"]
    joint = np.asarray(model.initial)[:, None] * np.asarray(model.initial_observation)
    exact = sum(
        row.sum() * value_of_history(model, row / row.sum(), 0) for row in joint.T
    )
    assert belief_tree_value(model, horizon=T) == pytest.approx(exact, abs=ROUNDING)
    assert float(solved["pomdp"][0].lower) <= exact + ROUNDING
    assert exact - float(solved["pomdp"][0].lower) <= SELECTED


def test_policies_are_evaluated_over_all_paths():
    model = drawn_by_stage(random_mdp, 22, T, states=2)
    random = np.random.default_rng(0)
    policy = random.dirichlet(np.ones(2), (T, 2))
    p, r = np.asarray(model.transition), np.asarray(model.reward)
    total = 0.0
    for path in itertools.product(range(2), repeat=T):
        for choice in itertools.product(range(2), repeat=T):
            chance, earned = float(model.initial[path[0]]), 0.0
            for t, (s, a) in enumerate(zip(path, choice, strict=True)):
                chance *= policy[t, s, a]
                earned += 0.9**t * r[t, s, a]
                if t + 1 < T:
                    chance *= p[t, s, a, path[t + 1]]
            total += chance * earned
    assert evaluate_policy(model, jnp.asarray(policy)) == pytest.approx(
        total, abs=ROUNDING
    )


def test_masks_by_stage_are_followed():
    """A mask with the axis of stages beside rewards without it, and the reverse."""
    plain = random_mdp(23, 2)
    mask = np.ones((2, T, 3, 2), bool)
    mask[:, 1, :, 1] = False  # no action 1 in the second stage
    late = dataclasses.replace(plain, admissible=jnp.asarray(mask))
    found = solve(late, horizon=T)
    assert (found.policy[:, 1] == 0).all() and jnp.isneginf(found.q[:, 1, :, 1]).all()
    dear = dataclasses.replace(
        plain, reward=jnp.where(mask, plain.reward[:, None], -jnp.inf)
    )
    same(solve(dear, horizon=T), found)
    table = uniform_random(late, T).probabilities
    assert (table[:, 1, :, 0] == 1).all() and (table[:, 0] == 0.5).all()
    assert jnp.isfinite(evaluate_policy(late, table)).all()
    wrong = jnp.full((2, T, 3, 2), 0.5)
    assert jnp.isneginf(evaluate_policy(late, wrong)).all()
    held = dataclasses.replace(
        repeated(plain, T, ("reward",)), admissible=jnp.asarray(mask[:, 1])
    )
    assert (solve(held, horizon=T).policy == 0).all()


@pytest.mark.slow
def test_masks_by_stage_are_followed_if_states_are_hidden():
    model = random_pomdp(24, first=False)
    mask = np.ones((T, 3, 2), bool)
    mask[0, :, 0] = mask[2, :, 1] = False
    late = dataclasses.replace(model, admissible=jnp.asarray(mask))
    exact = belief_tree_value(late, horizon=T)
    assert exact < belief_tree_value(model, horizon=T) - 1e-3  # the mask matters
    belief = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(3), 20))
    for method in ("points", "exact"):
        found = solve(late, horizon=T, method=method)
        assert found.lower <= exact + ROUNDING and exact <= found.upper + ROUNDING
        assert found.upper - found.lower <= 0.01 * abs(found.upper)  # the default gap
        assert (found.action(0, belief) == 1).all()
        assert set(found.action(1, belief).tolist()) == {0, 1}
        assert (found.action(2, belief) == 0).all()


# Acting.


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_episodes_are_those_of_the_expanded_model(solved, name):
    """With common random numbers, both models pay the same in every episode."""
    model, (found, wide) = MODELS[name], solved[name]
    mine = simulated_returns(KEY, model, found, horizon=T, episodes=200)
    theirs = simulated_returns(KEY, expanded(model, T), wide, horizon=T, episodes=200)
    np.testing.assert_allclose(mine, theirs, atol=ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mdp", "pomdp"])
def test_the_policy_earns_its_value(solved, name):
    found, _ = solved[name]
    played = simulate(KEY, MODELS[name], found, horizon=T, episodes=20_000)
    # Of a fixed key: twice the 95 % interval is exceeded once in 10,000 keys.
    half = 2 * (played.high - played.low) / 2
    assert abs(played.mean[0] - float(found.value)) <= half[0] + SELECTED
    assert half[0] < 0.1  # far less than what another order of stages would change


@pytest.mark.slow
def test_filters_follow_the_stages():
    model = take_tasks(drawn_by_stage(random_pomdp, 31, T), None)
    whole, wide = (
        belief_filter(model),
        belief_filter(take_tasks(expanded(take_tasks(model, 0), T), None)),
    )
    state, other = (
        f.see_first(f.start(4), jnp.asarray([[0, 1, 0, 1]])) for f in (whole, wide)
    )
    for t in range(T - 1):
        action, symbol = jnp.asarray([[0, 1, 1, 0]]), jnp.asarray([[t % 2, 1, 0, 0]])
        state = at_stage(whole, t).update(state, action, symbol)
        other = wide.update(other, action, symbol)
        np.testing.assert_allclose(
            over_pairs(state.belief, t + 1, T), other.belief, atol=ROUNDING
        )
    with pytest.raises(
        ValueError, match=r"transition has an axis of 3 stages: `update`"
    ):
        whole.update(state, action, symbol)


@pytest.mark.slow
def test_rewards_are_observed_by_stage():
    model = take_tasks(drawn_by_stage(random_pomdp, 32, T, first=False), None)
    seeing = belief_filter(model, rewards=True)
    state = seeing.start(1)
    paid = model.reward[:, 0, 2, 1][:, None]  # of state 2 at stage 0
    after = at_stage(seeing, 0).update(
        state, jnp.asarray([[1]]), jnp.asarray([[0]]), paid
    )
    expected = model.transition[0, 0, 2, 1] * model.observation[0, 0, 1, :, 0]
    np.testing.assert_allclose(
        after.belief[0, 0], expected / expected.sum(), atol=ROUNDING
    )


@pytest.mark.slow
def test_episodes_on_the_host_are_the_same():
    model = drawn_by_stage(random_mdp, 33, T, batch=(2,))
    policy = deterministic(solve(model, horizon=T).policy, 2)
    keys = task_keys(KEY, 2)
    played, again = (
        run(keys, model, policy, horizon=T, episodes=5)
        for run in (rollout, rollout_on_host)
    )
    jax.tree.map(np.testing.assert_array_equal, played, again)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mdp", "listed mdp", "pomdp", "robust", "apomdp"])
def test_environments_follow_the_stages(name):
    model = MODELS[name]
    one, two = DecisionEnv(model, horizon=T), DecisionEnv(expanded(model, T), horizon=T)
    for seed in range(20):
        first, other = (env.reset(seed=seed)[0] for env in (one, two))
        assert first == other
        for t in range(T):
            seen, paid, done, _, info = one.step(seed % 2)
            wide, same_paid, _, _, there = two.step(seed % 2)
            assert paid == same_paid and done == (t == T - 1)
            assert there["state"] % 3 == info["state"]
            if "observation" in has(model):
                assert seen == wide


@pytest.mark.slow
def test_regret_follows_the_stages(solved):
    model, (found, wide) = MODELS["pomdp"], solved["pomdp"]
    both = []
    for each, plan in ((model, found), (expanded(model, T), wide)):
        batch, plans = take_tasks(each, None), jax.tree.map(lambda x: x[None], plan)
        oracle = BeliefPolicy(plans, belief_filter(batch))
        keys = task_keys(KEY, 1)
        always = deterministic(jnp.ones((1, T, 2), jnp.int32), 2)
        played = rollout(keys, batch, always, horizon=T, episodes=50)
        both.append(losses(plans, oracle, played, model.discount))
    np.testing.assert_allclose(both[0].lost, both[1].lost, atol=T * SELECTED)
    np.testing.assert_allclose(both[0].promised, both[1].promised, atol=T * SELECTED)
    assert both[0].lost.min() > -T * SELECTED and both[0].lost.max() > 0.1


@pytest.mark.slow
def test_exported_vectors_are_of_their_stages(solved):
    found, model = solved["pomdp"][0], MODELS["pomdp"]
    belief = np.random.default_rng(1).dirichlet(np.ones(3), 30)
    last = stage_vectors(found, T - 1)
    value = (belief @ np.asarray(model.reward)[T - 1]).max(-1)
    assert ((belief @ last.vector.T).max(-1) <= value + SELECTED).all()
    first = stage_vectors(found, 0)
    joint = np.asarray(model.initial)[:, None] * np.asarray(model.initial_observation)
    assert (joint.T @ first.vector.T).max(-1).sum() == pytest.approx(
        float(found.value), abs=SELECTED
    )


def test_parts_of_models_keep_the_stages():
    model = drawn_by_stage(random_apomdp, 34, T, alpha=0.5)
    part = true_model(model, 1)
    np.testing.assert_array_equal(part.transition, model.transition[:, 1])
    np.testing.assert_array_equal(part.observation, model.observation[:, 1])
    assert stages_of(part) == stages_of(states_observed(part)) == T
    check_model(part)


@pytest.mark.slow
def test_all_models_of_a_batch_keep_the_stages():
    """Also where sizes differ, so that no axis can stand for another."""
    options = {"batch": (2,), "models": 4, "states": 5, "symbols": 6}
    each = [random_apomdp(35 + t, 0.5, **options) for t in range(T)]
    names = ("transition", "observation", "reward")
    stacked = {n: jnp.stack([getattr(e, n) for e in each], 1) for n in names}
    model = dataclasses.replace(each[0], **stacked)
    check_model(model)
    every = all_models(model)
    for t, task, k in itertools.product(range(T), range(2), range(4)):
        now, one = at_stage(every, t), 4 * task + k
        for name in names[:2]:
            mine, theirs = getattr(now, name)[one], getattr(each[t], name)[task, k]
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(now.reward[one], each[t].reward[task])


# Refusals.


STAGED = MODELS["mdp"]
HIDDEN = MODELS["pomdp"]


def unshaped(model, **arrays):
    """The model with other arrays, whose shapes no one checks."""
    ((name, array),) = arrays.items()
    return eqx.tree_at(lambda m: getattr(m, name), model, array)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            STAGED,
            {"horizon": 4},
            r"transition has 3 entries on its axis of stages: must",
        ),
        (HIDDEN, {"horizon": None}, r"transition has 3 entries .*set horizon = 3"),
        (
            HIDDEN,
            {"horizon": T, "method": "search"},
            r"transition has an axis of 3 stages: the method 'search' needs",
        ),
        (
            dataclasses.replace(STAGED, reward=jnp.zeros((4, 3, 2))),
            {"horizon": T},
            r"reward has 4 entries on its axis of stages and transition has 3: must",
        ),
        (
            unshaped(random_mdp(0, 5), initial=jnp.full(3, 1 / 3)),
            {"horizon": T},
            r"transition has 5 entries .* axis 0 of \(5, 3, 2, 3\).*initial needs it",
        ),
        (
            unshaped(STAGED, transition=jnp.full((T, 3, 2, 4), 0.25)),
            {"horizon": T},
            r"transition has shape \(3, 3, 2, 4\): must be \[\*B, T, S, A, S\] =",
        ),
        (
            unshaped(HIDDEN, observation=jnp.full((T, 2, 4, 2), 0.5)),
            {"horizon": T},
            r"observation has shape \(3, 2, 4, 2\): must be \[\*B, T, A, S, O\]",
        ),
        (
            dataclasses.replace(STAGED, admissible=jnp.ones((4, 3, 2), bool)),
            {"horizon": T},
            r"admissible has shape \(4, 3, 2\): must be",
        ),
        (
            dataclasses.replace(STAGED, reward=STAGED.reward.at[2, 1, 0].set(jnp.nan)),
            {"horizon": T},
            r"reward\[2, 1, 0\]",
        ),
    ],
)
def test_arrays_that_disagree_are_named(model, options, message):
    with pytest.raises(ValueError, match=message):
        solve(model, **options)


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (
            lambda: belief_tree_value(HIDDEN, horizon=2),
            "must have one for each decision",
        ),
        (
            lambda: value_at(HIDDEN, np.eye(3), horizon=4),
            "must have one for each decision",
        ),
        (lambda: evaluate_policy(STAGED, jnp.full((4, 3, 2), 0.5)), "each decision"),
        (lambda: DecisionEnv(STAGED, horizon=10), "must have one for each decision"),
        (lambda: worst_case_value(MODELS["robust"], np.zeros((2, 3), int)), "decision"),
        (lambda: at_stage(STAGED, 3), r"t = 3: must be a stage from 0 to 2"),
        (lambda: observe_rewards(take_tasks(HIDDEN, None)), "`observe_rewards` needs"),
        (lambda: IntervalMDP.around(STAGED, 0.1), "`IntervalMDP.around` needs"),
        (lambda: IntervalPOMDP.around(HIDDEN, 0.1), "`IntervalPOMDP.around` needs"),
        (lambda: long_horizon(STAGED), "a horizon without end needs"),
        (
            lambda: solve(
                MOMDP(
                    jnp.full((3, 2, 1, 2, 2), 0.5),
                    jnp.ones((2, 1, 2)),
                    jnp.full((2, 1), 0.5),
                    1.0,
                ),
                horizon=3,
            ),
            r"transition has shape \(3, 2, 1, 2, 2\): .* cannot depend on the stage",
        ),
        (
            lambda: hidden_model(take_tasks(STAGED, None), np.ones((1, 1))),
            "`hidden_model` needs",
        ),
        (
            lambda: rollout(
                task_keys(KEY, 1),
                take_tasks(STAGED, None),
                uniform_random(take_tasks(STAGED, None), T),
                horizon=2,
                episodes=1,
            ),
            "must have one for each decision",
        ),
    ],
)
def test_what_cannot_use_the_stages_says_so(refused, message):
    with pytest.raises(ValueError, match=message):
        refused()


# Files.


def test_files_keep_the_stages(tmp_path):
    for name, model in (
        *MODELS.items(),
        ("mixed", repeated(random_mdp(1), T, ("reward",))),
    ):
        save_npz(model, tmp_path / "model.npz")
        again = load_npz(tmp_path / "model.npz")
        assert type(again) is type(model), name
        # A masked reward has no effect, and is read as 0.
        jax.tree.map(np.testing.assert_array_equal, again, with_mask(model))
    with pytest.raises(
        ValueError, match=r"the `.POMDP` format, unlike `save_npz`, needs"
    ):
        save_pomdp(STAGED, tmp_path / "model.POMDP")
    save_pomdp(at_stage(HIDDEN_ALONE, 1), tmp_path / "one.POMDP")
    np.testing.assert_array_equal(
        load_pomdp(tmp_path / "one.POMDP").reward, HIDDEN_ALONE.reward[1]
    )


HIDDEN_ALONE = drawn_by_stage(random_pomdp, 41, T, first=False)


def test_folders_of_models_refuse_stages(tmp_path):
    for number in range(2):
        save_npz(drawn_by_stage(random_mdp, number, T), tmp_path / f"{number}.npz")
    with pytest.raises(FamilyError, match="a folder of models needs a model that does"):
        _ = ModelFolder(str(tmp_path)).models


def run(*words):
    """Run a command, and return its report or its error."""
    found = CliRunner().invoke(app, [*map(str, words), "--json"])
    return json.loads(found.stdout) if found.exit_code == 0 else found.stderr


@pytest.mark.slow
def test_a_file_is_solved_kept_played_and_exported(tmp_path):
    file, out = tmp_path / "model.npz", tmp_path / "solution"
    save_npz(HIDDEN_ALONE, file)
    report = run("solve", "--model", file, "--out", out, "--simulate", 2000)
    exact = belief_tree_value(HIDDEN_ALONE, horizon=T)
    assert report["horizon"] == T and "truncation_error" not in report
    assert report["lower"] - ROUNDING <= exact <= report["upper"] + ROUNDING
    half = report["simulated_high"] - report["simulated_low"]
    # Once in 10,000 seeds the mean is off by more; this is a fixed one.
    assert abs(report["simulated_mean"] - exact) < half
    kept = load_solution(out)
    found = solve(HIDDEN_ALONE, horizon=T)
    belief = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(3), 50))
    for t in range(T):
        np.testing.assert_array_equal(kept.action(t, belief), found.action(t, belief))
    assert run("export", out, "--out", tmp_path / "policy")["stages"] == T
    wrong = run("solve", "--model", file, "--horizon", 5)
    assert "transition has 3 entries on its axis of stages" in wrong


@pytest.mark.slow
def test_the_example_of_the_documentation_is_true():
    page = Path(__file__).resolve().parents[1] / "docs/solvers/stage_dependent.md"
    example = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    names = {}
    exec(example, names)
    policy, value = names["solution"].policy[:, 0].tolist(), names["solution"].value
    assert f"# {policy}: treat" in example
    assert f"# {round(float(value), 3)}\n" in example


def test_compiled_code_takes_any_stage():
    model = MODELS["listed mdp"]

    @eqx.filter_jit
    def reward(model, t):
        now = at_stage(model, t)
        return now.reward, dense(now.transition)

    for t in range(T):
        paid, moves = reward(model, jnp.asarray(t))
        np.testing.assert_array_equal(paid, model.reward[t])
        np.testing.assert_array_equal(moves, dense(model.transition)[t])
