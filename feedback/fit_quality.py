"""Quality of a fitted reward on comparisons that it was not fitted to."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit
from scipy.stats import rankdata

from sdm.feedback.bradley_terry import cross_entropy

BINS = 10
DIGITS = 6  # scores that are equal up to this many digits of their range are ties


@dataclass(frozen=True)
class Quality:
    """Predictions of held-out comparisons.

    Attributes:
        comparisons: number of held-out comparisons.
        accuracy: share of decided comparisons whose winner has the higher score; nan if
            all are ties.
        log_loss: mean cross-entropy, in nats; log 2 = 0.693 for a coin.
        calibration_error: expected calibration error: mean absolute difference of the
            predicted and the observed share of wins, over bins of the predictions.
        bins: for each bin in use, the mean prediction, the observed share and the
            number of comparisons.

    """

    comparisons: int
    accuracy: float
    log_loss: float
    calibration_error: float
    bins: tuple[tuple[float, float, int], ...]


def quality(z: Float[np.ndarray, " C"], outcome: Float[np.ndarray, " C"]) -> Quality:
    """Return the quality of predictions.

    Every comparison counts in both directions, as P and 1 − P, so that the result does
    not depend on which item comes first.

    Args:
        z: predicted log-odds of the first item.
        outcome: 1 if the first was preferred, 0 if the second, 0.5 for a tie.

    Raises:
        ValueError: if there is no comparison.

    """
    if not len(z):
        raise ValueError("quality: at least one held-out comparison is needed")
    decided = outcome != 0.5
    right = np.where(z == 0, 0.5, (z > 0) == (outcome > 0.5))[decided]
    chance = expit(np.concatenate([z, -z]))
    observed = np.concatenate([outcome, 1 - outcome])
    bin_of = np.minimum((chance * BINS).astype(int), BINS - 1)
    bins = tuple(
        (float(chance[mine].mean()), float(observed[mine].mean()), int(mine.sum()))
        for mine in (bin_of == each for each in range(BINS))
        if mine.any()
    )
    error = sum(abs(p - share) * n for p, share, n in bins) / len(chance)
    return Quality(
        comparisons=len(z),
        accuracy=float(right.mean()) if decided.any() else float("nan"),
        log_loss=float(cross_entropy(z, outcome).mean()),
        calibration_error=float(error),
        bins=bins,
    )


def rank_correlation(
    scores: Float[np.ndarray, " N"], value: Float[np.ndarray, " N"]
) -> float:
    """Return Spearman's rank correlation; nan if scores or values are all equal.

    Numbers that differ by rounding only have the same rank.
    """
    ranks = [rankdata(_rounded(x)) for x in (scores, value)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _rounded(x: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    spread = np.ptp(x)
    return np.round((x - x.min()) / spread, DIGITS) if spread > 0 else np.zeros(len(x))
