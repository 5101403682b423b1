"""From preferences of a judge to scores of states, with checks and measurements."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sdm.feedback.bradley_terry import fit_scores
from sdm.feedback.comparisons import (
    Preferences,
    Progress,
    ask,
    choose_pairs,
    hold_out,
)
from sdm.feedback.fit_quality import quality
from sdm.feedback.identifiability import (
    Identifiability,
    check_identifiable,
    pairs_identify,
    segments_identify,
)
from sdm.feedback.judge import Judge
from sdm.feedback.judges.synthetic import SAME
from sdm.feedback.subjects import Subjects
from sdm.storage.checks import check_count, check_tolerance


@dataclass(frozen=True)
class RewardConfig:
    """How preferences are asked for and fitted.

    Attributes:
        comparisons: most comparisons per task.
        segment: decisions in a compared trajectory segment; 0 to compare single states.
        penalty: penalty λ of the scores, λ/2 Σ r²; 0 for maximum likelihood.
        held_out: share of the comparisons that measure the fit.
        most_outside: largest share of answers outside of the judge's choices.
        goal: what the agent wants, in words; the family's text by default.
        support: episodes of the oracle that the judge reads; every task is then judged.

    """

    comparisons: int = 5000
    segment: int = 0
    penalty: float = 0.01
    held_out: float = 0.1
    most_outside: float = 0.5
    goal: str = ""
    support: int = 0

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        check_count("comparisons", self.comparisons, 1)
        check_count("segment", self.segment, 0)
        check_count("support", self.support, 0)
        check_tolerance("penalty", self.penalty)
        for name in ("held_out", "most_outside"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} = {getattr(self, name)}: must be 0 or more, and below 1"
                )


@dataclass(frozen=True)
class RewardModel:
    """Scores of the states of one task.

    Attributes:
        scores: score of each state, in log-odds; the mean is zero.
        report: measurements, as JSON values.

    """

    scores: Float[np.ndarray, " S"]
    report: dict[str, Any]


def learn_reward(
    judge: Judge,
    subjects: Subjects,
    config: RewardConfig,
    *,
    seed: Sequence[int],
    kept: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> RewardModel:
    """Ask a judge, check the preferences, fit the scores of states and measure them.

    The measurements are of a fit without the held-out comparisons; the scores are of a
    fit to all.

    Args:
        judge: the judge.
        subjects: what is compared.
        config: how it is compared.
        seed: entropy of pairs, answers and held-out comparisons.
        kept: prefix of the files that store answers for a resumed run.
        progress: called with the number of answered and of all comparisons.

    Raises:
        DegeneratePreferences: if the preferences determine no scores.
        JudgeError: if the judge answers outside of its choices.

    """
    items = subjects.items
    count = len(items.captions)
    pairs = choose_pairs(count, config.comparisons, seed=[*seed, 0])
    found = ask(
        judge,
        items,
        pairs,
        seed=[*seed, 1],
        most_outside=config.most_outside,
        kept=kept,
        progress=progress,
    )
    identified = _checked(subjects, found, config)
    out = hold_out(found, count, config.held_out, seed=[*seed, 2])
    design = subjects.visits[found.pairs[:, 0]] - subjects.visits[found.pairs[:, 1]]
    fit = fit_scores(design, found.outcome, penalty=config.penalty)
    report: dict[str, Any] = {
        "asked": found.asked,
        "outside": found.outside,
        "judge_accuracy": judge_accuracy(found, items.value),
        "ties": identified.ties,
        "separable": identified.separable,
        "converged": fit.converged,
    }
    if out.any():
        part = fit_scores(design[~out], found.outcome[~out], penalty=config.penalty)
        measured = quality(design[out] @ part.scores, found.outcome[out])
        report |= {
            "held_out": measured.comparisons,
            "accuracy": measured.accuracy,
            "log_loss": measured.log_loss,
            "calibration_error": measured.calibration_error,
            "bins": measured.bins,
        }
    return RewardModel(fit.scores, report)


def _checked(
    subjects: Subjects, found: Preferences, config: RewardConfig
) -> Identifiability:
    """Return what preferences determine; raise an error if it is too little."""
    if subjects.single:
        identified = pairs_identify(found.pairs, found.outcome, len(subjects.states))
        check_identifiable(identified, subjects.states, penalty=config.penalty)
        return identified
    visits = subjects.visits
    design = visits[found.pairs[:, 0]] - visits[found.pairs[:, 1]]
    identified = segments_identify(design, found.outcome)
    check_identifiable(
        identified,
        subjects.states,
        penalty=config.penalty,
        unit="directions of scores on which no comparison depends",
        hint="random episodes must reach every state: raise `--horizon` or "
        "`--comparisons`, or compare states with `--segment 0`",
    )
    return identified


def judge_accuracy(found: Preferences, value: Float[np.ndarray, " N"]) -> float:
    """Return the share of preferences for the item of higher exact quality.

    A tie between items of different quality is half correct; pairs of equal quality do
    not count. The result is nan if there is no other pair.
    """
    lead = value[found.pairs[:, 0]] - value[found.pairs[:, 1]]
    differ = np.abs(lead) > SAME * np.ptp(value)
    agreed = np.where(lead > 0, found.outcome, 1 - found.outcome)[differ]
    return float(agreed.mean()) if differ.any() else float("nan")
