"""Masks of actions: against plain enumeration, in every solver and in episodes."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_values import policy_values
from random_models import random_apomdp, random_mdp, random_pomdp, rows, tasks_of
from tolerances import ROUNDING

from sdm.environments.decision_env import DecisionEnv
from sdm.solvers_jax import (
    MDP,
    POMDP,
    BeliefPolicy,
    RobustMDP,
    belief_filter,
    evaluate_policy,
    hidden_model,
    load_model,
    rollout,
    save_npz,
    save_pomdp,
    solve,
)
from sdm.solvers_jax.belief_tree import belief_tree_value
from sdm.tasks.admissible import admissible_at, with_mask
from sdm.tasks.models import check_model
from sdm.tasks.policy import constant_action, deterministic, uniform_random
from sdm.tasks.rewards import observe_rewards
from sdm.tasks.rollout import rollout_on_host, task_keys

T = 3


def random_mask(seed, *shape):
    """A mask in which every state has an action, and about half are barred."""
    random = np.random.default_rng(seed)
    mask = random.random(shape) < 0.5
    some = random.integers(0, shape[-1], shape[:-1])
    return mask | (np.arange(shape[-1]) == some[..., None])


def masked(model, mask, *, as_reward=False):
    """The model with a mask, or with rewards of -inf that say the same."""
    if as_reward:
        barred = jnp.where(mask, model.reward, -jnp.inf)
        return eqx.tree_at(lambda m: m.reward, model, barred)
    return eqx.tree_at(
        lambda m: m.admissible, model, jnp.asarray(mask), is_leaf=lambda x: x is None
    )


def hidden(seed, tasks=16, states=3, symbols=2):
    """POMDPs in which some moves and symbols are impossible, and action 0 always is."""
    random = np.random.default_rng(seed)

    def sparse(*shape):
        x = rows(random, *shape) * (random.random(shape) < 0.6)
        x[..., 0] += 1.0 * (x.sum(-1) == 0)
        return jnp.asarray(x / x.sum(-1, keepdims=True))

    model = POMDP(
        sparse(tasks, states, 3, states),
        sparse(tasks, 3, states, symbols),
        jnp.asarray(random.normal(size=(tasks, states, 3))),
        sparse(tasks, states),
        0.9,
        sparse(tasks, states, symbols),
    )
    mask = random_mask(seed, tasks, states, 3)
    mask[..., 0] = True  # a belief always has an admissible action
    return model, mask


def by_hand(model, horizon):
    """The best value of one masked MDP over all deterministic Markov policies."""
    p, r, mask = (
        np.asarray(x) for x in (model.transition, model.reward, model.admissible)
    )
    states, actions = r.shape
    value = np.zeros(states)
    for _ in range(horizon):
        best = np.full(states, -np.inf)
        for s, a in itertools.product(range(states), range(actions)):
            if mask[s, a]:
                best[s] = max(best[s], r[s, a] + 0.9 * p[s, a] @ value)
        value = best
    return float(np.asarray(model.initial) @ value)


@pytest.mark.parametrize("as_reward", [False, True])
@pytest.mark.parametrize("tasks", [1, 40])  # both layouts of the recursion
def test_an_mdp_chooses_among_admissible_actions(as_reward, tasks):
    plain, mask = random_mdp(0, tasks, actions=3), random_mask(1, tasks, 3, 3)
    found = solve(masked(plain, mask, as_reward=as_reward), horizon=T)
    wanted = [by_hand(task, T) for task in tasks_of(masked(plain, mask))]
    np.testing.assert_allclose(found.value, wanted, rtol=ROUNDING)
    np.testing.assert_array_equal(np.isneginf(found.q), np.repeat(~mask[:, None], T, 1))
    taken = np.take_along_axis(mask[:, None], np.asarray(found.policy)[..., None], -1)
    assert taken.all() and (found.value < solve(plain, horizon=T).value).any()


def test_barring_an_action_everywhere_is_a_model_without_it():
    plain, mask = random_mdp(2, 5, actions=3), np.ones((5, 3, 3), bool)
    mask[..., 1] = False
    less = MDP(plain.transition[:, :, ::2], plain.reward[..., ::2], plain.initial, 0.9)
    ours, theirs = solve(masked(plain, mask), horizon=T), solve(less, horizon=T)
    np.testing.assert_allclose(ours.value, theirs.value, rtol=ROUNDING)
    np.testing.assert_array_equal(ours.policy, 2 * theirs.policy)
    robust = RobustMDP(
        jnp.stack([plain.transition] * 2, 1), plain.reward, plain.initial, 0.3, 0.9
    )
    same = solve(masked(robust, mask), horizon=T)
    np.testing.assert_allclose(same.value, theirs.value, rtol=ROUNDING)


def test_policy_evaluation_is_minus_infinity_only_where_a_barred_action_is_met():
    plain, mask = random_mdp(3, 4, actions=2), np.ones((4, 3, 2), bool)
    mask[0, 2, 1] = False
    model = masked(plain, mask)
    found = solve(model, horizon=T)
    best = evaluate_policy(model, deterministic(found.policy, 2).probabilities)
    np.testing.assert_allclose(best, found.value, rtol=ROUNDING)
    always = evaluate_policy(model, constant_action(model, T, 1).probabilities)
    assert np.isneginf(always[0]) and np.isfinite(always[1:]).all()
    random = evaluate_policy(model, uniform_random(model, T).probabilities)
    assert np.isfinite(random).all() and (random <= found.value + 1e-12).all()
    # Unreachable: the barred state has probability zero.
    stay = jnp.zeros_like(plain.transition).at[:, :, :, 0].set(1)
    start = jnp.zeros_like(plain.initial).at[:, 0].set(1)
    far = masked(MDP(stay, plain.reward, start, 0.9), mask)
    assert np.isfinite(
        evaluate_policy(far, constant_action(far, T, 1).probabilities)
    ).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "as_reward", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_bounds_of_masked_pomdps_contain_the_exact_value(as_reward):
    plain, mask = hidden(0)
    model = masked(plain, mask, as_reward=as_reward)
    found = solve(model, horizon=T, gap=1e-4, points=32)
    exact = np.array([belief_tree_value(task, horizon=T) for task in tasks_of(model)])
    assert (found.lower <= exact).all() and (exact <= found.upper).all()
    assert found.converged.all()
    free = np.array([belief_tree_value(task, horizon=T) for task in tasks_of(plain)])
    assert (exact <= free + 1e-12).all() and (exact < free - 1e-3).any()


@pytest.mark.slow
def test_the_policy_of_a_masked_pomdp_earns_its_bound_and_is_admissible():
    plain, mask = hidden(1)
    found = solve(masked(plain, mask), horizon=T, points=32)
    # A barred action costs everything, so that one would show.
    costly = eqx.tree_at(lambda m: m.reward, plain, jnp.where(mask, plain.reward, -1e9))
    earned = policy_values(costly, found, T)
    assert (earned >= found.lower - 1e-12).all()


@pytest.mark.slow
def test_a_mask_is_the_limit_of_penalties():
    plain, mask = hidden(2)
    barred = solve(masked(plain, mask), horizon=T, gap=1e-6, points=32)
    costly = eqx.tree_at(lambda m: m.reward, plain, jnp.where(mask, plain.reward, -1e9))
    found = solve(costly, horizon=T, gap=1e-6, points=32)
    # Probabilities are above 1e-6, so that a penalty of 1e9 is never worth it.
    assert (found.lower <= barred.upper + 1e-9).all()
    assert (barred.lower <= found.upper + 1e-9).all()


@pytest.mark.slow
def test_exact_vectors_of_masked_pomdps():
    plain, mask = hidden(5, tasks=4)
    model = masked(plain, mask)
    found = solve(model, horizon=T, method="exact")
    for i, task in enumerate(tasks_of(model)):
        exact = belief_tree_value(task, horizon=T)
        assert found.lower[i] <= exact <= found.upper[i]
    assert found.converged.all()
    vectors = np.asarray(found.alpha_vectors)
    assert np.isneginf(vectors).any() and not np.isnan(vectors).any()


@pytest.mark.slow
def test_values_of_actions_are_minus_infinity_where_a_possible_state_bars_them():
    plain, mask = hidden(4, tasks=2)
    mask[:, :, 1], mask[:, 2, 1] = True, False
    found = solve(masked(plain, mask), horizon=T, points=32)
    belief = jnp.array([[[0.5, 0.5, 0.0], [0.4, 0.4, 0.2], [0.5, 0.5, 1e-20]]] * 2)
    value = np.asarray(found.action_value(0, belief))
    np.testing.assert_array_equal(
        np.isneginf(value[:, :, 1]), [[False, True, True]] * 2
    )
    allowed = admissible_at(jnp.asarray(mask), belief)
    taken = np.take_along_axis(
        np.asarray(allowed), np.asarray(found.action(0, belief))[..., None], -1
    )
    assert taken.all()


@pytest.mark.slow
def test_no_admissible_action_at_a_belief_is_an_error():
    """Two states that look alike and share no action."""
    model = POMDP(
        jnp.full((2, 2, 2), 0.5),
        jnp.ones((2, 2, 1)),
        jnp.zeros((2, 2)),
        jnp.array([0.5, 0.5]),
        0.9,
    )
    barred = masked(model, np.eye(2, dtype=bool))
    for method in ("points", "exact"):
        with pytest.raises(ValueError, match="no policy avoids actions that are not"):
            solve(barred, horizon=2, method=method)
    assert np.isneginf(belief_tree_value(barred, horizon=2))


@pytest.mark.slow
def test_episodes_never_take_a_barred_action_and_say_when_a_policy_would():
    plain, mask = random_mdp(5, 6, actions=3), random_mask(6, 6, 3, 3)
    model, keys = masked(plain, mask), task_keys(jax.random.key(0), 6)
    options = {"horizon": T, "episodes": 50}
    for play in (rollout, rollout_on_host):
        played = play(keys, model, uniform_random(model, T), **options)
        task = np.arange(6)[:, None, None]
        assert mask[task, played.observation, played.action].all()
        assert np.isfinite(played.reward).all()
        wrong = constant_action(model, T, 2)
        with pytest.raises(ValueError, match=r"action 2 of the policy is not admissib"):
            play(keys, masked(plain, mask, as_reward=True), wrong, **options)


def test_episodes_of_a_masked_pomdp_run_on_its_belief():
    plain, mask = hidden(7)
    model = masked(plain, mask)
    found = solve(model, horizon=T, points=32)
    policy = BeliefPolicy(found, belief_filter(model))
    keys = task_keys(jax.random.key(1), 16)
    played = rollout(keys, model, policy, horizon=T, episodes=200)
    mean = np.asarray(played.reward @ (0.9 ** np.arange(T))).mean(-1)
    # Two hundred episodes of a reward of order one: 5 standard errors are 0.6.
    np.testing.assert_allclose(mean, found.lower, atol=0.7)


def test_observed_rewards_keep_the_mask():
    plain, mask = hidden(8, tasks=2)
    larger = observe_rewards(masked(plain, mask))
    np.testing.assert_array_equal(larger.model.admissible, mask[:, larger.state])


def test_a_file_keeps_the_mask(tmp_path):
    plain, mask = random_mdp(9, actions=3), random_mask(9, 3, 3)
    for as_reward in (False, True):
        save_npz(masked(plain, mask, as_reward=as_reward), tmp_path / "own.npz")
        again = load_model(tmp_path / "own.npz")
        np.testing.assert_array_equal(again.admissible, mask)
        assert np.isfinite(again.reward).all()


def test_an_environment_refuses_a_barred_action():
    mask = np.array([[True, False]] * 3)
    env = DecisionEnv(masked(random_mdp(0), mask), horizon=2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action = 1: not admissible in state"):
        env.step(1)
    assert np.isfinite(env.step(0)[1])


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (
            np.zeros((3, 2), bool),
            r"admissible\[0\]: no action is .* \(3 of 3",
        ),
        (np.ones((3, 2)), "admissible has dtype float64: must be bool"),
        (
            np.ones((2, 2), bool),
            r"has shape \(2, 2\): must be \[\*B, S, A\]",
        ),
    ],
)
def test_masks_that_are_wrong_are_named(mask, words):
    model = random_mdp(0)
    object.__setattr__(model, "admissible", mask)
    with pytest.raises(ValueError, match=words):
        check_model(model)


def test_masks_are_refused_where_they_are_not_supported(tmp_path):
    barred = random_apomdp(0, 0.5)
    barred = eqx.tree_at(
        lambda m: m.reward, barred, barred.reward.at[0, 0].set(-jnp.inf)
    )
    with pytest.raises(ValueError, match=r"reward\[0, 0\] = -inf: must be finite"):
        solve(barred, horizon=2)
    plain, mask = random_pomdp(0, first=False), random_mask(0, 3, 2)
    with pytest.raises(ValueError, match=r"the `.POMDP` format does not support"):
        save_pomdp(masked(plain, mask, as_reward=True), tmp_path / "own.POMDP")
    several = masked(random_mdp(0, 2), random_mask(0, 2, 3, 2))
    with pytest.raises(ValueError, match="`hidden_model` does not support masks"):
        hidden_model(several, jnp.array([[0.5, 0.5]]))


def test_a_model_without_a_mask_is_left_alone():
    model = random_pomdp(0)
    assert with_mask(model) is model and with_mask("no model") == "no model"
