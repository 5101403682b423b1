"""Ambiguity sets: near, on the same support, and refused where they cannot be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import rel_entr
from tolerances import ROUNDING

from sdm.solvers_jax import EnergyFamily, check_model
from sdm.tasks.ambiguity import AmbiguityError, divergence
from sdm.tasks.rollout import task_keys


def draw(family, tasks=6, seed=0):
    p = family.parameters(jax.random.key(seed), tasks, split="train")["p"]
    return family.apomdp(task_keys(jax.random.key(seed + 1), tasks), p)


@pytest.mark.slow
def test_every_model_is_well_posed_and_as_near_as_it_is_said_to_be():
    family = EnergyFamily(models=3)
    model, far = draw(family)
    check_model(model)
    assert far.shape == (6, 3) and (far[:, 0] == 0).all()
    for b in range(6):
        for k in range(1, 3):
            moves = np.asarray(model.transition[b, :, :, [0, 2]])
            shown = np.asarray(model.initial_observation[b])
            rows = [rel_entr(moves[:, k], moves[:, 0]).sum(-1).ravel()]
            rows.append(rel_entr(shown[k], shown[0]).sum(-1))
            assert far[b, k] == pytest.approx(np.concatenate(rows).mean(), rel=ROUNDING)
    assert (np.asarray(far[:, 1:]) <= family.radius).all() and (far[:, 1:] > 0).all()


def test_the_nominal_model_comes_first_and_the_support_stays():
    family = EnergyFamily(models=3)
    p = family.parameters(jax.random.key(0), 6, split="train")["p"]
    model, _ = draw(family)
    nominal = family.pomdp(p)
    np.testing.assert_array_equal(model.transition[:, 0], nominal.transition)
    np.testing.assert_array_equal(model.observation[:, 0], nominal.observation)
    possible = np.asarray(model.transition > 0)
    np.testing.assert_array_equal(possible, possible[:, :1].repeat(3, axis=1))


def test_the_two_charge_actions_stay_one():
    model, _ = draw(EnergyFamily(models=3))
    np.testing.assert_array_equal(
        model.transition[..., 0, :], model.transition[..., 1, :]
    )


def test_what_is_seen_does_not_depend_on_the_action():
    model, _ = draw(EnergyFamily(models=3))
    for action in range(3):
        np.testing.assert_array_equal(
            model.observation[:, :, action], model.initial_observation
        )


@pytest.mark.slow
def test_a_set_depends_on_its_own_key_only():
    family = EnergyFamily(models=3)
    keys, p = (
        task_keys(jax.random.key(1), 6),
        family.parameters(jax.random.key(0), 6, split="train")["p"],
    )
    whole, _ = family.apomdp(keys, p)
    part, _ = family.apomdp(keys[2:4], p[2:4])
    np.testing.assert_allclose(whole.transition[2:4], part.transition, rtol=ROUNDING)


def test_one_model_is_the_nominal_one():
    model, far = draw(EnergyFamily(models=1))
    assert model.transition.shape[1] == 1 and far.shape == (6, 1)


def near_family(radius):
    return EnergyFamily(models=2, radius=radius, concentration=50.0)


@pytest.mark.slow
def test_a_smaller_radius_gives_nearer_models():
    near, far = (draw(near_family(r))[1][:, 1:] for r in (0.03, 0.5))
    assert near.max() <= 0.03 < far.max()


@pytest.mark.slow
def test_a_radius_that_cannot_be_met_says_what_to_do():
    family = near_family(1e-4)
    with pytest.raises(AmbiguityError, match=r"radius = 0\.0001 cannot") as error:
        draw(family, tasks=1)
    assert "concentration above 50" in error.value.hint


def test_divergence_is_zero_for_the_model_itself_and_counts_rows_alike():
    rows = jnp.asarray([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    assert divergence([rows], [rows]) == 0
    other = jnp.asarray([[0.4, 0.6, 0.0], [0.2, 0.3, 0.5]])
    one = 0.4 * np.log(0.8) + 0.6 * np.log(1.2)
    assert divergence([other, rows], [rows, rows]) == pytest.approx(
        one / 4, rel=ROUNDING
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": 0}, "K = 0"),
        ({"alpha": 1.2}, "alpha = 1.2"),
        ({"radius": 0.0}, "radius = 0"),
        ({"concentration": float("inf")}, "concentration = inf"),
        ({"q": 1.1}, "q = 1.1"),
    ],
)
def test_numbers_that_make_no_set_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EnergyFamily(**options)
