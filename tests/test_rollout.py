"""Episodes: the right frequencies, common random numbers, and slices that agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdm.solvers_jax import POMDP, EnergyFamily, evaluate_policy, rollout, solve
from sdm.solvers_jax.backward_induction import optimal_action
from sdm.tasks.policy import (
    constant_action,
    deterministic,
    draw,
    uniform_random,
)
from sdm.tasks.rollout import (
    discounted_return,
    draw_random_numbers,
    rollout_on_host,
    task_keys,
)


def bed(tasks=6, horizon=8):
    mdp = EnergyFamily().sample(jax.random.key(0), tasks)
    return mdp, solve(mdp, horizon=horizon), task_keys(jax.random.key(1), tasks)


def test_draw_inverts_the_distribution_function():
    chances = jnp.array([[0.2, 0.0, 0.5, 0.3]] * 5)
    uniform = jnp.array([0.0, 0.19, 0.2, 0.69, 0.71])
    np.testing.assert_array_equal(draw(chances, uniform), [0, 0, 2, 2, 3])


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=6).filter(any), st.integers(0, 9)
)
def test_a_category_of_probability_zero_is_never_drawn(weights, seed):
    chances = jnp.array(weights, jnp.float32) / sum(weights)
    ends = jnp.array([0.0, 1 - 2**-24], jnp.float32)
    some = jax.random.uniform(jax.random.key(seed), (30,), jnp.float32)
    uniform = jnp.concatenate([ends, some])
    drawn = draw(jnp.broadcast_to(chances, (32, len(weights))), uniform)
    assert (np.array(weights)[np.asarray(drawn)] > 0).all()


def test_mean_returns_are_the_exact_values():
    mdp, solution, keys = bed()
    for policy in (deterministic(solution.policy, 3), uniform_random(mdp, 8)):
        played = rollout(keys, mdp, policy, horizon=8, episodes=4000)
        returns = np.asarray(discounted_return(played.reward, 0.95))
        exact = np.asarray(evaluate_policy(mdp, policy.probabilities))
        error = returns.std(1, ddof=1) / np.sqrt(4000)
        # Six tasks, two policies: |z| > 4 happens once in a thousand seeds.
        assert (np.abs(returns.mean(1) - exact) < 4 * error).all()


def test_moves_and_rewards_are_those_of_the_model():
    mdp, _, keys = bed()
    played = rollout(keys, mdp, uniform_random(mdp, 8), horizon=8, episodes=50)
    s, a, r = (
        np.asarray(x) for x in (played.observation, played.action, played.reward)
    )
    p = np.asarray(mdp.transition)
    task = np.arange(6)[:, None, None]
    assert (p[task, s[..., :-1], a[..., :-1], s[..., 1:]] > 0).all()
    np.testing.assert_array_equal(r, np.asarray(mdp.reward)[task, s, a])
    assert set(np.unique(a)) == {0, 1, 2} and set(np.unique(s[..., 0])) == set(
        range(10)
    )


@pytest.mark.slow
def test_the_host_plays_the_same_episodes_as_the_compiled_loop():
    mdp, solution, keys = bed()
    for policy in (deterministic(solution.policy, 3), uniform_random(mdp, 8)):
        a = rollout(keys, mdp, policy, horizon=8, episodes=50)
        b = rollout_on_host(keys, mdp, policy, horizon=8, episodes=50)
        jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.slow
def test_a_task_and_an_episode_do_not_depend_on_what_is_played_beside_them():
    mdp, solution, keys = bed()
    policy = deterministic(solution.policy, 3)
    whole = rollout(keys, mdp, policy, horizon=8, episodes=50)
    part = rollout(
        task_keys(jax.random.key(1), 2, first=3),
        jax.tree.map(lambda x: x[3:5] if np.ndim(x) else x, mdp),
        deterministic(solution.policy[3:5], 3),
        horizon=8,
        episodes=3,
    )
    jax.tree.map(lambda w, p: np.testing.assert_array_equal(w[3:5, :3], p), whole, part)


def test_policies_share_random_numbers():
    """While two policies agree they see the same states, whatever they do later."""
    mdp, solution, keys = bed()
    a = rollout(keys, mdp, deterministic(solution.policy, 3), horizon=8, episodes=50)
    b = rollout(keys, mdp, constant_action(mdp, 8, 2), horizon=8, episodes=50)
    np.testing.assert_array_equal(a.observation[..., 0], b.observation[..., 0])
    agreed = np.cumprod(np.asarray(a.action) == np.asarray(b.action), axis=-1) == 1
    same = np.asarray(a.observation) == np.asarray(b.observation)
    assert agreed[..., :-1].any() and same[..., 1:][agreed[..., :-1]].all()
    assert not same.all()


@pytest.mark.slow
def test_optimal_actions_are_looked_up_at_their_stage_and_state():
    mdp, solution, keys = bed()
    played = rollout(keys, mdp, uniform_random(mdp, 8), horizon=8, episodes=50)
    wanted = optimal_action(solution, played.observation)
    for t in range(8):
        chosen = solution.action(t, played.observation[..., t])
        np.testing.assert_array_equal(wanted[..., t], chosen)


def test_returns_are_discounted_from_the_first_stage():
    returns = discounted_return(jnp.array([[1.0, 10.0, 100.0]]), 0.5)
    assert returns[0] == pytest.approx(1 + 5 + 25)


def test_no_two_uniform_numbers_of_an_episode_are_one():
    numbers = draw_random_numbers(
        task_keys(jax.random.key(0), 1), episodes=20_000, horizon=3
    )
    drawn = np.stack(
        [numbers.initial[0], *numbers.transition[:, 0], *numbers.observation[:, 0]]
    )
    # 21 correlations of 20,000 pairs: five standard errors.
    assert abs(np.corrcoef(drawn) - np.eye(7)).max() < 5 / np.sqrt(20_000)


@pytest.mark.slow
def test_symbols_of_an_episode_are_independent():
    half = jnp.full((1, 1, 1, 2), 0.5)
    coin = POMDP(
        jnp.ones((1, 1, 1, 1)),
        half,
        jnp.zeros((1, 1, 1)),
        jnp.ones((1, 1)),
        1.0,
        half[:, 0],
    )
    played = rollout(
        task_keys(jax.random.key(1), 1),
        coin,
        deterministic(jnp.zeros((1, 3, 2), jnp.int32), 1),
        horizon=3,
        episodes=20_000,
    )
    seen = np.asarray(played.observation[0])
    for a, b in ((0, 1), (1, 2), (0, 2)):
        same = (seen[:, a] == seen[:, b]).mean()
        assert abs(same - 0.5) < 4 * 0.5 / np.sqrt(20_000)
