"""Risk formulas against simulation and each other; what makes no sense is refused."""

import jax
import numpy as np
import pytest
from tolerances import ROUNDING

from sdm.theory.covariances import log_spaced_eigenvalues
from sdm.theory.covariate_shift import estimator_of_random_covariances, rotated
from sdm.theory.risk import (
    best_scale,
    estimator,
    exact_risk,
    gamma_matrix,
    lemma_1,
    scaled_risk,
)
from sdm.theory.simulation import simulate


def as_printed(covariance, support, train):
    """The formula of the paper's setting, as it is written there."""
    trace, inverse = np.trace, np.linalg.inv(gamma_matrix(covariance, train))
    square, eye = inverse @ inverse, np.eye(len(covariance))
    first = trace(square @ covariance @ covariance @ covariance)
    second = trace(covariance) * trace(square @ covariance @ covariance)
    off = covariance @ inverse - eye
    return (first + second) / support + trace(off @ off @ covariance)


@pytest.mark.parametrize("kappa", [1.0, 30.0])
@pytest.mark.parametrize(("support", "train"), [(1, 1), (7, 20), (1000, 3)])
def test_the_exact_risk_is_the_formula_as_printed(kappa, support, train):
    covariance = rotated(np.diag(log_spaced_eigenvalues(4, kappa)), 0.7)
    b = estimator(covariance, train)
    wanted = as_printed(covariance, support, train)
    assert exact_risk(b, covariance, support) == pytest.approx(wanted, rel=ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 1.5])
def test_simulation_tends_to_the_exact_risk_also_under_shift(noise):
    trained = np.diag(log_spaced_eigenvalues(3, 10.0))
    tested = rotated(1.2 * trained, 0.3)
    b, supports = estimator(trained, 8), (4, 32)
    errors = simulate(
        jax.random.key(0),
        tested,
        np.array([[b], [b]]),
        supports,
        tasks=20_000,
        horizon=3,
        noise=noise,
    )
    for i, support in enumerate(supports):
        found, exact = errors.square[i, 0], exact_risk(b, tested, support, noise=noise)
        error = found.std(ddof=1) / np.sqrt(len(found))
        assert abs(found.mean() - exact) < 4 * error < 0.1 * exact


def test_lemma_1_bounds_the_risk_everywhere_it_is_stated():
    for dim in (1, 2, 8):
        for kappa in (1.0, 10.0, 1000.0) if dim > 1 else (1.0,):
            covariance = np.diag(log_spaced_eigenvalues(dim, kappa))
            for train in (1, 5, 50, 5000):
                b = estimator(covariance, train)
                for support in (1, 10, 1000):
                    risk = exact_risk(b, covariance, support)
                    assert risk <= lemma_1(covariance, support, train)
    # As printed, for one case by hand: d = 2, Λ = I, M = 4, N = 10.
    assert lemma_1(np.eye(2), 4, 10) == pytest.approx(3 * 2 / 4 + (1 + 4 + 4) * 2 / 100)


def test_the_scaled_risk_is_least_over_all_multiples():
    covariance = np.diag(log_spaced_eigenvalues(4, 20.0))
    b = estimator(covariance, 6)
    best, least = best_scale(b, covariance, 9), scaled_risk(b, covariance, 9)
    assert exact_risk(best * b, covariance, 9) == pytest.approx(least, rel=ROUNDING)
    for c in (0.5, 0.9, 1.0, 1.1, 2.0):
        assert exact_risk(c * best * b, covariance, 9) >= least * (1 - 1e-12)


@pytest.mark.parametrize("train", [1, 10, 10**6])
def test_for_isotropic_features_the_scaled_risk_does_not_know_the_training(train):
    for dim in (1, 3, 10):
        found = scaled_risk(estimator(np.eye(dim), train), np.eye(dim), 12)
        assert found == pytest.approx(dim * (dim + 1) / (12 + dim + 1), rel=ROUNDING)


def test_noise_in_training_makes_the_layer_cautious_and_never_hurts_at_its_own_length():
    covariance = np.diag(log_spaced_eigenvalues(3, 5.0))
    for noise in (0.5, 2.0):
        aware = estimator(covariance, 10, noise=noise)
        naive = estimator(covariance, 10)
        risks = [exact_risk(b, covariance, 10, noise=noise) for b in (aware, naive)]
        assert risks[0] < risks[1]
        assert np.trace(aware) < np.trace(naive)


def test_one_estimator_for_random_covariances_never_becomes_exact():
    base = np.diag(log_spaced_eigenvalues(3, 4.0))
    scales, weights = np.array([0.5, 1.0, 3.0]), np.array([0.2, 0.5, 0.3])
    several = [s * base for s in scales]
    b = estimator_of_random_covariances(several, np.inf, weights=weights)
    moments = [weights @ scales**k for k in (1, 2, 3)]
    wanted = moments[1] / moments[2] * np.linalg.inv(base)
    np.testing.assert_allclose(b, wanted, rtol=ROUNDING, atol=ROUNDING)
    limit = sum(
        w * exact_risk(b, lam, np.inf) for w, lam in zip(weights, several, strict=True)
    )
    # With endless examples in training and test: tr Λ (E s - (E s²)² / E s³).
    left = np.trace(base) * (moments[0] - moments[1] ** 2 / moments[2])
    assert limit == pytest.approx(left, rel=1e-10) and left > 0.1
    same = estimator_of_random_covariances([base, base], 7)
    np.testing.assert_allclose(same, estimator(base, 7), rtol=1e-10, atol=1e-12)


def test_it_is_least_among_estimators():
    several = [np.diag([1.0, 3.0]), np.array([[2.0, 0.5], [0.5, 1.0]])]
    b = estimator_of_random_covariances(several, 5)

    def average(b):
        return np.mean([exact_risk(b, lam, 5) for lam in several])

    random = np.random.default_rng(0)
    for _ in range(20):
        assert average(b + 0.05 * random.normal(size=b.shape)) > average(b)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_spaced_eigenvalues(0, 1.0), "d: must.*found 0"),
        (lambda: log_spaced_eigenvalues(3, 0.5), "κ: must.*found 0.5"),
        (lambda: log_spaced_eigenvalues(3, float("nan")), "κ: must.*found nan"),
        (lambda: log_spaced_eigenvalues(1, 2.0), "κ: must be 1 for d = 1, found 2"),
        (
            lambda: estimator(np.diag([1.0, -1.0]), 5),
            "eigenvalues must be positive, found -1",
        ),
        (
            lambda: estimator(np.diag([1.0, 0.0]), 5),
            "eigenvalues must be positive, found 0",
        ),
        (
            lambda: estimator(np.array([[1.0, 2.0], [0.0, 1.0]]), 5),
            "symmetric, found .* up to 2",
        ),
        (lambda: estimator(np.array([[np.nan]]), 5), "finite, found nan"),
        (lambda: estimator(np.eye(2), 0), "examples: must.*found 0"),
        (lambda: exact_risk(np.eye(2), np.eye(2), 0.5), "examples: must.*found 0.5"),
        (lambda: lemma_1(np.eye(2), 0, 5), "M: must.*found 0"),
        (lambda: lemma_1(np.eye(2), 5, 0), "N: must.*found 0"),
        (
            lambda: estimator_of_random_covariances([], 5),
            "covariances: must be 1 or more, found 0",
        ),
    ],
)
def test_what_makes_no_regression_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
