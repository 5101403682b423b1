"""Feature covariances Λ, and argument checks for in-context regression."""

import numpy as np
from jaxtyping import Float

Number = float | int  # a real number may be given as an integer


def log_spaced_eigenvalues(dim: int, condition: Number) -> Float[np.ndarray, " d"]:
    """Return eigenvalues spaced evenly in logarithm, largest first, with sum `dim`.

    The sum is our choice: it gives labels the same mean square, tr Λ, for every
    condition number κ.

    Raises:
        ValueError: if `dim` or `condition` is less than 1, or if `dim` is 1 and
            `condition` is not.

    """
    check_at_least("d", dim, 1)
    check_at_least("κ", condition, 1)
    if dim == 1 and condition != 1:
        raise ValueError(f"κ: must be 1 for d = 1, found {condition:g}")
    eigenvalues = np.geomspace(condition, 1, dim)
    return eigenvalues * dim / eigenvalues.sum()


def check_covariance(covariance: Float[np.ndarray, "d d"]) -> None:
    """Raise `ValueError` unless Λ is symmetric with positive eigenvalues."""
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise ValueError(f"Λ: must have shape (d, d), found {covariance.shape}")
    check_at_least("d", len(covariance), 1)
    finite = np.isfinite(covariance)
    if not finite.all():
        raise ValueError(f"Λ: must be finite, found {covariance[~finite][0]:g}")
    if not np.allclose(covariance, covariance.T, rtol=1e-10):
        difference = abs(covariance - covariance.T).max()
        raise ValueError(f"Λ: must be symmetric, found |Λ - Λᵀ| up to {difference:g}")
    smallest = float(np.linalg.eigvalsh(covariance)[0])
    if smallest <= 0:
        raise ValueError(f"Λ: eigenvalues must be positive, found {smallest:g}")


def check_at_least(name: str, value: Number, least: Number) -> None:
    """Raise `ValueError` unless `value` is finite and at least `least`."""
    if not least <= value < np.inf:
        raise ValueError(
            f"{name}: must be {least:g} or more and finite, found {value:g}"
        )


def check_discount(discount: Number) -> None:
    """Raise `ValueError` unless 0 < γ ≤ 1."""
    if not 0 < discount <= 1:
        raise ValueError(f"γ: must be above 0 and at most 1, found {discount:g}")
