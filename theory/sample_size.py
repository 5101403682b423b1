r"""Proposition 2: how many examples are enough.

With c = 2 (1 - γ^T)/(1 - γ) and each of the two terms of the bound at most δ/2,

    M ≥ 4 C c² (d+1) tr Λ / δ²,     N ≥ 2 c √(C (1 + 2d + d²κ) tr Λ) / δ

are enough for J(π*) - J(π̂) ≤ δ. Where trajectories of T steps are counted instead,
M = m T and N = n T; in the limit γ → 1, where c → 2T, that is
m ≥ 16 C T (d+1) tr Λ / δ² and n ≥ 4 √(C (1 + 2d + d²κ) tr Λ) / δ.
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
    """Enough examples.

    Attributes:
        support: M, examples shown.
        train: N, examples in each training prompt.
        support_trajectories: m, trajectories of T steps that hold M examples.
        train_trajectories: n, the same for N.
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
    """What the policy loses with those sizes.

    Attributes:
        gap: mean discounted loss, simulated.
        gap_se: its standard error.
        calibration: C as measured: to be no larger than the C that was assumed.

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
    """Sizes by Proposition 2.

    Args:
        delta: δ, the loss allowed, in units of the return.
        covariance: Λ.
        horizon: T.
        discount: γ.
        calibration: C.

    Raises:
        ValueError: if one of these is out of range.

    """
    check_covariance(covariance)
    check_discount(discount)
    check_at_least("T", horizon, 1)
    for name, value in (("δ", delta), ("C", calibration)):
        if not 1e-100 < value < 1e100:  # their squares are numbers
            raise ValueError(f"{name} = {value:g}: must be above 0, and not extreme")
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
        ValueError: if M is beyond what is simulated in seconds, or for fewer than two
            tasks, which have no standard error.

    """
    check_at_least("number of tasks", tasks, 2)
    if sizes.support > MOST_SIMULATED:
        raise ValueError(
            f"M = {sizes.support} examples are too many to simulate: "
            f"must be {MOST_SIMULATED} or fewer"
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
