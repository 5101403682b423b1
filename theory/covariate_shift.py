r"""Covariate shift: features in the test have another covariance than in training.

Proposition 1 assumes the same covariance in both. A layer trained on Λ has B = Γ⁻¹ for
that Λ; `risk.exact_risk` with this B and Λ' is its risk on features N(0, Λ'). If each
training task has a random covariance, one B must fit all of them. It solves
Σ_k p_k Λ_k B Λ_k Γ_k = Σ_k p_k Λ_k², and its risk does not vanish as the number of
examples grows (Zhang, Frei, Bartlett, 2024, section 4.5).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from sdm.theory.covariances import Number
from sdm.theory.risk import gamma_matrix


def estimator_of_random_covariances(
    covariances: Sequence[Float[np.ndarray, "d d"]],
    train: Number,
    *,
    weights: Sequence[float] | Float[np.ndarray, " k"] | None = None,
) -> Float[np.ndarray, "d d"]:
    """Return the B of smallest average risk when training tasks draw their Λ.

    Args:
        covariances: the support of that distribution, each [d, d].
        train: N, examples in training prompts, or `numpy.inf`.
        weights: probabilities of the covariances, up to a factor; equal if None.

    Raises:
        ValueError: if `covariances` is empty, one of them is not positive definite, or
            N is less than 1.

    """
    if not len(covariances):
        raise ValueError("covariances: must be 1 or more, found 0")
    share = np.full(len(covariances), 1 / len(covariances))
    if weights is not None:
        share = np.asarray(weights, float) / np.sum(weights)
    dim = len(covariances[0])
    system, right = np.zeros((dim**2, dim**2)), np.zeros((dim, dim))
    for probability, lam in zip(share, covariances, strict=True):
        second = lam @ gamma_matrix(lam, train)
        system += probability * np.kron(
            lam, second.T
        )  # acts on the rows of B, concatenated
        right += probability * lam @ lam
    return np.linalg.solve(system, right.reshape(-1)).reshape(dim, dim)


def rotated(
    covariance: Float[np.ndarray, "d d"], angle: Number
) -> Float[np.ndarray, "d d"]:
    """Return Λ rotated by `angle` radians in the plane of its first and last axes."""
    turn = np.eye(len(covariance))
    c, s = np.cos(angle), np.sin(angle)
    turn[0, 0] = turn[-1, -1] = c
    turn[0, -1], turn[-1, 0] = -s, s
    return turn @ covariance @ turn.T
