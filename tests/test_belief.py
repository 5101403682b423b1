"""The Bayes filter against sums over paths, and the oracle that acts on its belief."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_apomdp, random_pomdp, tiger
from tolerances import ROUNDING

from sdm.data.benchmark import EvaluationConfig
from sdm.data.request import OracleConfig
from sdm.solvers_jax import EnergyFamily, rollout, solve
from sdm.tasks.belief import BeliefPolicy, belief_filter, true_model
from sdm.tasks.policy import constant_action, deterministic
from sdm.tasks.rollout import discounted_return, task_keys

P = jnp.array([0.25, 0.4, 0.6, 0.85])
ACTIONS, SYMBOLS = (1, 0, 1), (0, 1, 1, 0)


def by_paths(models, initial):
    """Posterior of model and last state, from the probability of every path."""
    states = len(initial)
    joint = np.zeros((len(models), states))
    for k, (p, z, first) in enumerate(models):
        for path in itertools.product(range(states), repeat=len(SYMBOLS)):
            chance = initial[path[0]] * first[path[0], SYMBOLS[0]] / len(models)
            for t, a in enumerate(ACTIONS):
                chance *= p[path[t], a, path[t + 1]] * z[a, path[t + 1], SYMBOLS[t + 1]]
            joint[k, path[-1]] += chance
    return joint / joint.sum()


def filtered(found):
    state = found.see_first(found.start(1), jnp.full((1, 1), SYMBOLS[0]))
    for a, o in zip(ACTIONS, SYMBOLS[1:], strict=True):
        state = found.update(state, jnp.full((1, 1), a), jnp.full((1, 1), o))
    return state


def parts(model):
    fields = (model.transition, model.observation, model.initial_observation)
    return [np.asarray(x[0]) for x in fields]


def test_a_pomdp_is_filtered_by_bayes_rule():
    model = random_pomdp(0, states=3, batch=(1,))
    wanted = by_paths([parts(model)], np.asarray(model.initial[0]))
    np.testing.assert_allclose(
        filtered(belief_filter(model)).joint[0, 0], wanted, rtol=ROUNDING
    )


@pytest.mark.parametrize("k", [0, 2])
def test_an_apomdp_is_filtered_with_the_model_asked_for(k):
    model = random_apomdp(1, 0.5, models=3, batch=(1,))
    p, z, first = parts(model)
    wanted = by_paths([(p[k], z[k], first[k])], np.asarray(model.initial[0]))
    found = filtered(belief_filter(model, believe=k))
    np.testing.assert_allclose(found.belief[0, 0], wanted[0], rtol=ROUNDING)


def test_the_mixture_weighs_models_by_their_posterior():
    model = random_apomdp(1, 0.5, models=3, batch=(1,))
    models = list(zip(*parts(model), strict=True))
    wanted = by_paths(models, np.asarray(model.initial[0]))
    found = filtered(belief_filter(model, believe="mixture"))
    np.testing.assert_allclose(found.joint[0, 0], wanted, rtol=ROUNDING)


def test_an_impossible_symbol_keeps_the_prediction_and_is_counted():
    model = EnergyFamily(q=1.0, p_min=1.0, p_max=1.0).pomdp(jnp.ones(1))
    found = belief_filter(model)
    state = found.see_first(found.start(1), jnp.full((1, 1), 3))
    state = found.update(state, jnp.full((1, 1), 0), jnp.full((1, 1), 9))
    assert state.impossible[0, 0] == 1
    np.testing.assert_array_equal(state.belief[0, 0], jnp.eye(10)[4])


@pytest.mark.parametrize("believe", [3, -1, "guess", True])
def test_a_model_that_there_is_not_is_refused(believe):
    with pytest.raises(ValueError, match="must be `mixture` or a model from 0 to 2"):
        belief_filter(random_apomdp(0, 0.5, models=3, batch=(1,)), believe=believe)


def test_a_filter_is_of_a_batch_and_a_policy_of_its_stages():
    with pytest.raises(ValueError, match=r"must be \[B, S, A\]"):
        belief_filter(random_pomdp(0))
    found = solve(tiger(), horizon=3, method="exact")
    belief = jnp.array([[0.5, 0.5]])
    assert found.action(2, belief).tolist() == [0]
    for t in (-1, 3):
        with pytest.raises(ValueError, match="must be a stage from 0 to 2"):
            found.action(t, belief)


@pytest.mark.slow
def test_the_oracle_earns_what_its_value_says():
    model = EnergyFamily(q=0.8, max_energy=3).pomdp(P)
    found = solve(model, horizon=5, points=32)
    keys = task_keys(jax.random.key(1), 4)
    policy = BeliefPolicy(found, belief_filter(model))
    played = rollout(keys, model, policy, horizon=5, episodes=400)
    returns = np.asarray(discounted_return(played.reward, model.discount))
    error = returns.std(1) / 20
    # Four standard errors a task: one run in four thousand would fail by chance.
    assert (returns.mean(1) >= found.lower - 4 * error).all()
    assert (returns.mean(1) <= found.upper + 4 * error).all()


@pytest.mark.slow
def test_with_perfect_observation_episodes_are_those_of_the_mdp():
    family = EnergyFamily(q=1.0, max_energy=3)
    keys, mdp, pomdp = task_keys(jax.random.key(1), 4), family.mdp(P), family.pomdp(P)
    oracle = deterministic(solve(mdp, horizon=5).policy, 3)
    ours = rollout(keys, mdp, oracle, horizon=5, episodes=400)
    policy = BeliefPolicy(solve(pomdp, horizon=5, points=32), belief_filter(pomdp))
    theirs = rollout(keys, pomdp, policy, horizon=5, episodes=400)
    np.testing.assert_array_equal(ours.observation, theirs.observation)
    np.testing.assert_allclose(ours.reward, theirs.reward, rtol=ROUNDING)


def test_what_is_seen_has_the_frequencies_of_the_model():
    family = EnergyFamily(q=0.7)
    model = family.pomdp(jnp.full(1, 0.5))
    keys = task_keys(jax.random.key(2), 1)
    work = constant_action(family.mdp(jnp.full(1, 0.5)), 2, family.work)
    seen = rollout(keys, model, work, horizon=2, episodes=20_000).observation[0]
    start = np.full(10, 0.1)
    moved = start @ np.asarray(model.transition[0, :, family.work])
    for t, states in enumerate((start, moved)):
        wanted = states @ np.asarray(model.initial_observation[0])
        shares = np.bincount(np.asarray(seen[:, t]), minlength=10) / 20_000
        # Four standard errors of a share of about a tenth.
        np.testing.assert_allclose(shares, wanted, atol=4 * np.sqrt(0.1 / 20_000))


@pytest.mark.slow
def test_nothing_is_seen_first_where_the_model_says_so():
    model = random_pomdp(0, batch=(2,), first=False)
    policy = BeliefPolicy(solve(model, horizon=3), belief_filter(model))
    keys = task_keys(jax.random.key(0), 2)
    played = rollout(keys, model, policy, horizon=3, episodes=4)
    assert (played.observation[..., 0] == -1).all()
    assert (played.observation[..., 1:] >= 0).all()


def test_the_model_that_runs_is_one_of_the_set():
    model = random_apomdp(0, 0.5, models=3, batch=(2,))
    for k in range(3):
        one = true_model(model, k)
        np.testing.assert_array_equal(one.transition, model.transition[:, k])
        np.testing.assert_array_equal(one.observation, model.observation[:, k])


def test_agents_filter_with_the_mixture_unless_told_otherwise():
    """With one model they would know which of the set is true."""
    family = EnergyFamily(models=2)
    test = EvaluationConfig(family, 3, 1, 1, kind="apomdp")
    assert test.believe == test.oracle.believe == "mixture"
    assert OracleConfig(family, 3, 1, 1, kind="apomdp").believe == "mixture"
