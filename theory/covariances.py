"""Feature covariances Λ, and the checks of what makes an in-context regression."""

import numpy as np
from jaxtyping import Float

Number = float | int  # what a caller may write for a real number


def log_spaced_eigenvalues(dim: int, condition: Number) -> Float[np.ndarray, " d"]:
    """Eigenvalues spaced evenly in logarithm, largest first, summing to `dim`.

    The sum is our choice: the size of the labels, tr Λ, is then the same for every
    condition number κ.

    Raises:
        ValueError: if `dim` is less than 1 or `condition` less than 1; or if one
            dimension is to have a condition number other than 1.

    """
    check_at_least("d", dim, 1)
    check_at_least("κ", condition, 1)
    if dim == 1 and condition != 1:
        raise ValueError(f"κ = {condition:g}: one dimension has condition number 1")
    eigenvalues = np.geomspace(condition, 1, dim)
    return eigenvalues * dim / eigenvalues.sum()


def check_covariance(covariance: Float[np.ndarray, "d d"]) -> None:
    """Raise `ValueError` unless Λ is symmetric with positive eigenvalues."""
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise ValueError(f"Λ has shape {covariance.shape}: must be [d, d]")
    check_at_least("d", len(covariance), 1)
    if not np.isfinite(covariance).all():
        raise ValueError("Λ has entries that are not finite")
    if not np.allclose(covariance, covariance.T, rtol=1e-10):
        raise ValueError("Λ is not symmetric")
    smallest = float(np.linalg.eigvalsh(covariance)[0])
    if smallest <= 0:
        raise ValueError(f"Λ has the eigenvalue {smallest:g}: all must be positive")


def check_at_least(name: str, value: Number, least: Number) -> None:
    """Raise `ValueError` unless `value` is finite and at least `least`."""
    if not least <= value < np.inf:
        raise ValueError(f"{name} = {value:g}: must be {least:g} or more, and finite")


def check_discount(discount: Number) -> None:
    """Raise `ValueError` unless 0 < γ ≤ 1."""
    if not 0 < discount <= 1:
        raise ValueError(f"γ = {discount:g}: must be above 0 and at most 1")
