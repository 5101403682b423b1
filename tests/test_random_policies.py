"""Random policies: stationary, uniform on the simplex, another in each episode."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_mdp

from sdm.llm.self_training.config import SelfTrainConfig
from sdm.llm.self_training.play import random_play
from sdm.tasks.policy import RandomPolicies, uniform_random
from sdm.tasks.registry import load_family
from sdm.tasks.rollout import rollout, task_keys

TASKS, STATES, ACTIONS, EPISODES, HORIZON = 3, 2, 4, 200, 300


@pytest.fixture(scope="module")
def shares():
    """Shares of actions [B, N, S, A] in each half of the episodes; one is forbidden."""
    mdp = random_mdp(0, TASKS, states=STATES, actions=ACTIONS)
    mask = jnp.ones((TASKS, STATES, ACTIONS), bool).at[1, 0, 2].set(False)
    mdp = eqx.tree_at(lambda m: m.admissible, mdp, mask, is_leaf=lambda x: x is None)
    own = jax.random.split(jax.random.key(1), (TASKS, EPISODES))
    policy = RandomPolicies(own, uniform_random(mdp, HORIZON).probabilities)
    keys = task_keys(jax.random.key(2), TASKS)
    played = rollout(keys, mdp, policy, horizon=HORIZON, episodes=EPISODES)
    state, action = (np.asarray(x) for x in (played.observation, played.action))
    taken = (action[..., None] == np.arange(ACTIONS))[..., None, :]
    there = (state[..., None] == np.arange(STATES))[..., None]
    halves = np.split(taken & there, 2, axis=2)
    counts = np.stack([half.sum(2) for half in halves])
    return counts / np.maximum(1, counts.sum(-1, keepdims=True)), counts


def test_each_episode_has_a_policy_of_its_own(shares):
    first, second = shares[0]
    # Halves are independent given the policy, so that their product has the mean of
    # Σ p(a)², 2 / (n + 1) for n actions; for one policy of all episodes, of uniform
    # actions, it is 1 / n.
    both = (first * second).sum(-1)[2]
    error = both.std(0) / np.sqrt(EPISODES)
    assert np.all(abs(both.mean(0) - 2 / (ACTIONS + 1)) < 4 * error)
    assert 2 / (ACTIONS + 1) - 1 / ACTIONS > 8 * error.max(), "it could tell"
    # Policies of two episodes, and of two states, have nothing in common.
    for one, other in (
        (first[2, :-1], second[2, 1:]),
        (first[2, :, 0], second[2, :, 1]),
    ):
        apart = (one * other).sum(-1)
        error = apart.std(0) / np.sqrt(EPISODES)
        assert np.all(abs(apart.mean(0) - 1 / ACTIONS) < 4 * error)


def test_forbidden_actions_are_never_taken(shares):
    _, counts = shares
    assert counts[:, 1, :, 0, 2].sum() == 0
    others = counts[:, 1, :, 0].sum((0, 1))
    assert (others[[0, 1, 3]] > 0).all()


def config(start_play):
    return SelfTrainConfig(
        family=load_family("bandit", {"separation": 0.0}),
        horizon=40,
        support=0,
        start_scenarios=100,
        start_play=start_play,
        test_tasks=2,
        test_trajectories=2,
    )


def test_random_play_is_of_actions_or_of_policies():
    spread = {}
    for start_play in ("actions", "policies"):
        played = random_play(config(start_play)).played
        arms = (np.asarray(played.action)[..., None] == np.arange(5)).mean(2)
        assert np.all(abs(arms.mean((0, 1)) - 0.2) < 0.05)  # 4 standard errors: 0.036
        spread[start_play] = arms.std()
    # √(0.2 · 0.8 / 40) of actions; of policies, also the √(0.2 · 0.8 / 6) of Dirichlet.
    assert abs(spread["actions"] - 0.063) < 0.01
    assert abs(spread["policies"] - np.sqrt(0.063**2 * 5 / 6 + 0.163**2)) < 0.02
