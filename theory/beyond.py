"""Studies of what the paper's bound assumes or omits.

Each study returns rows (plain dictionaries) from which `plots` draws its figure. It
takes seconds, and its rows depend on the seed only.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sdm.theory.covariances import log_spaced_eigenvalues
from sdm.theory.covariate_shift import estimator_of_random_covariances, rotated
from sdm.theory.finite_training import (
    least_squares,
    population_risks,
    train_on_tasks,
)
from sdm.theory.gamma_estimator import estimate_gamma
from sdm.theory.linear_mdp import play, sample_linear_mdps, train_estimator
from sdm.theory.proposition_1 import Grid, rows, validate
from sdm.theory.risk import estimator, exact_risk, gamma_matrix, lemma_1
from sdm.theory.simulation import simulate

Rows = list[dict[str, Any]]
DIM, TRAIN = 5, 20


def finite_training(seed: int = 0) -> Rows:
    """Return the excess risk of layers trained on n tasks, and the error of their Γ."""
    condition, tasks = 4.0, (64, 128, 256, 512, 1024, 2048, 4096, 8192)
    covariance = np.diag(log_spaced_eigenvalues(DIM, condition))
    best = exact_risk(estimator(covariance, TRAIN), covariance, TRAIN)
    truth = gamma_matrix(covariance, TRAIN)
    found = []
    for repeat in range(4):
        key = jax.random.fold_in(jax.random.key(seed), repeat)
        layers, prompts = train_on_tasks(key, covariance, train=TRAIN, tasks=tasks)
        risks = population_risks(layers, covariance, TRAIN)
        for index, count in enumerate(tasks):
            layer = jax.tree.map(lambda x: x[index], layers)  # noqa: B023
            fitted = least_squares(prompts, count)
            found.append(
                {
                    "tasks": count,
                    "repeat": repeat,
                    "risk_at_minimum": best,
                    "excess_sgd": float(risks[index]) - best,
                    "excess_least_squares": exact_risk(fitted, covariance, TRAIN)
                    - best,
                    "gamma_error": estimate_gamma(layer).relative_error(truth),
                }
            )
    return found


def linear_mdp(seed: int = 0) -> Rows:
    """Return the gap, bound and measured calibration in a linear MDP with dynamics."""
    found = []
    for repeat in range(3):
        random = np.random.default_rng([seed, repeat])
        training = sample_linear_mdps(random, tasks=2000)
        test = sample_linear_mdps(random, tasks=200, like=training)
        for train in (10, 40, 160):
            fitted = train_estimator(random, training, train)
            for support in (5, 10, 20, 40, 80, 160, 320):
                played = play(random, test, fitted, support)
                found.append(
                    {
                        "repeat": repeat,
                        "train": train,
                        "support": support,
                        **played.__dict__,
                    }
                )
    return found


def covariate_shift(seed: int = 0) -> Rows:
    """Return the risk and gap on features with another covariance than in training."""
    base = np.diag(log_spaced_eigenvalues(DIM, 10.0))
    shifts = [("scale", s, s * base) for s in (0.25, 0.5, 1.0, 2.0, 4.0)]
    shifts += [
        ("κ", k, np.diag(log_spaced_eigenvalues(DIM, k)))
        for k in (1.0, 10.0, 100.0, 1000.0)
    ]
    angles = (0.0, 22.5, 45.0, 67.5, 90.0)
    shifts += [("rotation, degrees", a, rotated(base, np.deg2rad(a))) for a in angles]
    plain, found = estimator(base, TRAIN), []
    mixed = estimator_of_random_covariances([s * base for s in (0.25, 1.0, 4.0)], TRAIN)
    supports = (10, 40, 160, 640)
    for index, (kind, amount, covariance) in enumerate(shifts):
        matched = estimator(covariance, TRAIN)
        errors = simulate(
            jax.random.fold_in(jax.random.key(seed), index),
            covariance,
            np.array([[plain, matched, mixed] for _ in supports]),
            supports,
        )
        weight = Grid().weight
        for i, support in enumerate(supports):
            risk = exact_risk(plain, covariance, support)
            assumed = lemma_1(covariance, support, TRAIN)
            found.append(
                {
                    "shift": kind,
                    "amount": amount,
                    "support": support,
                    "risk": risk,
                    "risk_matched": exact_risk(matched, covariance, support),
                    "risk_random_training": exact_risk(mixed, covariance, support),
                    "lemma_1": assumed,
                    "lemma_1_holds": risk <= assumed,
                    "gap": float(errors.gap[i, 0].mean()),
                    "gap_matched": float(errors.gap[i, 1].mean()),
                    "gap_random_training": float(errors.gap[i, 2].mean()),
                    "bound_matched": 2
                    * float(np.sqrt(errors.square[i, 1].mean()))
                    * weight,
                }
            )
    return found


def looseness(seed: int = 0) -> Rows:
    """Return the cells of Proposition 1, with the bound and the scaled bound."""
    return rows(validate(Grid(seed=seed)))


def noisy_labels(seed: int = 0) -> Rows:
    """Return the risk under label noise, for training without and with that noise."""
    covariance, found = np.diag(log_spaced_eigenvalues(DIM, 10.0)), []
    supports = (5, 20, 80, 320)
    for index, sigma in enumerate((0.0, 0.5, 1.0, 2.0)):
        clean = estimator(covariance, TRAIN)
        aware = estimator(covariance, TRAIN, noise=sigma)
        errors = simulate(
            jax.random.fold_in(jax.random.key(seed), index),
            covariance,
            np.array([[clean, aware] for _ in supports]),
            supports,
            noise=sigma,
        )
        for i, support in enumerate(supports):
            risk = exact_risk(clean, covariance, support, noise=sigma)
            bound = lemma_1(covariance, support, TRAIN)
            found.append(
                {
                    "noise": sigma,
                    "support": support,
                    "risk": risk,
                    "risk_simulated": float(errors.square[i, 0].mean()),
                    "risk_se": float(errors.square[i, 0].std(ddof=1) / np.sqrt(1000)),
                    "risk_trained_with_noise": exact_risk(
                        aware, covariance, support, noise=sigma
                    ),
                    "lemma_1": bound,
                    "lemma_1_holds": risk <= bound,
                    "gap": float(errors.gap[i, 0].mean()),
                    "gap_trained_with_noise": float(errors.gap[i, 1].mean()),
                }
            )
    return found


STUDIES: dict[str, Callable[[int], Rows]] = {
    "finite-training": finite_training,
    "linear-mdp": linear_mdp,
    "covariate-shift": covariate_shift,
    "looseness": looseness,
    "noisy-labels": noisy_labels,
}
