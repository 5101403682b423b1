r"""Risk of the trained layer: exact value, bound of Lemma 1, and scale-invariant risk.

A layer predicts ŷ = xᵀ B h from h = Σ y_i x_i / M. Averaged over tasks w ~ N(0, I),
features N(0, Λ) and label noise of standard deviation σ, its risk is

    ε² = E (ŷ - wᵀ x)² = tr(B Λ Γ_M Bᵀ Λ) - 2 tr(B Λ²) + tr Λ,

with Γ_M = (1 + 1/M) Λ + ((tr Λ + σ²)/M) I, because E h hᵀ = Λ Γ_M. At the global
minimum for training prompts of N examples B = Γ⁻¹, Γ = Γ_N. Without noise this is

    ε² = (1/M) [tr(Γ⁻²Λ³) + tr(Λ) tr(Γ⁻²Λ²)] + tr[(ΛΓ⁻¹ - I)² Λ].

The first term decreases with the support size M; the second, a bias, depends only on N.
Lemma 1 of Zhang, Aghaei, Saghafian (2026) is the bound
ε² ≤ (d+1) tr(Λ)/M + (1 + 2d + d²κ) tr(Λ)/N².

**Scaled risk (ours).** ŷ and c ŷ have the same greedy policy for every c > 0. The
smallest risk over c,

    ε*² = tr Λ - tr(B Λ²)² / tr(B Λ Γ_M Bᵀ Λ),

is at most ε². It gives a bound on the policy's loss under the calibration of c ŷ, not
of ŷ; docs/theory.md has a bound that never exceeds that of Proposition 1 and needs no
such assumption. For Λ ∝ I neither the policy nor ε*² = tr(Λ) (d+1)/(M+d+1) depends on
N.
"""

import numpy as np
from jaxtyping import Float

from sdm.theory.covariances import Number, check_at_least, check_covariance

Matrix = Float[np.ndarray, "d d"]


def gamma_matrix(
    covariance: Matrix, examples: Number, *, noise: Number = 0.0
) -> Matrix:
    """Return Γ of prompts of `examples` examples, which may be `numpy.inf`.

    Raises:
        ValueError: if Λ is not positive definite, or `examples` is less than 1.

    """
    check_covariance(covariance)
    if not examples >= 1:
        raise ValueError(f"examples: must be 1 or more, found {examples:g}")
    spread = (np.trace(covariance) + noise**2) / examples
    return (1 + 1 / examples) * covariance + spread * np.eye(len(covariance))


def estimator(covariance: Matrix, train: Number, *, noise: Number = 0.0) -> Matrix:
    """Return B = Γ⁻¹ of the layer trained on prompts of `train` examples."""
    return np.linalg.inv(gamma_matrix(covariance, train, noise=noise))


def _moments(
    estimator: Matrix, covariance: Matrix, support: Number, noise: Number
) -> tuple[float, float, float]:
    """Return E ŷ², E ŷ wᵀx and E (wᵀx)²."""
    second = covariance @ gamma_matrix(covariance, support, noise=noise)
    return (
        float(np.trace(estimator @ second @ estimator.T @ covariance)),
        float(np.trace(estimator @ covariance @ covariance)),
        float(np.trace(covariance)),
    )


def exact_risk(
    estimator: Matrix, covariance: Matrix, support: Number, *, noise: Number = 0.0
) -> float:
    """Return the risk ε² of the prediction with B from M examples.

    Args:
        estimator: B, [d, d].
        covariance: Λ of the test, which may differ from that of training.
        support: M.
        noise: standard deviation of the label noise in the test.

    Raises:
        ValueError: if Λ is not positive definite, or M less than 1.

    """
    square, product, label = _moments(estimator, covariance, support, noise)
    return square - 2 * product + label


def best_scale(
    estimator: Matrix, covariance: Matrix, support: Number, *, noise: Number = 0.0
) -> float:
    """Return the c for which c ŷ has the smallest risk."""
    square, product, _ = _moments(estimator, covariance, support, noise)
    return product / square


def scaled_risk(
    estimator: Matrix, covariance: Matrix, support: Number, *, noise: Number = 0.0
) -> float:
    """Return ε*², the risk of c ŷ for the best c (ours)."""
    square, product, label = _moments(estimator, covariance, support, noise)
    return label - product**2 / square


def lemma_1(covariance: Matrix, support: Number, train: Number) -> float:
    """Return the bound of Lemma 1 on ε², for noiseless labels and the same Λ.

    Raises:
        ValueError: if Λ is not positive definite, or M or N less than 1.

    """
    check_covariance(covariance)
    check_at_least("M", support, 1)
    check_at_least("N", train, 1)
    eigenvalues = np.linalg.eigvalsh(covariance)
    dim, trace = len(eigenvalues), eigenvalues.sum()
    condition = eigenvalues[-1] / eigenvalues[0]
    length = 1 + 2 * dim + dim**2 * condition
    return float((dim + 1) * trace / support + length * trace / train**2)
