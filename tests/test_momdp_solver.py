"""Mixed observability: bounds and policies against recursion over histories."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_mdp, random_pomdp
from random_momdps import random_momdp, value
from tolerances import ROUNDING, SINGLE

from sdm.solvers_jax import (
    MOMDP,
    belief_tree_value,
    flat_pomdp,
    hidden_model,
    momdp,
    solve,
)
from sdm.solvers_jax.momdp import MixedObservability

T = 3
EXACT = MixedObservability(gap=0.0, points=64, atol=0.0)
# Every feature of the model; sizes differ, so that axes cannot be mixed.
KINDS = {
    "moving": {},
    "constant": {"constant": True, "hidden": 4},
    "lists": {"visible": 4, "lists": 2},
    "symbols": {"symbols": 2, "first": True},
    "symbols later": {"symbols": 2, "constant": True},
    "rewards": {"observes_reward": True},
    "rewards, constant": {"observes_reward": True, "constant": True, "hidden": 4},
    "masked": {"masked": True, "actions": 3, "symbols": 2},
}

# Every reachable belief: slow to compile.
FEW = pytest.mark.parametrize(
    "kind",
    [
        "moving",
        "constant",
        "symbols",
        "rewards, constant",
        *(pytest.param(k, marks=pytest.mark.slow) for k in ("lists", "rewards")),
        *(pytest.param(k, marks=pytest.mark.slow) for k in ("symbols later", "masked")),
    ],
)


def chosen_by(solution, hidden):
    def choose(t, x, belief):
        state = jnp.asarray([x], jnp.int32)
        return int(solution.action(t, (state, jnp.asarray(belief)[None]))[0])

    return choose


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("points", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_the_policy_earns_lower_and_the_optimum_is_between_the_bounds(kind, points):
    model = random_momdp(3, **KINDS[kind])
    found = solve(model, horizon=T, method=MixedObservability(gap=0.0, points=points))
    wanted = value(model, T)
    # No allowance: the bounds are widened by rounding errors.
    assert found.lower <= wanted <= found.upper
    earned = value(model, T, chosen_by(found, model.sizes[1]))
    assert found.lower <= earned <= wanted + ROUNDING


@pytest.mark.slow
@FEW
def test_with_every_reachable_belief_the_bounds_meet(kind):
    model = random_momdp(5, **KINDS[kind])
    found = solve(model, horizon=T, method=EXACT)
    # Selections use single precision.
    np.testing.assert_allclose(found.lower, value(model, T), atol=SINGLE)
    np.testing.assert_allclose(found.upper, found.lower, atol=SINGLE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_value_is_that_of_the_belief_tree_of_the_flat_model(kind):
    model = random_momdp(6, **KINDS[kind])
    flat = flat_pomdp(model)
    if model.observes_reward:
        assert flat.reward.shape[0] > model.sizes[0] * model.sizes[1]
    np.testing.assert_allclose(
        belief_tree_value(flat, horizon=T), value(model, T), rtol=ROUNDING
    )


@pytest.mark.slow
def test_one_hidden_value_is_an_mdp():
    mdp = random_mdp(0, states=4)
    exact = solve(mdp, horizon=T)
    model = MOMDP(
        mdp.transition[:, None], mdp.reward[:, None], mdp.initial[:, None], 0.9
    )
    moving = eqx.tree_at(
        lambda m: m.hidden_transition,
        model,
        jnp.ones((4, 1, 2, 4, 1)),
        is_leaf=lambda leaf: leaf is None,
    )
    for each in (model, moving):
        found = solve(each, horizon=T, method=MixedObservability(points=1))
        np.testing.assert_allclose(found.lower, exact.value, rtol=ROUNDING)
        np.testing.assert_allclose(found.upper, exact.value, rtol=ROUNDING)
        state = jnp.arange(4, dtype=jnp.int32)
        for t in range(T):
            chosen = found.action(t, (state, jnp.ones((4, 1))))
            np.testing.assert_array_equal(chosen, exact.policy[t])


def one_visible_value(pomdp):
    """The POMDP with a visible part that has one value."""
    return MOMDP(
        transition=jnp.ones((1, *pomdp.reward.shape, 1)),
        reward=pomdp.reward[None],
        initial=pomdp.initial[None],
        discount=pomdp.discount,
        hidden_transition=pomdp.transition[None, :, :, None],
        observation=pomdp.observation[:, None],
        initial_observation=pomdp.initial_observation[None],
    )


@pytest.mark.slow
def test_one_visible_value_is_a_pomdp():
    pomdp = random_pomdp(0)
    found = solve(one_visible_value(pomdp), horizon=T, method=EXACT)
    exact = belief_tree_value(pomdp, horizon=T)
    np.testing.assert_allclose(found.lower, exact, atol=SINGLE)
    np.testing.assert_allclose(found.upper, exact, atol=SINGLE)


@pytest.mark.slow
def test_one_visible_value_has_the_bounds_of_a_pomdp():
    pomdp = random_pomdp(1)
    other = solve(pomdp, horizon=6, gap=0.0, points=16)
    found = solve(one_visible_value(pomdp), horizon=6, gap=0.0, points=16)
    assert found.lower <= other.upper and other.lower <= found.upper


@pytest.mark.slow
def test_known_models_are_worth_their_own_value():
    models = random_mdp(6, 5)
    found = solve(hidden_model(models, jnp.eye(5)), horizon=T, points=1)
    exact = solve(models, horizon=T).value
    np.testing.assert_allclose(found.lower, exact, rtol=ROUNDING)
    np.testing.assert_allclose(found.upper, exact, rtol=ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["constant", "masked"])
def test_a_batch_is_the_stack_of_its_tasks(kind, monkeypatch):
    batch = random_momdp(8, batch=(2, 2), **KINDS[kind])
    # Groups of three tasks: the second is filled up.
    monkeypatch.setattr(momdp, "TOGETHER", 3 * batch.sizes[0])
    whole = solve(batch, horizon=T, method=EXACT)
    assert whole.value.shape == whole.converged.shape == (2, 2)
    visible, hidden, _, _ = batch.sizes
    random = np.random.default_rng(0)
    belief = jnp.asarray(random.dirichlet(np.ones(hidden), (2, 2, visible)))
    state = jnp.broadcast_to(jnp.arange(visible, dtype=jnp.int32), (2, 2, visible))
    for i, j in np.ndindex(2, 2):
        one = jax.tree.map(lambda x: x[i, j] if np.ndim(x) else x, batch)  # noqa: B023
        exact = value(one, T)
        np.testing.assert_allclose(whole.value[i, j], exact, atol=SINGLE)
        earned = value(
            one,
            T,
            lambda t, x, b: int(
                whole.action(t, (state, belief.at[:, :, x].set(b)))[i, j, x]  # noqa: B023
            ),
        )
        np.testing.assert_allclose(earned, exact, atol=SINGLE)


@pytest.mark.slow
def test_tasks_that_share_dynamics_are_as_separate_ones():
    one = random_momdp(2, constant=True, hidden=4)
    start = np.random.default_rng(0).dirichlet(np.ones(12), (2, 3)).reshape(2, 3, 3, 4)
    shared = eqx.tree_at(lambda m: m.initial, one, jnp.asarray(start))
    assert shared.shared and shared.batch == (2, 3)
    found = solve(shared, horizon=T, method=EXACT)
    assert found.vector.ndim == 4, "plans of all tasks"
    for place in np.ndindex(2, 3):
        each = eqx.tree_at(lambda m: m.initial, one, jnp.asarray(start[place]))
        np.testing.assert_allclose(found.value[place], value(each, T), atol=SINGLE)


def test_rewards_are_shifted_and_scaled_with_the_value():
    model, method = random_momdp(4), MixedObservability(gap=0.0, points=4)
    plain = solve(model, horizon=T, method=method)
    scaled = eqx.tree_at(lambda m: m.reward, model, 8 * model.reward + 0.5)
    found = solve(scaled, horizon=T, method=method)
    for bound in ("lower", "upper"):
        wanted = 8 * getattr(plain, bound) + 0.5 * (1 + 0.9 + 0.81)
        # Points can differ where priorities tie.
        np.testing.assert_allclose(getattr(found, bound), wanted, rtol=1e-3)


def test_hidden_values_can_be_permuted():
    model, order = random_momdp(4, hidden=4, constant=True), jnp.asarray([2, 0, 3, 1])
    other = eqx.tree_at(
        lambda m: (m.transition, m.reward, m.initial),
        model,
        (model.transition[:, order], model.reward[:, order], model.initial[:, order]),
    )
    one, two = (solve(each, horizon=T, method=EXACT) for each in (model, other))
    np.testing.assert_allclose(one.value, two.value, atol=SINGLE)


def test_symbols_that_tell_nothing_are_worth_nothing():
    model = random_momdp(7, symbols=2)
    noise = eqx.tree_at(
        lambda m: m.observation, model, jnp.full_like(model.observation, 0.5)
    )
    silent = MOMDP(
        model.transition,
        model.reward,
        model.initial,
        0.9,
        hidden_transition=model.hidden_transition,
    )
    assert value(model, T) > value(silent, T) + 1e-3
    one, two = (solve(each, horizon=T, method=EXACT) for each in (noise, silent))
    np.testing.assert_allclose(one.value, two.value, atol=SINGLE)


@pytest.mark.slow
def test_more_points_tighten_the_bounds():
    model = random_momdp(1, hidden=4)
    widths = [
        float(found.upper - found.lower)
        for points in (1, 4, 16)
        for found in [solve(model, horizon=4, gap=0.0, points=points)]
    ]
    assert widths[0] > widths[1] > widths[2] > 0


def test_refinement_stops_at_the_gap():
    model = random_momdp(1, hidden=4)
    loose = solve(model, horizon=4, gap=0.5, points=64)
    assert loose.converged and loose.vector.shape[2] < 64
    few = solve(model, horizon=4, gap=1e-9, points=2, atol=0.0)
    assert not few.converged


def test_a_value_of_zero_converges():
    model = random_momdp(2)
    nothing = eqx.tree_at(lambda m: m.reward, model, jnp.zeros_like(model.reward))
    assert solve(nothing, horizon=T).converged


@pytest.mark.slow
def test_a_large_penalty_that_is_avoided_costs_nothing():
    model = random_momdp(9, actions=3)
    punished = model.reward.at[:, 1, 2].set(-1e7)
    model = eqx.tree_at(lambda m: m.reward, model, punished)
    found, wanted = solve(model, horizon=T, method=EXACT), value(model, T)
    assert found.lower <= wanted <= found.upper
    np.testing.assert_allclose(found.lower, found.upper, atol=SINGLE)
    earned = value(model, T, chosen_by(found, 2))
    np.testing.assert_allclose(earned, wanted, atol=SINGLE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_bounds_hold_in_many_random_models(kind):
    batch = random_momdp(100, batch=(60,), **KINDS[kind])
    found = solve(batch, horizon=T, method=MixedObservability(gap=0.0, points=2))
    for i in range(60):
        one = jax.tree.map(lambda x: x[i] if np.ndim(x) else x, batch)  # noqa: B023
        if kind == "lists":
            one = eqx.tree_at(lambda m: m.successors, one, batch.successors)
        assert found.lower[i] <= value(one, T) <= found.upper[i]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 0}, "points = 0"),
        ({"gap": -1.0}, "gap = -1"),
        ({"atol": -1.0}, "atol = -1"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MixedObservability(**options)


def test_actions_are_for_stages_and_values_that_exist():
    model = random_momdp(0)
    found = solve(model, horizon=1, points=4)
    ask, state = partial(found.action, 0), jnp.zeros(2, jnp.int32)
    belief = jnp.full((2, 2), 0.5)
    assert ask((state, belief)).shape == (2,)
    with pytest.raises(ValueError, match="t = 1: must be a stage from 0 to 0"):
        found.action(1, (state, belief))
    with pytest.raises(ValueError, match=r"x\[0\]\[0\] = 3: must be from 0 to 2"):
        ask((state + 3, belief))
    with pytest.raises(ValueError, match=r"must be \[\*B, N\] and"):
        ask((state, belief[:1]))
