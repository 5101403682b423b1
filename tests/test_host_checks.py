"""Arguments that are wrong are found on the host, and named; traced ones pass."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_mdp, random_pomdp

from sdm.solvers_jax import MDP, BackwardInduction, solve
from sdm.solvers_jax.belief_tree import belief_tree_value
from sdm.tasks.belief import BeliefFilter, belief_filter
from sdm.tasks.host_checks import beliefs_over, check_indices, check_stage

HIDDEN = random_pomdp(0, states=3, actions=3, symbols=2, batch=(2,))


def numbers(*values):
    return jnp.array([values, values])  # the same for two tasks


@pytest.mark.parametrize("symbol", [-1, 2, 7])
def test_a_symbol_out_of_range_is_named(symbol):
    bayes = belief_filter(HIDDEN)
    start = bayes.start(2)
    words = rf"observation\[0, 1\] = {symbol}: must be from 0 to 1, .* 2 symbols \(2 of"
    with pytest.raises(ValueError, match=words):
        bayes.update(start, numbers(0, 0), numbers(0, symbol))
    with pytest.raises(ValueError, match=words):
        bayes.see_first(start, numbers(0, symbol))


@pytest.mark.parametrize("action", [-1, 3, 9])
def test_an_action_out_of_range_is_named(action):
    bayes = belief_filter(HIDDEN)
    with pytest.raises(ValueError, match=rf"action\[0, 0\] = {action}: must be from"):
        bayes.update(bayes.start(1), numbers(action), numbers(0))


def test_the_first_and_the_last_index_are_valid_and_traced_ones_pass():
    bayes = belief_filter(HIDDEN)
    start = bayes.start(2)
    plain = bayes.update(start, numbers(0, 2), numbers(0, 1))
    update = jax.jit(lambda *x: BeliefFilter.update(bayes, *x))
    traced = update(start, numbers(0, 2), numbers(0, 1))
    np.testing.assert_allclose(plain.belief, traced.belief, rtol=1e-12)


def test_stages_and_states_out_of_range_are_named():
    found = solve(random_mdp(0, states=4), horizon=3)
    for t in (-1, 3, 7, jnp.int64(7)):
        with pytest.raises(ValueError, match=f"t = {int(t)}: must be a stage from 0"):
            found.action(t, jnp.array([0]))
    for state in (-1, 4, 9):
        with pytest.raises(ValueError, match=rf"x\[1\] = {state}: .* of 4 states"):
            found.action(0, jnp.array([0, state]))
    assert found.action(2, jnp.array([0, 3])).shape == (2,)


def test_beliefs_over_other_states_are_named():
    found = solve(HIDDEN, horizon=2, points=4)
    with pytest.raises(ValueError, match="t = 2: must be a stage from 0 to 1"):
        found.action(2, jnp.full((2, 1, 3), 1 / 3))
    with pytest.raises(ValueError, match=r"x has shape \(2, 1, 4\): .* S = 3, beliefs"):
        found.action(0, jnp.full((2, 1, 4), 0.25))


def test_beliefs_can_be_lists():
    # The function itself: under test, a hook checks the types of public ones.
    found = inspect.unwrap(beliefs_over)(2, [[0.25, 0.75]])
    np.testing.assert_array_equal(found, [[0.25, 0.75]])


def test_numbers_that_are_no_indices_are_named():
    # The functions themselves: under test, a hook checks the types of public ones.
    with pytest.raises(ValueError, match="x has dtype float64: must be whole numbers"):
        check_indices("x", np.array([0.0]), 3, "states")
    with pytest.raises(ValueError, match=r"^x = 3: must be from 0 to 2, .* 3 states$"):
        check_indices("x", 3, 3, "states")
    check_indices("x", np.uint8(2), 3, "states")
    for t in (1.0, np.array([1])):
        with pytest.raises(ValueError, match="must be a stage, a whole number"):
            check_stage(t, 3)
    check_stage(np.int64(2), 3)


def test_lists_are_no_arrays():
    model = random_mdp(0)
    object.__setattr__(model, "transition", model.transition.tolist())
    with pytest.raises(TypeError, match="transition is a list: must be an array"):
        solve(model, horizon=2)


def test_a_traced_model_is_refused_and_its_method_is_not():
    model = random_mdp(0)

    def value(method):
        return lambda reward: method(
            MDP(model.transition, reward, model.initial, model.discount)
        )

    with pytest.raises(TypeError, match=r"model is traced, as inside `jax.jit`"):
        jax.jit(value(lambda m: solve(m, horizon=2).value))(model.reward)
    inside = jax.jit(value(lambda m: BackwardInduction().solve(m, horizon=2).value))
    np.testing.assert_allclose(
        inside(model.reward), solve(model, horizon=2).value, rtol=1e-12
    )


def test_a_belief_tree_needs_hidden_states():
    with pytest.raises(TypeError, match="model is of type MDP: must be a POMDP or"):
        belief_tree_value(random_mdp(0), horizon=2)


def test_an_option_of_other_models_names_them():
    with pytest.raises(TypeError, match=r"'gap' is for .*POMDP models"):
        solve(random_mdp(0), horizon=2, gap=0.1)
