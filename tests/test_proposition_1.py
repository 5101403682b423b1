"""The chain of Proposition 1 in simulation, and the sample sizes of Proposition 2."""

import dataclasses

import jax
import numpy as np
import pytest
from tolerances import ROUNDING

from sdm.theory.covariances import log_spaced_eigenvalues
from sdm.theory.proposition_1 import Grid, least_over_scale, validate
from sdm.theory.proposition_1_claims import claims
from sdm.theory.risk import estimator, exact_risk
from sdm.theory.sample_size import achieved, sample_sizes
from sdm.theory.simulation import simulate

SMALL = Grid(conditions=(1.0, 100.0), supports=(5, 40), trains=(10, 160), tasks=400)


@pytest.fixture(scope="module")
def cells():
    return validate(SMALL)


def test_every_cell_is_there_and_every_bound_holds(cells):
    assert [(c.kappa, c.support, c.train) for c in cells] == [
        (kappa, m, n) for kappa in (1.0, 100.0) for m in (5, 40) for n in (10, 160)
    ]
    for cell in cells:
        assert cell.holds and cell.holds_pathwise
        assert 0 < cell.gap <= cell.errors_discounted <= cell.bound_calibrated
        assert cell.risk_scaled <= cell.risk_exact <= cell.risk_bound
        assert cell.gap <= cell.bound_scaled <= cell.bound_calibrated
        assert cell.eps_hat_absolute <= cell.eps_hat
        assert cell.bound == pytest.approx(2 * cell.eps_hat * (1 - 0.95**20) / 0.05)
        calibrated = cell.calibration * cell.risk_exact
        wanted = 2 * np.sqrt(calibrated) * SMALL.weight
        assert cell.bound_calibrated == pytest.approx(wanted)
        assert abs(cell.risk_empirical - cell.risk_exact) < 4 * cell.risk_se


def test_more_examples_lose_less_and_training_longer_helps_where_features_differ(cells):
    gap = {(c.kappa, c.support, c.train): c.gap for c in cells}
    for kappa in (1.0, 100.0):
        for train in (10, 160):
            assert gap[kappa, 40, train] < gap[kappa, 5, train]
    assert gap[100.0, 40, 160] < gap[100.0, 40, 10]


def test_for_isotropic_features_the_policy_does_not_know_the_training(cells):
    for support in (5, 40):
        one, other = (c for c in cells if c.kappa == 1.0 and c.support == support)
        assert one.gap == other.gap and one.risk_exact != other.risk_exact
        assert one.bound_scaled == pytest.approx(other.bound_scaled, rel=ROUNDING)


def test_the_scaled_bound_is_least_over_all_multiples():
    random = np.random.default_rng(0)
    for _ in range(20):
        q, truth = random.normal(size=(2, 2, 50)) + 0.5
        moments = [
            np.array([(a**2).mean(), (a * b).mean(), (b**2).mean()])
            for a, b in zip(q, truth, strict=True)
        ]
        least = least_over_scale(*moments)
        errors = [
            sum(
                np.sqrt(((c * a - b) ** 2).mean())
                for a, b in zip(q, truth, strict=True)
            )
            for c in np.linspace(0, 3, 3001)
        ]
        # The grid is no finer than 1e-3; the sum is off by about that squared.
        assert least == pytest.approx(min(errors), rel=1e-5)
        assert least <= min(errors) + 1e-9


def test_the_claims_count_what_does_not_hold(cells):
    made = {claim.name: claim for claim in claims(cells)}
    assert len(made) == 8 and all(c.holds == c.cells == 8 for c in made.values())
    wrong = cells[0].risk_exact + 3.5 * cells[0].risk_se
    changes = {"bound": 0.0, "risk_bound": 0.0, "risk_empirical": wrong}
    broken = dataclasses.replace(cells[0], holds_pathwise=False, **changes)
    made = {claim.where: claim for claim in claims([broken, *cells[1:]])}
    for where in ("E.2, (12)", "Lemma 1", "risk", "proof of Prop. 1"):
        assert made[where].holds == 7, where
    assert made["E.2, (12)"].looseness[0] == 0
    nothing = [dataclasses.replace(cell, gap=0.0) for cell in cells]
    assert {c.where: c for c in claims(nothing)}["Prop. 1"].looseness is None


def test_a_task_is_simulated_as_it_is_defined():
    """One task, one cell, in plain NumPy from what the simulation itself drew."""
    covariance = np.diag([2.0, 0.5])
    b, key = estimator(covariance, 10), jax.random.key(3)
    found = simulate(
        key, covariance, b[None, None], (4,), tasks=1, horizon=9, actions=4
    )
    task = jax.random.split(key, 1)[0]
    for_w, for_x, _, for_phi = jax.random.split(task, 4)
    root = np.sqrt(covariance)
    w = np.asarray(jax.random.normal(for_w, (2,)))
    x = np.asarray(jax.random.normal(for_x, (4, 2))) @ root
    phi = np.asarray(jax.random.normal(for_phi, (9, 4, 2))) @ root
    theta = b @ (x.T @ (x @ w)) / 4
    truth, guess = phi @ w, phi @ theta
    error, step, weight = guess - truth, np.arange(9), 0.95 ** np.arange(9)
    best, taken = truth.argmax(-1), guess.argmax(-1)
    assert (best != taken).any() and (best == taken).any()  # a telling task

    def moments(action):
        q, value = guess[step, action], truth[step, action]
        return np.array([(q**2).mean(), (q * value).mean(), (value**2).mean()])

    at_best, at_taken = error[step, best], error[step, taken]
    wanted = {
        "gap": weight @ (truth.max(-1) - truth[step, taken]),
        "square": (error**2).mean(),
        "absolute": abs(error).mean(),
        "square_best": (at_best**2).mean(),
        "square_taken": (at_taken**2).mean(),
        "moments_best": moments(best),
        "moments_taken": moments(taken),
        "absolute_best": abs(at_best).mean(),
        "absolute_taken": abs(at_taken).mean(),
        "discounted": weight @ (abs(at_best) + abs(at_taken)),
    }
    assert wanted.keys() == set(found._fields)
    for name, value in wanted.items():
        ours = getattr(found, name)[0, 0, ..., 0]
        np.testing.assert_allclose(ours, value, rtol=ROUNDING, err_msg=name)


@pytest.mark.slow
def test_a_cell_is_made_of_what_its_tasks_did():
    (cell,) = validate(Grid(conditions=(3.0,), supports=(6,), trains=(9,), tasks=40))
    covariance = np.diag(log_spaced_eigenvalues(5, 3.0))
    b, key = estimator(covariance, 9), jax.random.fold_in(jax.random.key(0), 0)
    tasks = simulate(key, covariance, b[None, None], (6,), tasks=40)
    best, taken = tasks.square_best.mean(), tasks.square_taken.mean()
    assert best != taken
    chosen = max(best, taken)
    assert cell.calibration * cell.risk_exact == pytest.approx(chosen, rel=ROUNDING)
    assert cell.eps_hat_chosen**2 == pytest.approx((best + taken) / 2, rel=ROUNDING)
    assert cell.gap_se == pytest.approx(
        tasks.gap.std(ddof=1) / np.sqrt(40), rel=ROUNDING
    )
    error = tasks.square.std(ddof=1) / np.sqrt(40)
    assert cell.risk_se == pytest.approx(error, rel=ROUNDING)
    sizes = sample_sizes(20.0, covariance, horizon=4)
    found = achieved(sizes, covariance, horizon=4, tasks=30)
    b = estimator(covariance, sizes.train)[None, None]
    again = simulate(
        jax.random.key(0), covariance, b, (sizes.support,), tasks=30, horizon=4
    )
    risk = exact_risk(b[0, 0], covariance, sizes.support)
    larger = max(again.square_best.mean(), again.square_taken.mean())
    assert found.calibration == pytest.approx(larger / risk, rel=ROUNDING)


@pytest.mark.slow
def test_a_task_does_not_depend_on_how_many_there_are():
    b = estimator(np.eye(3), 10)[None, None]
    few, many = (
        simulate(jax.random.key(1), np.eye(3), b, (6,), tasks=n, horizon=2)
        for n in (5, 9)
    )
    np.testing.assert_allclose(few.gap[..., :5], many.gap[..., :5], rtol=ROUNDING)


def test_the_perfect_estimate_loses_nothing():
    found = simulate(
        jax.random.key(0), np.eye(2), np.eye(2)[None, None], (20_000,), tasks=50
    )
    assert (
        found.gap.mean()
        < 1e-2
        < simulate(
            jax.random.key(0), np.eye(2), -np.eye(2)[None, None], (100,), tasks=50
        ).gap.mean()
    )


def test_sample_sizes_are_the_formulas():
    covariance = np.diag([2.0, 1.0, 1.0])
    found = sample_sizes(0.5, covariance, horizon=10, discount=0.9, calibration=1.2)
    c = 2 * (1 - 0.9**10) / 0.1
    assert found.support == int(np.ceil(4 * 1.2 * c**2 * 4 * 4 / 0.25))
    length = np.sqrt(1.2 * (1 + 6 + 9 * 2) * 4)
    assert found.train == int(np.ceil(2 * c * length / 0.5))
    assert found.support_trajectories == -(-found.support // 10)
    assert found.train_trajectories == -(-found.train // 10)
    wanted = int(np.ceil(16 * 10 * 1.2 * 4 * 4 / 0.25))
    assert found.support_trajectories_undiscounted == wanted
    assert found.train_trajectories_undiscounted == int(np.ceil(4 * length / 0.5))


@pytest.mark.slow
@pytest.mark.parametrize("kappa", [1.0, 10.0])
def test_the_sample_sizes_achieve_what_was_asked(kappa):
    covariance = np.diag(log_spaced_eigenvalues(4, kappa))
    # C = 2: more than is measured below, as the proposition assumes.
    sizes = sample_sizes(6.0, covariance, horizon=10, calibration=2.0)
    found = achieved(sizes, covariance, horizon=10)
    assert found.calibration <= 2.0 and 0 < found.gap <= 6.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 0}, "d: must.*found 0"),
        ({"conditions": (0.9,)}, "κ: must.*found 0.9"),
        ({"conditions": ()}, "κ: must have 1 value or more, found 0"),
        ({"supports": (5, 0)}, "M: must.*found 0"),
        ({"trains": (0,)}, "N: must.*found 0"),
        ({"discount": 0.0}, "γ: must.*found 0"),
        ({"discount": 1.01}, "γ: must.*found 1.01"),
        ({"horizon": 0}, "T: must.*found 0"),
        ({"actions": 0}, "A: must.*found 0"),
        ({"tasks": 1}, "number of tasks: must.*found 1"),
    ],
)
def test_what_makes_no_grid_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Grid(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"delta": 0.0}, "δ: must.*found 0"),
        ({"calibration": -1.0}, "C: must.*found -1"),
        ({"discount": 2.0}, "γ: must.*found 2"),
        ({"horizon": 0}, "T: must.*found 0"),
    ],
)
def test_what_has_no_sample_size_is_refused(changes, message):
    options = {"delta": 1.0, "covariance": np.eye(2), **changes}
    with pytest.raises(ValueError, match=message):
        sample_sizes(options.pop("delta"), options.pop("covariance"), **options)


@pytest.mark.slow
def test_double_precision_is_used_within_and_left_alone_without():
    b = estimator(np.eye(2), 10)[None, None]
    wanted = simulate(jax.random.key(1), np.eye(2), b, (6,), tasks=3, horizon=2)
    with jax.enable_x64(False):
        found = simulate(jax.random.key(1), np.eye(2), b, (6,), tasks=3, horizon=2)
        assert jax.numpy.ones(1).dtype == "float32"
    assert found.gap.dtype == "float64"
    np.testing.assert_array_equal(found.gap, wanted.gap)
