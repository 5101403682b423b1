"""Verdicts on published claims, from differences over seeds.

A claim says that a difference is positive. It is confirmed if its 95 % Student-t
interval over seeds lies above zero, refuted if it lies at or below zero, and undecided
otherwise, as it is from a single seed, which has no interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["confirmed", "refuted", "undecided"]
VERDICTS: tuple[Verdict, ...] = ("confirmed", "refuted", "undecided")
FEW = 3  # most cases with one verdict that a sentence lists
RULE = (
    "Verdicts on claims are by 95 % intervals over seeds (Student's t), each case by "
    "itself: unlike paired tests, they are not corrected for their number, and cases "
    "that share a training are not independent."
)


@dataclass(frozen=True)
class Case:
    """A difference that a claim says is positive.

    Attributes:
        where: the case in words.
        mean: mean over seeds.
        low: lower end of its interval; None for a single seed.
        high: upper end; None likewise.

    """

    where: str
    mean: float
    low: float | None
    high: float | None

    def verdict(self, rounding: float) -> Verdict:
        """Return whether the difference is positive, given its rounding error."""
        if self.low is None or self.high is None:
            return "undecided"
        if self.low > rounding:
            return "confirmed"
        return "refuted" if self.high <= rounding else "undecided"

    def text(self, unit: str) -> str:
        """Return the case with its mean and interval."""
        ends = "one seed"
        if self.low is not None and self.high is not None:
            ends = f"{plus(self.low)} to {plus(self.high)}"
        return f"{self.where}: {plus(self.mean)} {unit}, {ends}"


def case(where: str, differences: Sequence[float]) -> Case:
    """Return a case from the difference of each seed."""
    from sdm.feedback.cells import interval

    found: dict[str, Any] = interval(list(differences))
    return Case(where, found["mean"], found["ci_low"], found["ci_high"])


def judged(cases: Sequence[Case], unit: str, rounding: float = 0.0) -> str:
    """Return the verdicts on the cases of a claim, each with its cases.

    Args:
        cases: at least one case.
        unit: unit of the differences.
        rounding: largest difference that rounding explains, in this unit.

    """
    parts = []
    for verdict in VERDICTS:
        of_it = [each for each in cases if each.verdict(rounding) == verdict]
        if not of_it:
            continue
        shown = "; ".join(each.text(unit) for each in of_it)
        if len(of_it) > FEW:
            ends = sorted(each.mean for each in of_it)
            shown = f"{plus(ends[0])} to {plus(ends[-1])} {unit}"
        count = f" in {len(of_it)} of {len(cases)} cases" if len(cases) > 1 else ""
        parts.append(f"{verdict}{count} ({shown})")
    return ", ".join(parts)


def claim_text(
    claim: str, cases: Mapping[str, Sequence[Case]], unit: str, rounding: float = 0.0
) -> list[str]:
    """Return a sentence with the verdicts on a claim; none without cases.

    Args:
        claim: the claim, as a main clause.
        cases: the cases in each setting, by its name.
        unit: unit of the differences.
        rounding: as in `judged`.

    """
    known = [
        f"in {name}, {judged(each, unit, rounding)}"
        for name, each in cases.items()
        if each
    ]
    return [f"{claim}: {'; '.join(known)}."] if known else []


def ruled(texts: Sequence[str]) -> list[str]:
    """Return sentences with verdicts, and the rule by which they are made."""
    return [*texts, RULE] if texts else []


def plus(value: float) -> str:
    """Return a number with its sign; -0.0 is shown as +0.00."""
    return f"{round(value, 2) + 0.0:+.2f}"
