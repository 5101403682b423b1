r"""Estimation of Γ from the parameters of a trained layer.

A layer that has learnt to regress predicts ŷ = wᵀ S B x, with B = p₁ v₂ᵀ + p₂ V₁ close
to Γ⁻¹ (`linear_attention`). The layer's scale symmetry multiplies one factor of B and
divides the other by the same number, so B is invariant to it. The estimate is the
symmetric part of B⁻¹. The parts of the layer that it ignores are reported as
`asymmetry` and `outside`.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sdm.theory.linear_attention import Attention
from sdm.theory.precision import in_double_precision


class GammaEstimate(NamedTuple):
    """An estimate of Γ from one layer, or from several layers trained alike.

    Attributes:
        gamma: the estimate, averaged over layers.
        standard_error: standard error of each entry, over layers; NaN for one layer.
        asymmetry: ‖G - Gᵀ‖ / 2‖G‖ for G = B⁻¹, the largest over layers.
        outside: norm of the blocks p₁ and v₂, which should be zero, relative to p₂ and
            V₁; the largest over layers.

    """

    gamma: Float[np.ndarray, "d d"]
    standard_error: Float[np.ndarray, "d d"]
    asymmetry: float
    outside: float

    def relative_error(self, truth: Float[np.ndarray, "d d"]) -> float:
        """Return ‖Γ̂ - Γ‖ / ‖Γ‖ in the Frobenius norm."""
        return float(np.linalg.norm(self.gamma - truth) / np.linalg.norm(truth))


@in_double_precision
def estimate_gamma(parameters: Attention) -> GammaEstimate:
    """Estimate Γ from one layer, or from layers stacked on a leading axis.

    Raises:
        ValueError: if the B of a layer is singular.

    """
    value, key_query = (np.asarray(jnp.asarray(x, jnp.float64)) for x in parameters)
    if value.ndim == 2:
        value, key_query = value[None], key_query[None]
    p1, p2 = value[:, -1, :-1], value[:, -1, -1]
    v1, v2 = key_query[:, :-1, :-1], key_query[:, -1, :-1]
    b = p1[:, :, None] * v2[:, None, :] + p2[:, None, None] * v1
    worst = int(np.linalg.cond(b).argmax())
    if not np.linalg.cond(b[worst]) < 1 / np.finfo(float).eps:
        raise ValueError(
            f"layer {worst}: B must be invertible, found condition number "
            f"{np.linalg.cond(b[worst]):.3g}: the layer was not trained, or diverged"
        )
    raw = np.linalg.inv(b)
    even = (raw + np.swapaxes(raw, -1, -2)) / 2
    size = np.linalg.norm(raw, axis=(-2, -1))
    sides = np.linalg.norm(p1, axis=-1) / np.abs(p2)
    below = np.linalg.norm(v2, axis=-1) / np.linalg.norm(v1, axis=(-2, -1))
    count = len(even)
    error = np.full(even.shape[1:], np.nan)
    if count > 1:
        error = even.std(axis=0, ddof=1) / np.sqrt(count)
    return GammaEstimate(
        gamma=even.mean(axis=0),
        standard_error=error,
        asymmetry=float((np.linalg.norm(raw - even, axis=(-2, -1)) / size).max()),
        outside=float(np.maximum(sides, below).max()),
    )
