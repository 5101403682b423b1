"""Every way in which a model can be wrong is named, with field, index and number."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from sdm.solvers_jax import APOMDP, MDP, POMDP, check_model, solve
from sdm.tasks.models import check_horizon


def mdp(**changes):
    fields = {
        "transition": jnp.full((2, 3, 2, 3), 1 / 3),
        "reward": jnp.zeros((2, 3, 2)),
        "initial": jnp.full((2, 3), 1 / 3),
        "discount": 0.9,
    }
    return MDP(**(fields | changes))


def pomdp(**changes):
    fields = {
        "transition": jnp.full((3, 2, 3), 1 / 3),
        "observation": jnp.full((2, 3, 4), 0.25),
        "reward": jnp.zeros((3, 2)),
        "initial": jnp.full(3, 1 / 3),
        "discount": 0.9,
        "initial_observation": jnp.full((3, 4), 0.25),
    }
    return POMDP(**(fields | changes))


def apomdp(**changes):
    fields = {
        "transition": jnp.full((5, 3, 2, 3), 1 / 3),
        "observation": jnp.full((5, 2, 3, 4), 0.25),
        "reward": jnp.zeros((3, 2)),
        "initial": jnp.full(3, 1 / 3),
        "alpha": 0.5,
        "discount": 0.9,
        "initial_observation": jnp.full((5, 3, 4), 0.25),
    }
    return APOMDP(**(fields | changes))


def unshaped(model, **fields):
    """The model with fields of any shape, past the constructor's own check."""
    names = list(fields)
    return eqx.tree_at(
        lambda m: [getattr(m, n) for n in names], model, list(fields.values())
    )


@pytest.mark.parametrize("model", [mdp(), pomdp(), apomdp()])
def test_a_well_posed_model_passes(model):
    check_model(model)


@pytest.mark.parametrize("model", [pomdp, apomdp])
def test_nothing_need_be_observed_before_the_first_action(model):
    check_model(model(initial_observation=None))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            (0.5, 0.2, 0.2),
            r"transition\[1, 2, 0\]: probabilities sum to 0.9, not 1 \(1 ",
        ),
        (
            (1.5, -0.5, 0.0),
            r"transition\[1, 2, 0, 1\] = -0.5: prob.* negative \(1 of 36",
        ),
        ((np.nan, 0.5, 0.5), r"transition\[1, 2, 0, 0\] = nan: must be finite"),
        ((np.inf, 0.5, 0.5), r"transition\[1, 2, 0, 0\] = inf: must be finite"),
    ],
)
def test_a_row_that_is_no_distribution_is_named(row, message):
    broken = mdp().transition.at[1, 2, 0].set(jnp.array(row))
    with pytest.raises(ValueError, match=message):
        check_model(mdp(transition=broken))


def test_rows_are_accepted_up_to_their_printed_digits_and_no_further():
    near = mdp().initial.at[1, 0].add(9e-6)
    check_model(mdp(initial=near))
    with pytest.raises(ValueError, match=r"initial\[1\]: probabilities sum to 1.00002"):
        check_model(mdp(initial=mdp().initial.at[1, 0].add(2e-5)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            mdp(reward=jnp.zeros((2, 3, 2)).at[0, 1, 1].set(jnp.inf)),
            r"reward\[0, 1, 1\]",
        ),
        (
            mdp(reward=jnp.full((2, 3, 2), -1e200)),
            r"reward\[0, 0, 0\] = -1e\+200: must be",
        ),
        (mdp(discount=1.5), r"discount = 1.5: must lie between 0 and 1"),
        (mdp(discount=float("nan")), r"discount = nan"),
        (apomdp(alpha=-0.1), r"alpha = -0.1: must lie between 0 and 1"),
        (
            pomdp(observation=jnp.full((2, 3, 4), 0.3)),
            r"observation\[0, 0\].*sum to 1.2",
        ),
        (
            pomdp(initial_observation=jnp.full((3, 4), 0.2)),
            r"initial_observation\[0\].*sum to 0.8",
        ),
        (
            apomdp(transition=jnp.full((5, 3, 2, 3), 0.2)),
            r"transition\[0, 0, 0\].*sum to 0.6",
        ),
    ],
)
def test_other_bad_numbers_are_named(model, message):
    with pytest.raises(ValueError, match=message):
        check_model(model)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            unshaped(mdp(), transition=jnp.ones((2, 3, 2, 4))),
            r"transition has shape \(2, 3, 2, 4\): must be \[\*B, S, A, S\] = \(2, 3",
        ),
        (
            unshaped(mdp(), initial=jnp.ones((2, 4))),
            r"initial has shape \(2, 4\): must",
        ),
        (unshaped(mdp(), reward=jnp.ones(3)), r"reward has shape \(3,\)"),
        (
            unshaped(pomdp(), observation=jnp.ones((3, 2, 4))),
            r"observation has shape \(3, 2, 4\): must be \[\*B, A, S, O\] = \(2, 3",
        ),
        (
            unshaped(apomdp(), transition=jnp.ones((3, 2, 3))),
            r"transition has shape \(3, 2, 3\): must be \[\*B, K, S, A, S\]",
        ),
        (
            unshaped(apomdp(), observation=jnp.ones((4, 2, 3, 4))),
            r"observation has shape \(4, 2, 3, 4\).*\(5, 2, 3, 4\)",
        ),
    ],
)
def test_shapes_that_disagree_are_named(model, message):
    with pytest.raises(ValueError, match=message):
        check_model(model)


def test_wrong_shapes_are_also_refused_by_the_constructor_under_test():
    with pytest.raises(TypeError, match="reward"):
        mdp(reward=jnp.zeros((2, 3, 5)))


@pytest.mark.parametrize("horizon", [0, -1, 1.0, True])
def test_a_horizon_that_is_no_positive_whole_number_is_named(horizon):
    with pytest.raises(ValueError, match=f"horizon = {horizon}"):
        check_horizon(horizon)


def test_solve_checks_before_it_compiles():
    with pytest.raises(ValueError, match=r"discount = 2"):
        solve(mdp(discount=2.0), horizon=3)
    with pytest.raises(ValueError, match="horizon = 0"):
        solve(mdp(), horizon=0)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (jnp.ones((1, 1), int), "reward has dtype int64: must be floating-point"),
        (jnp.ones((0, 1, 1)), "must have a task"),
    ],
)
def test_whole_numbers_and_empty_batches_are_refused(reward, message):
    batch = reward.shape[:-2]
    model = MDP(
        jnp.ones((*batch, 1, 1, 1)),
        jnp.zeros((*batch, 1, 1)),
        jnp.ones((*batch, 1)),
        1.0,
    )
    object.__setattr__(model, "reward", reward)
    with pytest.raises(ValueError, match=message):
        check_model(model)


def test_numpy_counts_are_counts():
    check_horizon(np.int64(3))
    with pytest.raises(ValueError, match="horizon"):
        check_horizon(np.int64(0))
