"""Shaped rewards against the policy-invariance theorem and explicit sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdm.feedback.uses import plan, scaled, uses
from sdm.solvers_jax import solve
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.tasks.models import MDP
from sdm.tasks.policy import uniform_random
from sdm.tasks.shaping import only_state_reward, with_potential, with_state_reward

T = 5


def random_mdp(seed=0, tasks=3, states=4, actions=3, discount=0.9):
    random = np.random.default_rng(seed)
    move = random.dirichlet(np.ones(states), (tasks, states, actions))
    return MDP(
        jnp.asarray(move),
        jnp.asarray(random.normal(size=(tasks, states, actions))),
        jnp.asarray(random.dirichlet(np.ones(states), tasks)),
        discount,
    )


def potential_of(seed=1, scale=10.0):
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=(3, 4)))


@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_a_potential_shifts_action_values_and_keeps_the_policy(discount):
    mdp, potential = random_mdp(discount=discount), potential_of()
    plain = solve(mdp, horizon=T)
    shaped = solve(with_potential(mdp, potential, horizon=T), horizon=T)
    shifted = plain.q - potential[:, None, :, None]
    # Rounding of numbers up to 30 in T sums.
    assert np.allclose(shaped.q, shifted, atol=1e-12)
    assert (shaped.policy == plain.policy).all()


def test_a_potential_shifts_the_return_of_every_policy_by_its_first_value():
    mdp, potential = random_mdp(), potential_of()
    policy = uniform_random(mdp, T).probabilities
    shaped = evaluate_policy(with_potential(mdp, potential, horizon=T), policy)
    first = (mdp.initial * potential).sum(-1)
    assert np.allclose(shaped, evaluate_policy(mdp, policy) - first, atol=1e-12)


def test_a_potential_that_remains_at_the_end_changes_the_policy():
    """Without the zero after the last decision, the theorem does not hold."""
    mdp, potential = random_mdp(), potential_of()
    right = with_potential(mdp, potential, horizon=T)
    early = right.reward[:, :1]
    wrong = MDP(mdp.transition, jnp.repeat(early, T, axis=1), mdp.initial, mdp.discount)
    assert (solve(wrong, horizon=T).policy != solve(mdp, horizon=T).policy).any()


def test_rewards_of_the_next_state_are_explicit_sums():
    mdp, bonus = random_mdp(), potential_of()
    found = with_state_reward(mdp, bonus).reward
    only = only_state_reward(mdp, bonus).reward
    for b, s, a in np.ndindex(*mdp.reward.shape):
        moves = np.asarray(mdp.transition)[b, s, a]
        mean = sum(p * x for p, x in zip(moves, np.asarray(bonus)[b], strict=True))
        assert only[b, s, a] == pytest.approx(mean)
        assert found[b, s, a] == pytest.approx(mean + float(mdp.reward[b, s, a]))


def test_shaping_needs_rewards_that_do_not_depend_on_the_stage():
    staged = with_potential(random_mdp(), potential_of(), horizon=T)
    for shape in (
        lambda: with_potential(staged, potential_of(), horizon=T),
        lambda: with_state_reward(staged, potential_of()),
        lambda: only_state_reward(staged, potential_of()),
    ):
        with pytest.raises(ValueError, match="axis of 5 stages"):
            shape()


@pytest.mark.parametrize("use", ["potential", "added", "alone"])
def test_a_reward_of_zero_and_all_decisions_is_the_exact_plan(use):
    mdp = random_mdp()
    policy = plan(use, mdp, jnp.zeros((3, 4)), horizon=T).probabilities
    best = solve(mdp, horizon=T)
    value = evaluate_policy(mdp, policy)
    equal = np.allclose(value, best.value)
    assert equal == (use != "alone")


def test_a_potential_keeps_a_plan_optimal_whatever_its_size():
    mdp, best = random_mdp(), solve(random_mdp(), horizon=T)
    for scale in (0.1, 1.0, 100.0):
        policy = plan("potential", mdp, potential_of(scale=scale), horizon=T)
        value = evaluate_policy(mdp, policy.probabilities)
        assert np.allclose(value, best.value, atol=1e-12)


def in_tree(mdp, b, s, depth, end):
    """Return the best value and action over `depth` decisions, by recursion."""
    if depth == 0:
        return float(end[b, s]), None
    values = [
        float(mdp.reward[b, s, a])
        + mdp.discount
        * sum(
            float(p) * in_tree(mdp, b, n, depth - 1, end)[0]
            for n, p in enumerate(np.asarray(mdp.transition)[b, s, a])
        )
        for a in range(mdp.reward.shape[-1])
    ]
    return max(values), int(np.argmax(values))


@pytest.mark.slow
@pytest.mark.parametrize("lookahead", [1, 2])
def test_a_limited_lookahead_is_a_search_tree(lookahead):
    mdp, reward = random_mdp(tasks=1), potential_of()[:1]
    sum_of_both = with_state_reward(mdp, reward)
    for use, model, end in (
        ("potential", mdp, reward),
        ("added", sum_of_both, jnp.zeros_like(reward)),
    ):
        table = plan(use, mdp, reward, horizon=T, lookahead=lookahead).probabilities
        for t, s in np.ndindex(T, 4):
            left = min(lookahead, T - t)
            after = end if T - t > lookahead else jnp.zeros_like(end)
            _, action = in_tree(model, 0, s, left, after)
            assert table[0, t, s, action] == 1, (use, t, s)


@pytest.mark.slow
def test_the_exact_value_as_a_potential_makes_one_decision_enough():
    """In a task without an end in sight, V* of a long horizon is stationary."""
    mdp = random_mdp(discount=0.5)
    long = solve(mdp, horizon=60)  # 0.5^60 is below rounding
    table = plan("potential", mdp, long.state_value[:, 0], horizon=40, lookahead=1)
    chosen = np.asarray(table.probabilities).argmax(-1)
    assert (chosen[:, :20] == np.asarray(long.policy)[:, :20]).all()


def test_scores_are_stretched_over_the_range_of_rewards():
    scores = np.array([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]])
    reward = np.array([[[0.0, 1.0]] * 3, [[0.0, 4.0]] * 3])
    found = scaled(scores, reward)
    assert (found == [[0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]).all()


def test_an_unknown_use_and_a_wrong_lookahead_are_named():
    mdp, zero = random_mdp(), jnp.zeros((3, 4))
    with pytest.raises(ValueError, match="choose from potential, added, alone"):
        plan("bonus", mdp, zero, horizon=T)
    with pytest.raises(ValueError, match="lookahead = -1"):
        plan("added", mdp, zero, horizon=T, lookahead=-1)
    assert set(uses()) == {"potential", "added", "alone"}
    assert jax.config.jax_enable_x64  # the tolerances above are of double precision
