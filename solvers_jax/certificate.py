"""Certified bounds in units of reward, and when they are close enough.

Two bounds are close enough if

    upper - lower ≤ gap max(|lower|, |upper|)   or   upper - lower ≤ atol.

The first is relative to the value and not to the range of the rewards, which one large
penalty can make arbitrarily wide. The second is a floor: without it, an optimal value
of 0 is never reached.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sdm.solvers_jax.belief_model import (
    BeliefModel,
    Units,
    annuities,
    impossible,
    terms,
)


class Certified(NamedTuple):
    """Bounds in units of reward, and the rounding error that they include."""

    lower: Float[np.ndarray, " b"]
    upper: Float[np.ndarray, " b"]
    slack: Float[np.ndarray, " b"]


@dataclass(frozen=True)
class Certificate:
    """Conversion of standardised values of a batch to certified ones, in rewards.

    Attributes:
        scale: range of the rewards.
        offset: value of the centre of the rewards, paid at every stage.
        sums: sums of rounding errors in a value: stages times terms of a stage.
        unit: relative rounding error of one operation.
        terms: largest sum of the sizes of these terms, for any policy.
        gain: the same for their positive part.
        centre: rounding error of the centre.

    """

    scale: Float[np.ndarray, " B"]
    offset: Float[np.ndarray, " B"]
    sums: float
    unit: float
    terms: Float[np.ndarray, " B"]
    gain: Float[np.ndarray, " B"]
    centre: Float[np.ndarray, " B"]

    def rounding(
        self,
        value: Float[np.ndarray, " b"],
        tasks: Int[np.ndarray, " b"] | None = None,
        *,
        unit: type[np.floating] | None = None,
    ) -> Float[np.ndarray, " b"]:
        """Return a bound on the rounding error of values, by which they are widened.

        It assumes T stages of sums over states and symbols, and an error below one unit
        in the last place per term. The terms of a value are rewards times their
        probability. With positive part r⁺ and negative part r⁻, the value v of a policy
        is E Σ r⁺ - E Σ r⁻, so that E Σ |r| = 2 E Σ r⁺ - v ≤ 2 T max r⁺ - v: a large
        penalty that the policy avoids adds no error. The bound adds the same for the
        centre of the rewards, which is subtracted and added again, and the deviation of
        row sums from 1 that `standardise` permits.

        Args:
            value: standardised values of the chosen tasks.
            tasks: their indices; None for all tasks.
            unit: precision of the sums; None for that of the model.

        """
        one = self.unit if unit is None else float(np.finfo(unit).eps)
        some = slice(None) if tasks is None else tasks
        size = np.minimum(self.terms[some], 2 * self.gain[some] + np.abs(value))
        return one * self.sums * size * self.scale[some] + self.centre[some]

    def bounds(
        self,
        lower: Float[np.ndarray, " b"],
        upper: Float[np.ndarray, " b"],
        tasks: Int[np.ndarray, " b"] | None = None,
    ) -> Certified:
        """Return standardised bounds in units of reward, widened by rounding errors.

        A lower bound is -inf if every plan takes an action that is not admissible.

        Raises:
            ValueError: if an upper bound says that no policy avoids such actions.

        """
        if (never := impossible(upper)).any():
            raise ValueError(
                "admissible: no policy avoids actions that are not admissible in "
                f"{int(never.sum())} of {never.size} tasks: some beliefs that it "
                "reaches have no action that is admissible in all possible states"
            )
        some = slice(None) if tasks is None else tasks
        low, high = (self.rounding(x, tasks) for x in (lower, upper))
        scale, offset = self.scale[some], self.offset[some]
        below = np.where(impossible(lower), -np.inf, scale * lower + offset - low)
        slack = np.maximum(np.where(np.isfinite(below), low, 0), high)
        return Certified(below, scale * upper + offset + high, slack)


def certificate(model: BeliefModel, units: Units, horizon: int) -> Certificate:
    """Return the certificate of a batch of tasks with standardised rewards.

    Args:
        model: tasks with one leading axis.
        units: the scaling of their rewards.
        horizon: number of decisions T.

    """
    reward = np.asarray(model.reward)
    return certificate_of(
        reward,
        units,
        stages=float(horizon),
        annuity=np.asarray(annuities(model.discount, horizon)[:, -1]),
        length=terms(model),
        unit=float(np.finfo(reward.dtype).eps),
    )


def certificate_of(
    reward: Float[np.ndarray, "B ... S A"],
    units: Units,
    *,
    stages: float,
    annuity: Float[np.ndarray, " B"],
    length: int,
    unit: float,
) -> Certificate:
    """Return the certificate of tasks from their standardised rewards.

    Args:
        reward: the rewards, with an axis of stages if they depend on it.
        units: their scaling.
        stages: number of decisions, or 1 / (1 - γ) without a horizon.
        annuity: value of a reward of 1 in every stage.
        length: number of terms of the longest sums.
        unit: relative rounding error of one operation.

    """
    centre, reward = np.asarray(units.centre), reward.reshape(len(reward), -1)
    return Certificate(
        scale=np.asarray(units.scale),
        offset=centre * annuity,
        sums=stages * length,
        unit=unit,
        terms=stages * np.abs(np.where(impossible(reward), 0, reward)).max(-1),
        gain=stages * np.maximum(reward.max(-1), 0),
        centre=unit * stages * (4 + length * stages) * np.abs(centre),
    )


def relative_gap(
    lower: Float[np.ndarray, "*b"], upper: Float[np.ndarray, "*b"]
) -> Float[np.ndarray, "*b"]:
    """Return the width of an interval relative to its larger end in absolute value."""
    lower, upper = np.asarray(lower), np.asarray(upper)
    scale = np.maximum(np.abs(lower), np.abs(upper))
    finite = np.isfinite(scale)
    width = np.where(finite, upper - lower, np.inf)
    return np.asarray(width / np.where(finite & (scale > 0), scale, 1))


def close(
    lower: Float[np.ndarray, "*b"],
    upper: Float[np.ndarray, "*b"],
    gap: float,
    atol: float | Float[np.ndarray, "*b"],
) -> Bool[np.ndarray, "*b"]:
    """Return whether intervals are at most `gap` wide, relatively, or `atol` wide."""
    return (relative_gap(lower, upper) <= gap) | (upper - lower <= atol)
