"""Weights of candidates against sums over paths, with and without rewards."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_mdp, random_pomdp
from tolerances import ROUNDING

from sdm.policies.posterior import IMPOSSIBLE, log_likelihood
from sdm.tasks.models import MDP, states_observed
from sdm.tasks.policy import uniform_random
from sdm.tasks.rollout import rollout, task_keys

CANDIDATES, EPISODES, HORIZON = 4, 2, 3


def candidates_of(kind, *, first=True):
    """Random models, whose rewards several decisions have in common."""
    batch = (CANDIDATES,)
    if kind == "mdp":
        models = random_mdp(0, *batch)
    else:
        models = random_pomdp(0, batch=batch, first=first)
    return eqx.tree_at(lambda m: m.reward, models, jnp.round(models.reward / 2))


def chance_of_episode(models, g, seen, done, paid, *, rewards):
    """Probability of what is seen in an episode of candidate `g`, path by path."""
    move, reward, start = (
        np.asarray(x[g]) for x in (models.transition, models.reward, models.initial)
    )
    total = 0.0
    for path in itertools.product(range(len(start)), repeat=HORIZON):
        chance = start[path[0]]
        if isinstance(models, MDP):
            chance = 1.0  # a candidate says nothing about where an episode starts
            chance *= path == tuple(seen)
        else:
            shown = np.asarray(models.observation[g])
            if models.initial_observation is not None:
                chance *= float(models.initial_observation[g, path[0], seen[0]])
            for t in range(1, HORIZON):
                chance *= shown[done[t - 1], path[t], seen[t]]
        for t in range(1, HORIZON):
            chance *= move[path[t - 1], done[t - 1], path[t]]
        if rewards:
            for t in range(HORIZON):
                chance *= reward[path[t], done[t]] == paid[t]
        total += chance
    return total


@pytest.mark.slow
@pytest.mark.parametrize("rewards", [False, True])
@pytest.mark.parametrize(
    "models",
    [candidates_of("mdp"), candidates_of("pomdp"), candidates_of("pomdp", first=False)],
    ids=["mdp", "pomdp", "no first symbol"],
)
def test_candidates_weigh_what_their_paths_say(models, rewards):
    keys = task_keys(jax.random.key(0), CANDIDATES)
    random = uniform_random(
        models if isinstance(models, MDP) else states_observed(models), HORIZON
    )
    support = rollout(keys, models, random, horizon=HORIZON, episodes=EPISODES)
    found = np.exp(np.asarray(log_likelihood(models, support, rewards=rewards)))
    ruled_out = 0
    for task, g in itertools.product(range(CANDIDATES), repeat=2):
        wanted = 1.0
        for n in range(EPISODES):
            parts = (support.observation, support.action, support.reward)
            episode = [np.asarray(x[task, n]) for x in parts]
            wanted *= chance_of_episode(models, g, *episode, rewards=rewards)
        if wanted == 0:  # weighed down by a constant for each contradiction
            assert found[task, g] <= 2 * IMPOSSIBLE
            ruled_out += 1
        else:
            np.testing.assert_allclose(found[task, g], wanted, rtol=ROUNDING)
    # Transitions rule out none of these candidates; rewards do, but not the true one.
    assert (ruled_out > 0) == rewards and ruled_out <= CANDIDATES * (CANDIDATES - 1)
