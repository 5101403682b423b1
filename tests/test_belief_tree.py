"""The exact belief tree against plain recursion over histories."""

import jax
import numpy as np
import pytest
from expectimax import initial_value
from random_models import random_apomdp, random_pomdp, tiger
from tolerances import ROUNDING

from sdm.solvers_jax import MDP, POMDP, EnergyFamily, solve
from sdm.solvers_jax.belief_tree import BeliefTreeError, belief_tree_value


def plainly(model, horizon):
    """The value by the reference."""
    transition, observation, first = (
        None if x is None else np.asarray(x)
        for x in (model.transition, model.observation, model.initial_observation)
    )
    alpha = 0.0
    if isinstance(model, POMDP):
        transition, observation = transition[None], observation[None]
        first = None if first is None else first[None]
    else:
        alpha = float(model.alpha)
    return initial_value(
        list(zip(transition, observation, strict=True)),
        None if first is None else list(first),
        np.asarray(model.reward),
        np.asarray(model.initial),
        alpha,
        float(model.discount),
        horizon,
    )


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_a_pomdp_is_worth_what_plain_recursion_says(seed, first):
    model = random_pomdp(seed, symbols=3, first=first)
    wanted = plainly(model, 3)
    assert belief_tree_value(model, horizon=3) == pytest.approx(wanted, abs=ROUNDING)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_an_apomdp_is_worth_what_plain_recursion_says(seed, alpha):
    model = random_apomdp(seed, alpha, models=3, first=seed != 1)
    wanted = plainly(model, 3)
    assert belief_tree_value(model, horizon=3) == pytest.approx(wanted, abs=ROUNDING)


def test_the_tiger_is_worth_what_other_solvers_say():
    # pomdp-solve's incremental pruning, horizons 1 to 10, discount 0.95, uniform start.
    known = [-1, -1.95, 2.3098, 1.795544218749999, 2.763096193125, 4.428531315017576]
    known += [4.584265967602329, 5.324020776452365, 6.423648476097911, 6.6933684317507]
    found = [belief_tree_value(tiger(), horizon=t) for t in range(1, 11)]
    # Undiscounted sums of rewards up to 100, printed by that solver to 1e-9 and better.
    np.testing.assert_allclose(found, known, atol=1e-8)


@pytest.mark.parametrize("q", [0.5, 0.7, 0.9])
def test_energy_tasks_are_worth_what_other_solvers_say(q):
    # The same solver; p = 0.7, cost 0.1, no discount, no first observation, T = 4.
    known = {0.5: 1.6017778, 0.7: 1.6017778, 0.9: 1.6028860}
    family = EnergyFamily(charge_cost=0.1, discount=1.0, q=q)
    shown = family.pomdp(jax.numpy.asarray(0.7))
    model = POMDP(shown.transition, shown.observation, shown.reward, shown.initial, 1.0)
    found = belief_tree_value(model, horizon=4)
    assert found == pytest.approx(known[q], abs=1e-7)  # as many digits as are known


def test_perfect_observation_is_an_mdp():
    family = EnergyFamily(q=1.0)
    p = jax.numpy.asarray(0.4)
    found = belief_tree_value(family.pomdp(p), horizon=7)
    assert found == pytest.approx(float(solve(family.mdp(p), horizon=7).value))


def test_too_many_beliefs_is_an_error_that_says_what_to_do():
    with pytest.raises(BeliefTreeError, match="too many reachable beliefs, found") as e:
        belief_tree_value(random_pomdp(0), horizon=12, max_beliefs=1000)
    assert "point-based" in e.value.hint


def test_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"must be \[S, A\], for one task"):
        belief_tree_value(random_pomdp(0, batch=(2,)), horizon=2)


def test_a_model_that_is_none_is_refused():
    model = random_pomdp(0)
    broken = POMDP(
        model.transition * 0.5,
        model.observation,
        model.reward,
        model.initial,
        0.9,
    )
    with pytest.raises(ValueError, match="probabilities sum to"):
        belief_tree_value(broken, horizon=2)
    assert isinstance(EnergyFamily().mdp(jax.numpy.asarray(0.5)), MDP)
