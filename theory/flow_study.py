"""Compare limits of the gradient flow with the theory, for every condition number."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sdm.theory.covariances import Number, log_spaced_eigenvalues
from sdm.theory.gamma_estimator import estimate_gamma
from sdm.theory.gradient_flow import gradient_flow, initialise
from sdm.theory.risk import gamma_matrix


class FlowStudy(NamedTuple):
    """Results for every condition number κ.

    Attributes:
        rows: one row per κ, of values that JSON can represent.
        curves: time and excess loss of each flow, by label.

    """

    rows: list[dict[str, Any]]
    curves: dict[str, tuple[np.ndarray, np.ndarray]]


def flow_study(
    conditions: Sequence[Number],
    *,
    dim: int,
    train: int,
    scale: Number | None,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
) -> FlowStudy:
    """Integrate the flow for every κ, and estimate Γ from its limit.

    Args:
        conditions: κ, condition numbers of Λ.
        dim: d, dimension of the features.
        train: N, examples in the training prompts.
        scale: initial scale σ; half of the largest allowed if None.
        seed: random seed of the initial parameters.
        progress: called with the number of κ done.

    Raises:
        ValueError: if an argument is out of range.
        RuntimeError: if a flow does not converge.

    """
    found = FlowStudy([], {})
    for index, condition in enumerate(conditions):
        covariance = np.diag(log_spaced_eigenvalues(dim, condition))
        key = jax.random.fold_in(jax.random.key(seed), index)
        start = initialise(key, covariance, train, scale=scale)
        path = gradient_flow(start, covariance, train)
        excess = path.loss - path.loss_at_minimum
        found.curves[f"κ = {condition:g}"] = (path.time, excess)
        truth = gamma_matrix(covariance, train)
        estimate = estimate_gamma(path.end)
        found.rows.append(
            {
                "kappa": condition,
                "gamma_relative_error": estimate.relative_error(truth),
                "asymmetry": estimate.asymmetry,
                "loss": float(path.loss[-1]),
                "loss_at_minimum": path.loss_at_minimum,
                "conserved_drift": float(np.ptp(path.conserved)),
                "rate": None if np.isnan(path.rate) else path.rate,
                "predicted_rate": path.predicted_rate,
                "time": float(path.time[-1]),
            }
        )
        progress(index + 1)
    return found
