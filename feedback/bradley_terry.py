r"""Bradley–Terry model: scores of items from preferences between pairs.

    P(first preferred) = σ(z),   z = Σ_n D_n r_n

D has one row for each comparison. For single items i and j, D = e_i − e_j and
P = exp(r_i) / (exp(r_i) + exp(r_j)) (Bradley and Terry, 1952). For trajectory segments,
D is the difference of their visits to each state (Christiano et al., 2017). The scores
minimise the cross-entropy, in which a tie counts as half a win of either (Klissarov et
al., 2024), plus λ/2 Σ r².

The loss is convex. SciPy's trust-region Newton method minimises it with products of the
sparse Hessian D'WD and a vector, in O(C) operations each for C comparisons. Scores of
connected items are determined up to a constant: the mean of each connected component
is zero.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit

from sdm.storage.checks import check_tolerance

# Largest derivative of the mean loss per comparison at the solution. Scores then have
# errors of this size divided by the smallest curvature in the mean loss.
GRADIENT = 1e-10


@dataclass(frozen=True)
class Fit:
    """Scores fitted to preferences.

    Attributes:
        scores: score of each item, in log-odds; the mean is zero.
        loss: mean cross-entropy of a comparison, in nats, without the penalty.
        converged: whether the gradient reached `GRADIENT`.
        iterations: iterations of Newton's method.

    """

    scores: Float[np.ndarray, " N"]
    loss: float
    converged: bool
    iterations: int


def pair_design(pairs: Int[np.ndarray, "C 2"], items: int) -> sparse.csr_array:
    """Return D [C, N] of comparisons between single items: e_first − e_second.

    Raises:
        ValueError: if an item does not exist, or is compared with itself.

    """
    pairs = np.asarray(pairs)
    wrong = (pairs < 0) | (pairs >= items)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"pairs[{row}, {column}] = {pairs[row, column]}: must be an item, 0 to "
            f"{items - 1}"
        )
    same = np.flatnonzero(pairs[:, 0] == pairs[:, 1])
    if same.size:
        raise ValueError(
            f"pairs[{same[0]}] compares item {pairs[same[0], 0]} with itself"
        )
    count = len(pairs)
    signs = np.tile([1.0, -1.0], count)
    ends = np.arange(0, 2 * count + 1, 2)
    return sparse.csr_array((signs, pairs.ravel(), ends), shape=(count, items))


def fit_scores(
    design: sparse.csr_array,
    outcome: Float[np.ndarray, " C"],
    *,
    penalty: float = 0.0,
    iterations: int = 500,
) -> Fit:
    """Fit the scores of N items to C comparisons.

    Args:
        design: D [C, N], from `pair_design` or `segment_design`.
        outcome: 1 if the first was preferred, 0 if the second, 0.5 for a tie.
        penalty: λ of the penalty λ/2 Σ r²; with 0, the scores of separable preferences
            are infinite: see `identifiability`.
        iterations: most iterations of Newton's method.

    Returns:
        The fit; `converged` is False if the gradient is too large.

    Raises:
        ValueError: if there is no comparison, or an outcome is not in [0, 1].

    """
    check_tolerance("penalty", penalty)
    outcome = np.asarray(outcome, np.float64)
    count, items = design.shape
    if count == 0:
        raise ValueError("outcome: at least one comparison is needed, found none")
    if outcome.shape != (count,):
        raise ValueError(f"outcome has shape {outcome.shape}: must be {(count,)}")
    wrong = ~((outcome >= 0) & (outcome <= 1))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"outcome[{row}] = {outcome[row]}: must lie in [0, 1]")
    turned = design.T.tocsr()

    def loss(scores: np.ndarray) -> tuple[float, np.ndarray]:
        z = design @ scores
        value = cross_entropy(z, outcome).sum() + penalty / 2 * scores @ scores
        slope = turned @ (expit(z) - outcome) + penalty * scores
        return value / count, slope / count

    def curvature(scores: np.ndarray, direction: np.ndarray) -> np.ndarray:
        chance = expit(design @ scores)
        bent = turned @ (chance * (1 - chance) * (design @ direction))
        return (bent + penalty * direction) / count

    # Starting from zero, every step lies in the space that comparisons determine.
    found = minimize(
        loss,
        np.zeros(items),
        jac=True,
        hessp=curvature,
        method="trust-ncg",
        options={"gtol": GRADIENT, "maxiter": iterations},
    )
    scores = np.asarray(found.x, np.float64)
    steepest = float(np.linalg.norm(loss(scores)[1]))
    return Fit(
        scores=scores,
        loss=float(cross_entropy(design @ scores, outcome).mean()),
        # Rounding may end the search a little earlier.
        converged=steepest <= 100 * GRADIENT,
        iterations=int(found.nit),
    )


def cross_entropy(
    z: Float[np.ndarray, " C"], outcome: Float[np.ndarray, " C"]
) -> Float[np.ndarray, " C"]:
    """Return −y log σ(z) − (1 − y) log σ(−z) of each comparison, in nats."""
    return np.logaddexp(0, z) - outcome * z
