"""Tasks that are estimated from logged episodes of another family's tasks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdm.solvers_jax import solve
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.tasks.families.estimated import (
    LOGS_KEY,
    EstimatedFamily,
    estimate,
)
from sdm.tasks.models import MDP, check_model
from sdm.tasks.policy import deterministic, uniform_random
from sdm.tasks.rollout import Trajectory, rollout
from sdm.tasks.transition_lists import sparse
from sdm.tasks.transitions import dense

KEY = jax.random.key(0)


def worlds(family, tasks):
    params = family.parameters(KEY, tasks, split="train")
    own = {name: x for name, x in params.items() if name != LOGS_KEY}
    return family.model(params, "mdp"), family.truth.model(own, "mdp")


def logged(world, episodes, length):
    keys = jax.random.split(KEY, len(world.reward))
    policy = uniform_random(world, length + 1)
    return rollout(keys, world, policy, horizon=length + 1, episodes=episodes)


def test_the_estimate_is_that_of_counts_made_one_by_one():
    _, world = worlds(EstimatedFamily(), 2)
    played = logged(world, 5, 4)
    made = estimate(world, played, 0.5)
    check_model(made)
    seen, acted = np.asarray(played.observation), np.asarray(played.action)
    paid = np.asarray(played.reward)
    for task in range(2):
        count: dict[tuple[int, int], list[tuple[int, float]]] = {}
        for n in range(5):
            for t in range(4):
                pair = (int(seen[task, n, t]), int(acted[task, n, t]))
                found = (int(seen[task, n, t + 1]), float(paid[task, n, t]))
                count.setdefault(pair, []).append(found)
        known = {s for s, _ in count}
        for s, a in np.ndindex(10, 3):
            assert bool(made.admissible[task, s, a]) == (
                (s, a) in count or s not in known
            )
            if (s, a) not in count:
                assert made.reward[task, s, a] == paid[task, :, :4].min() - 0.5
                continue
            after = [following for following, _ in count[s, a]]
            shares = np.bincount(after, minlength=10) / len(after)
            np.testing.assert_allclose(made.transition[task, s, a], shares, atol=1e-12)
            mean = np.mean([reward for _, reward in count[s, a]])
            expected = mean - 0.5 / np.sqrt(len(after))
            np.testing.assert_allclose(made.reward[task, s, a], expected, atol=1e-12)
        starts = np.bincount(seen[task, :, 0], minlength=10) / 5
        np.testing.assert_allclose(made.initial[task], starts, atol=1e-12)


@pytest.mark.slow
def test_lists_of_next_states_give_the_same_estimate():
    _, world = worlds(EstimatedFamily(), 3)
    played = logged(world, 4, 6)
    listed = dataclasses.replace(world, transition=sparse(world.transition))
    one, other = estimate(world, played, 0.1), estimate(listed, played, 0.1)
    visited = np.asarray(one.admissible) & np.asarray(
        (one.transition != 0.1).any(-1)  # equal chances: no visits
    )
    full = np.asarray(dense(other.transition))
    np.testing.assert_allclose(
        full[visited], np.asarray(one.transition)[visited], atol=1e-12
    )
    np.testing.assert_array_equal(one.reward, other.reward)
    np.testing.assert_array_equal(one.admissible, other.admissible)
    np.testing.assert_allclose(full.sum(-1), 1.0, atol=1e-12)


@pytest.mark.slow
def test_many_episodes_give_the_true_model_and_its_plan():
    family = EstimatedFamily(episodes=4000)
    made, world = worlds(family, 2)
    visits = 4000 * 10 / 30  # of each pair; some have fewer
    # Five standard deviations of a relative frequency, with a third of the visits.
    error = 5 * 0.5 / np.sqrt(visits / 3)
    np.testing.assert_allclose(made.transition, world.transition, atol=error)
    np.testing.assert_allclose(made.reward, world.reward, atol=1e-9)
    plan, best = solve(made, horizon=10), solve(world, horizon=10)
    true = evaluate_policy(world, deterministic(plan.policy, 3).probabilities)
    np.testing.assert_allclose(true, best.value, rtol=0.01)


@pytest.mark.slow
def test_pessimism_lowers_claims_and_few_visits_most():
    naive, _ = worlds(EstimatedFamily(episodes=5), 20)
    careful, _ = worlds(EstimatedFamily(episodes=5, pessimism=0.3), 20)
    claims = [solve(model, horizon=10).value for model in (naive, careful)]
    assert (claims[1] < claims[0]).all()
    lost = np.asarray(naive.reward - careful.reward)
    assert lost.max() == pytest.approx(0.3)  # one visit
    assert lost.min() < 0.15  # five or more


@pytest.mark.slow
def test_names_of_one_action_share_their_logs():
    made, _ = worlds(EstimatedFamily(episodes=3), 4)
    for table in (made.transition, made.reward, made.admissible):
        np.testing.assert_array_equal(table[:, :, 0], table[:, :, 1])
    visited = np.asarray(made.admissible).sum((1, 2))
    assert (visited > 0).all() and (visited < 30).any()


@pytest.mark.slow
def test_a_task_does_not_depend_on_the_others():
    family = EstimatedFamily(episodes=3)
    few = family.parameters(KEY, 2, split="train", first=3)
    many = family.parameters(KEY, 5, split="train")
    for one, other in zip(
        jax.tree.leaves(family.model(few, "mdp")),
        jax.tree.leaves(family.model(many, "mdp")),
        strict=True,
    ):
        if np.ndim(one):
            np.testing.assert_array_equal(one, other[3:])


def test_an_episode_has_as_many_transitions_as_decisions():
    made, _ = worlds(EstimatedFamily(episodes=1, length=1), 4)
    # The only visited state has actions that were not taken.
    restricted = ~np.asarray(made.admissible).all(-1)
    np.testing.assert_array_equal(restricted.sum(-1), 1)


@pytest.mark.slow
def test_logs_of_an_expert_are_of_the_experts_actions():
    family = EstimatedFamily(of="sepsis", episodes=20, behavior="expert", length=3)
    made, world = worlds(family, 1)
    check_model(made)
    assert made.transition.shared and world.transition.shared
    best = np.asarray(family.truth.expert()).argmax(-1)
    seen = np.asarray(made.admissible[0]).sum(-1) < 8  # states with visits
    taken = np.asarray(made.admissible[0])[np.arange(len(best)), best]
    # The expert acts so in 95 of 100 decisions.
    assert seen.sum() >= 10 and taken[seen].mean() > 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 0}, "episodes = 0"),
        ({"behavior": "doctor"}, "behavior = 'doctor'"),
        ({"behavior": "expert"}, "if the family has one"),
        ({"of": "sepsis", "pessimism": -1.0}, "pessimism"),
        ({"of": "bandit", "pessimism": 0.1}, "agents read the rewards"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        EstimatedFamily(**options)


@pytest.mark.slow
def test_an_episode_without_a_transition_of_a_state_leaves_it_open():
    world = MDP(
        jnp.full((1, 2, 1, 2), 0.5),
        jnp.ones((1, 2, 1)),
        jnp.array([[1.0, 0.0]]),
        discount=1.0,
    )
    nothing = jnp.zeros((1, 1, 3), jnp.int32)
    made = estimate(world, Trajectory(nothing, nothing, jnp.ones((1, 1, 3))), 0.0)
    np.testing.assert_array_equal(made.admissible, [[[True], [True]]])
    np.testing.assert_array_equal(made.transition[0, 0, 0], [1.0, 0.0])
    np.testing.assert_array_equal(made.initial, [[1.0, 0.0]])


def test_the_logged_episodes_are_those_that_the_models_are_estimated_from():
    family = EstimatedFamily(episodes=4)
    params = family.parameters(KEY, 2, split="train")
    model, played = family.model(params, "mdp"), family.logged(params)
    assert played.action.shape == (2, 4, 10)
    for task in range(2):
        paid: dict[tuple[int, int], list[float]] = {}
        for n, t in np.ndindex(4, 10):
            action = family.spaces.merged(played.action[task, n, t])
            pair = int(played.observation[task, n, t]), int(action)
            paid.setdefault(pair, []).append(float(played.reward[task, n, t]))
        own = np.unique(family.spaces.merged(jnp.arange(3)))
        known = sorted({s for s, _ in paid})
        assert np.asarray(model.admissible[task])[known][:, own].sum() == len(paid)
        for (s, a), rewards in paid.items():
            assert model.reward[task, s, a] == pytest.approx(np.mean(rewards))
