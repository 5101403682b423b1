r"""Regret curves with intervals, and the exponent of their growth.

A replicate is an independent run of T rounds. With Reg_i(t) the cumulative regret of
replicate i after t rounds, the curve is the mean over replicates. If it grows like
t^β, log Reg(t) is linear in log t with slope β: regret is sublinear if β < 1. The
exponent is the least-squares slope over rounds of positive mean regret, and its
interval a percentile bootstrap over replicates. One replicate says little about β.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

RESAMPLES = 1000
LEAST_ROUNDS = 3  # that a fit needs


@dataclass(frozen=True)
class RegretCurve:
    """Mean cumulative regret after each round, with 95 % intervals.

    Attributes:
        mean: mean over replicates.
        low: lower ends (Student's t); NaN for one replicate.
        high: upper ends.

    """

    mean: Float[np.ndarray, " T"]
    low: Float[np.ndarray, " T"]
    high: Float[np.ndarray, " T"]


@dataclass(frozen=True)
class Exponent:
    """Exponent β of the growth of regret, with its 95 % interval.

    Attributes:
        slope: the exponent.
        low: lower end; NaN for one replicate.
        high: upper end.

    """

    slope: float
    low: float
    high: float


def regret_curve(
    regret: Float[np.ndarray, "R T"], *, confidence: float = 0.95
) -> RegretCurve:
    """Return the mean curve of R replicates and its intervals.

    Args:
        regret: regret of each round, not cumulative.
        confidence: level of the intervals.

    Raises:
        ValueError: if there is no replicate.

    """
    _check(regret)
    every = np.cumsum(regret, -1)
    mean, half = every.mean(0), np.full(every.shape[-1], np.nan)
    if len(every) > 1:
        quantile = stats.t.ppf((1 + confidence) / 2, len(every) - 1)
        half = stats.sem(every, axis=0) * quantile
    return RegretCurve(mean, mean - half, mean + half)


def regret_exponent(
    regret: Float[np.ndarray, "R T"],
    *,
    first: int = 1,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> Exponent | None:
    """Return the exponent of the growth of the mean cumulative regret.

    Args:
        regret: regret of each round, not cumulative, of R replicates.
        first: first round of the fit, counted from 1.
        resamples: bootstrap samples.
        confidence: level of the interval.
        seed: seed of the bootstrap.

    Returns:
        The exponent; None if fewer than three rounds have a positive mean regret.

    Raises:
        ValueError: if there is no replicate, or no round from `first` on.

    """
    _check(regret)
    if not 1 <= first <= regret.shape[-1]:
        raise ValueError(
            f"first = {first}: must be a round, 1 to {regret.shape[-1]}, of the curve"
        )
    every = np.cumsum(regret, -1)
    slope = _slopes(every.mean(0)[None], first)[0]
    if np.isnan(slope):
        return None
    low = high = float("nan")
    if len(every) > 1:
        weight = np.random.default_rng(seed).multinomial(
            len(every), np.full(len(every), 1 / len(every)), size=resamples
        )
        slopes = _slopes(weight @ every / len(every), first)
        tail = (1 - confidence) / 2
        ends = np.nanquantile(slopes, (tail, 1 - tail)).tolist()
        low, high = ends
    return Exponent(float(slope), low, high)


def _slopes(curves: Float[np.ndarray, "C T"], first: int) -> Float[np.ndarray, " C"]:
    """Return the slope of log regret on log t; NaN with fewer than three rounds."""
    positive = curves[:, first - 1 :] > 0
    round_ = np.log(np.arange(first, curves.shape[-1] + 1))
    log = np.log(np.where(positive, curves[:, first - 1 :], 1))
    count = positive.sum(-1)
    enough = count >= LEAST_ROUNDS
    share = positive / np.maximum(count, 1)[:, None]
    x = round_ - (share * round_).sum(-1, keepdims=True)
    y = log - (share * log).sum(-1, keepdims=True)
    spread = (share * x**2).sum(-1)
    return np.where(
        enough, (share * x * y).sum(-1) / np.where(enough, spread, 1), np.nan
    )


def _check(regret: Float[np.ndarray, "R T"]) -> None:
    if 0 in regret.shape:
        raise ValueError(
            f"regret has shape {regret.shape}: must have a replicate and a round"
        )
    if not np.isfinite(regret).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(regret))[0])
        raise ValueError(f"regret[{place}] = {regret[place]}: must be finite")
