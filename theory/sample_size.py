r"""Sample sizes of Proposition 2 (Zhang, Aghaei, Saghafian, 2026).

With c = 2 (1 - γ^T)/(1 - γ) and each of the two terms of the bound at most δ/2,

    M ≥ 4 C c² (d+1) tr Λ / δ²,     N ≥ 2 c √(C (1 + 2d + d²κ) tr Λ) / δ

suffice for J(π*) - J(π̂) ≤ δ. In trajectories of T steps, M = m T and N = n T. In the
limit γ → 1, c → 2T, so m ≥ 16 C T (d+1) tr Λ / δ² and
n ≥ 4 √(C (1 + 2d + d²κ) tr Λ) / δ suffice.
"""

import math
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float

from sdm.theory.covariances import (
    Number,
    check_at_least,
    check_covariance,
    check_discount,
)
from sdm.theory.risk import estimator, exact_risk
from sdm.theory.simulation import simulate

MOST_SIMULATED = 300_000  # examples; 200 tasks of them take half a minute


@dataclass(frozen=True)
class SampleSizes:
    """Sufficient sample sizes.

    Attributes:
        support: M, examples shown.
        train: N, examples in each training prompt.
        support_trajectories: m, trajectories of T steps that contain M examples.
        train_trajectories: n, trajectories of T steps that contain N examples.
        support_trajectories_undiscounted: m by the formula for γ → 1.
        train_trajectories_undiscounted: n by the formula for γ → 1.

    """

    support: int
    train: int
    support_trajectories: int
    train_trajectories: int
    support_trajectories_undiscounted: int
    train_trajectories_undiscounted: int


@dataclass(frozen=True)
class Achieved:
    """Simulated results with these sizes.

    Attributes:
        gap: mean discounted loss of the policy.
        gap_se: standard error of `gap`.
        calibration: measured C; Proposition 2 applies if it is at most the assumed C.

    """

    gap: float
    gap_se: float
    calibration: Number


def sample_sizes(
    delta: Number,
    covariance: Float[np.ndarray, "d d"],
    *,
    horizon: int = 20,
    discount: Number = 0.95,
    calibration: Number = 1.0,
) -> SampleSizes:
    """Return the sample sizes of Proposition 2.

    Args:
        delta: δ, the loss allowed, in units of the return.
        covariance: Λ, [d, d].
        horizon: T.
        discount: γ.
        calibration: C.

    Raises:
        ValueError: if an argument is out of range.

    """
    check_covariance(covariance)
    check_discount(discount)
    check_at_least("T", horizon, 1)
    for name, value in (("δ", delta), ("C", calibration)):
        if not 1e-100 < value < 1e100:  # the square must not over- or underflow
            raise ValueError(
                f"{name}: must be between 1e-100 and 1e100, found {value:g}"
            )
    eigenvalues = np.linalg.eigvalsh(covariance)
    dim, trace = len(eigenvalues), float(eigenvalues.sum())
    condition = float(eigenvalues[-1] / eigenvalues[0])
    c = 2 * float((discount ** np.arange(horizon)).sum())
    length = math.sqrt(calibration * (1 + 2 * dim + dim**2 * condition) * trace)
    estimation = calibration * (dim + 1) * trace / delta**2
    support, train = (
        math.ceil(4 * c**2 * estimation),
        math.ceil(2 * c * length / delta),
    )
    return SampleSizes(
        support=support,
        train=train,
        support_trajectories=math.ceil(support / horizon),
        train_trajectories=math.ceil(train / horizon),
        support_trajectories_undiscounted=math.ceil(16 * horizon * estimation),
        train_trajectories_undiscounted=math.ceil(4 * length / delta),
    )


def achieved(
    sizes: SampleSizes,
    covariance: Float[np.ndarray, "d d"],
    *,
    horizon: int = 20,
    discount: Number = 0.95,
    actions: int = 5,
    tasks: int = 200,
    seed: int = 0,
) -> Achieved:
    """Simulate the policy with M and N.

    Raises:
        ValueError: if M exceeds `MOST_SIMULATED`, or `tasks` is less than 2.

    """
    check_at_least("number of tasks", tasks, 2)
    if sizes.support > MOST_SIMULATED:
        raise ValueError(
            f"M: must be {MOST_SIMULATED} or fewer to simulate, found {sizes.support}"
        )
    b = estimator(covariance, sizes.train)
    found = simulate(
        jax.random.key(seed),
        covariance,
        b[None, None],
        (sizes.support,),
        tasks=tasks,
        horizon=horizon,
        actions=actions,
        discount=discount,
    )
    chosen = max(found.square_best.mean(), found.square_taken.mean())
    return Achieved(
        gap=float(found.gap.mean()),
        gap_se=float(found.gap.std(ddof=1) / math.sqrt(tasks)),
        calibration=float(chosen / exact_risk(b, covariance, sizes.support)),
    )
