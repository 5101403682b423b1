"""`synthetic:ACCURACY`: a judge that knows the exact values and errs at random.

It prefers the item of higher value with probability ACCURACY, and the other one
otherwise. Items of equal value are ties. Judges of different accuracies use common
random numbers: with the same seed, the better one errs in a subset of the comparisons.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from sdm.feedback.judge import (
    FIRST,
    SECOND,
    TIE,
    Items,
    JudgeError,
    register_judge,
)

SAME = 1e-9  # difference of values, relative to their range, that rounding explains


@dataclass(frozen=True)
class SyntheticJudge:
    """A judge of known accuracy.

    Attributes:
        accuracy: probability of a correct answer, in [0, 1]; 0.5 is a coin.

    """

    accuracy: float

    reads_task = True
    needs_torch = False
    together = 10**7  # it is fast: nothing is stored in between

    def __post_init__(self) -> None:
        """Raise `JudgeError` unless the accuracy is a probability."""
        if not 0 <= self.accuracy <= 1:
            raise JudgeError(
                f"judge `synthetic`: accuracy = {self.accuracy:g}: must lie between 0 "
                "and 1"
            )

    @property
    def name(self) -> str:
        """Return `synthetic:ACCURACY`."""
        return f"synthetic:{self.accuracy:g}"

    def compare(
        self, items: Items, pairs: Int[np.ndarray, "C 2"], *, seed: Sequence[int]
    ) -> Int[np.ndarray, " C"]:
        """Prefer the higher value, except in random errors."""
        value = np.asarray(items.value, np.float64)
        lead = value[pairs[:, 0]] - value[pairs[:, 1]]
        uniform = np.random.default_rng(list(seed)).random(len(pairs))
        right = np.where(lead > 0, FIRST, SECOND)
        wrong = np.where(lead > 0, SECOND, FIRST)
        answer = np.where(uniform < self.accuracy, right, wrong)
        return np.where(np.abs(lead) <= SAME * np.ptp(value), TIE, answer)

    def is_new(
        self,
        caption: str,
        history: Sequence[str],
        *,
        seed: Sequence[int],
    ) -> bool:
        """Say whether the history lacks the caption, except in random errors."""
        right = np.random.default_rng(list(seed)).random() < self.accuracy
        return (caption not in history) == bool(right)


@register_judge("synthetic")
def synthetic(argument: str) -> SyntheticJudge:
    """Return the judge of an accuracy in words; 1 if there is none.

    Raises:
        JudgeError: if the accuracy is not a number.

    """
    try:
        accuracy = float(argument or "1")
    except ValueError:
        raise JudgeError(
            f"judge `synthetic`: the accuracy must be a number, found `{argument}`",
            "pass `--judge synthetic:0.8`",
        ) from None
    return SyntheticJudge(accuracy)
