r"""When the features of the test are not those of the training.

Proposition 1 takes ε² from matched features. A layer trained on Λ has B = Γ⁻¹ of that
Λ, and on features N(0, Λ') the risk of `risk.exact_risk` with B and Λ'. With training
covariances that are random themselves, one B must serve them all: it solves Σ_k p_k Λ_k
B Λ_k Γ_k = Σ_k p_k Λ_k², and its risk stays away from zero however many examples there
are (Zhang, Frei, Bartlett, 2024, section 4.5).
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
    """B of the smallest average risk, where each training task draws its own Λ.

    Args:
        covariances: those that are drawn.
        train: N, or `numpy.inf`.
        weights: how probable they are; equally, if None.

    Raises:
        ValueError: if there is none, one is not positive definite, or N less than 1.

    """
    if not len(covariances):
        raise ValueError("there must be one covariance or more")
    share = np.full(len(covariances), 1 / len(covariances))
    if weights is not None:
        share = np.asarray(weights, float) / np.sum(weights)
    dim = len(covariances[0])
    system, right = np.zeros((dim**2, dim**2)), np.zeros((dim, dim))
    for probability, lam in zip(share, covariances, strict=True):
        second = lam @ gamma_matrix(lam, train)
        system += probability * np.kron(lam, second.T)  # rows of B one after another
        right += probability * lam @ lam
    return np.linalg.solve(system, right.reshape(-1)).reshape(dim, dim)


def rotated(
    covariance: Float[np.ndarray, "d d"], angle: Number
) -> Float[np.ndarray, "d d"]:
    """Λ turned by an angle in the plane of its first and last axis, in radians."""
    turn = np.eye(len(covariance))
    c, s = np.cos(angle), np.sin(angle)
    turn[0, 0] = turn[-1, -1] = c
    turn[0, -1], turn[-1, 0] = -s, s
    return turn @ covariance @ turn.T
