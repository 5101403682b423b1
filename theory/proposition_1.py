r"""Proposition 1 of Zhang, Aghaei, Saghafian (2026), checked on a grid of κ, M and N.

Let ε² be the risk of Q̂, and let E (Q̂ - Q*)²(s_t, a) ≤ C ε² along the policy's
trajectory for the best action and the action taken ("on-policy calibration"). Then

    J(π*) - J(π̂) ≤ 2 √C ε (1 - γ^T)/(1 - γ).

Each step of its proof is checked for every κ, M and N (`proposition_1_claims` counts
the cells in which it holds):

1. simulated risk = exact risk, within three standard errors;
2. exact risk ≤ Lemma 1;
3. gap ≤ discounted errors at the best action and the action taken (in every task);
4. gap ≤ 2 ε̂ (1 - γ^T)/(1 - γ), with ε̂ measured over all candidates (appendix E.2);
5. gap ≤ 2 √C ε (1 - γ^T)/(1 - γ) with the exact ε and the measured C;
6. gap ≤ min over c > 0 of (e_best(c) + e_taken(c)) (1 - γ^T)/(1 - γ), with e(c) the
   root mean square of c Q̂ - Q* at the two actions (ours). c Q̂ and Q̂ have the same
   greedy policy. This bound is at most bound 5, which takes c = 1 and twice the larger
   of the two errors.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
import scipy.optimize
from jaxtyping import Float

from sdm.theory.covariances import (
    check_at_least,
    check_discount,
    log_spaced_eigenvalues,
)
from sdm.theory.precision import in_double_precision
from sdm.theory.risk import estimator, exact_risk, lemma_1, scaled_risk
from sdm.theory.simulation import TaskErrors, simulate


@dataclass(frozen=True)
class Grid:
    """Sizes of the simulation (ours); the design is that of the paper.

    Attributes:
        dim: d, dimension of the features.
        actions: A, candidates at each step.
        horizon: T, steps.
        discount: γ, in (0, 1].
        conditions: κ, condition numbers of Λ.
        supports: M, examples shown; increasing.
        trains: N, examples in training prompts; increasing.
        tasks: tasks in each cell, at least 2.
        seed: random seed.

    """

    dim: int = 5
    actions: int = 5
    horizon: int = 20
    discount: float = 0.95
    conditions: tuple[float, ...] = (1.0, 10.0, 100.0)
    supports: tuple[int, ...] = (5, 10, 20, 40, 80, 160)
    trains: tuple[int, ...] = (10, 20, 40, 80, 160)
    tasks: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise `ValueError` for an empty axis or a size out of range."""
        check_discount(self.discount)
        for name, values in (
            ("d", (self.dim,)),
            ("A", (self.actions,)),
            ("T", (self.horizon,)),
            ("κ", self.conditions),
            ("M", self.supports),
            ("N", self.trains),
        ):
            if not values:
                raise ValueError(f"{name}: must have 1 value or more, found 0")
            for value in values:
                check_at_least(name, value, 1)
        check_at_least("number of tasks", self.tasks, 2)

    @property
    def weight(self) -> float:
        """Sum of the discount factors, (1 - γ^T)/(1 - γ)."""
        return float((self.discount ** np.arange(self.horizon)).sum())


@dataclass(frozen=True)
class Cell:
    """Results for one κ, M and N.

    Attributes:
        kappa: condition number κ.
        support: M.
        train: N.
        gap: mean discounted loss of the policy.
        gap_se: standard error of `gap` over tasks.
        eps_hat: ε̂, root mean square of Q̂ - Q* over all candidates.
        eps_hat_absolute: mean of |Q̂ - Q*| over all candidates.
        eps_hat_chosen: root mean square of Q̂ - Q* at the best action and the action
            taken.
        eps_hat_chosen_absolute: mean of |Q̂ - Q*| at these two actions.
        calibration: C, the larger mean square of the two actions over the exact risk.
        bound: 2 ε̂ (1 - γ^T)/(1 - γ).
        holds: whether gap ≤ bound.
        errors_discounted: mean of Σ_t γ^t (|Q̂ - Q*| at the best action + at the action
            taken).
        holds_pathwise: whether the gap is at most that sum in every task.
        bound_calibrated: 2 √C ε (1 - γ^T)/(1 - γ) with the exact ε.
        bound_scaled: the bound of step 6.
        risk_empirical: simulated ε².
        risk_se: standard error of `risk_empirical` over tasks.
        risk_exact: exact ε².
        risk_bound: bound of Lemma 1 on ε².
        risk_scaled: ε*², the risk of the best c Q̂.

    """

    kappa: float
    support: int
    train: int
    gap: float
    gap_se: float
    eps_hat: float
    eps_hat_absolute: float
    eps_hat_chosen: float
    eps_hat_chosen_absolute: float
    calibration: float
    bound: float
    holds: bool
    errors_discounted: float
    holds_pathwise: bool
    bound_calibrated: float
    bound_scaled: float
    risk_empirical: float
    risk_se: float
    risk_exact: float
    risk_bound: float
    risk_scaled: float


@in_double_precision
def validate(
    grid: Grid, *, progress: Callable[[int], None] = lambda done: None
) -> list[Cell]:
    """Simulate every cell of the grid; `progress` receives the number of κ done."""
    cells = []
    every = [np.diag(log_spaced_eigenvalues(grid.dim, k)) for k in grid.conditions]
    for index, (kappa, covariance) in enumerate(
        zip(grid.conditions, every, strict=True)
    ):
        trained = [estimator(covariance, n) for n in grid.trains]
        errors = simulate(
            jax.random.fold_in(jax.random.key(grid.seed), index),
            covariance,
            np.array([trained for _ in grid.supports]),
            grid.supports,
            tasks=grid.tasks,
            horizon=grid.horizon,
            actions=grid.actions,
            discount=grid.discount,
        )
        cells += [
            _cell(grid, kappa, covariance, m, n, TaskErrors(*(x[i, j] for x in errors)))
            for i, m in enumerate(grid.supports)
            for j, n in enumerate(grid.trains)
        ]
        progress(index + 1)
    return cells


def _cell(
    grid: Grid,
    kappa: float,
    covariance: Float[np.ndarray, "d d"],
    support: int,
    train: int,
    here: TaskErrors,
) -> Cell:
    b = estimator(covariance, train)
    risk = exact_risk(b, covariance, support)
    eps_hat = float(np.sqrt(here.square.mean()))
    chosen = max(here.square_best.mean(), here.square_taken.mean())
    gap = float(here.gap.mean())
    bound = 2 * eps_hat * grid.weight
    root = np.sqrt(grid.tasks)
    return Cell(
        kappa=float(kappa),
        support=support,
        train=train,
        gap=gap,
        gap_se=float(here.gap.std(ddof=1) / root),
        eps_hat=eps_hat,
        eps_hat_absolute=float(here.absolute.mean()),
        eps_hat_chosen=float(
            np.sqrt((here.square_best + here.square_taken).mean() / 2)
        ),
        eps_hat_chosen_absolute=float(
            (here.absolute_best + here.absolute_taken).mean() / 2
        ),
        calibration=float(chosen / risk),
        bound=bound,
        holds=gap <= bound,
        errors_discounted=float(here.discounted.mean()),
        # The tolerance covers rounding: both sums are equal where the actions agree.
        holds_pathwise=bool((here.gap <= here.discounted * (1 + 1e-12)).all()),
        bound_calibrated=float(2 * np.sqrt(chosen) * grid.weight),
        bound_scaled=grid.weight
        * least_over_scale(here.moments_best.mean(-1), here.moments_taken.mean(-1)),
        risk_empirical=float(here.square.mean()),
        risk_se=float(here.square.std(ddof=1) / root),
        risk_exact=risk,
        risk_bound=lemma_1(covariance, support, train),
        risk_scaled=scaled_risk(b, covariance, support),
    )


def least_over_scale(
    best: Float[np.ndarray, " 3"], taken: Float[np.ndarray, " 3"]
) -> float:
    """Minimise the sum of root mean squares of c Q̂ - Q* over c ≥ 0.

    Args:
        best: means of Q̂², Q̂ Q* and Q*² at the best actions.
        taken: the same means at the actions taken.

    Returns:
        The minimum.

    """

    def errors(c: float) -> float:
        squares = (c**2 * m[0] - 2 * c * m[1] + m[2] for m in (best, taken))
        return float(sum(np.sqrt(max(x, 0.0)) for x in squares))

    # The sum is convex in c, so its minimum lies between those of the two norms.
    ends = [max(0.0, m[1] / m[0]) if m[0] > 0 else 0.0 for m in (best, taken)]
    if max(ends) == min(ends):
        return errors(ends[0])
    found = scipy.optimize.minimize_scalar(
        errors, bounds=(min(ends), max(ends)), method="bounded"
    )
    return min(float(found.fun), errors(ends[0]), errors(ends[1]), errors(1.0))


def rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return cells as plain dictionaries."""
    return [asdict(cell) for cell in cells]
