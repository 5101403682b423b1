"""Compare two policies in every test that both were run in."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdm.experiments.intervals import (
    Difference,
    NotComparableError,
    holm,
    over_seeds,
    paired,
)
from sdm.experiments.not_comparable import explain
from sdm.experiments.origin import trains
from sdm.experiments.policy_runs import (
    Group,
    about,
    named_groups,
    runs_in_tests,
    same_tests,
)
from sdm.experiments.spec import MEASURES, Experiment, ExperimentError


@dataclass(frozen=True)
class Comparison:
    """Two policies in one test.

    Attributes:
        experiment: name of the experiment.
        condition: short description of the test.
        first: mean gap of the first policy over seeds, in per cent.
        second: that of the second.
        difference: the first's gap minus the second's, paired by task; None if it is
            not known.
        seeds: random seeds that both were run with.
        trained: whether either policy is trained.
        p_corrected: p-value corrected for the number of comparisons; None likewise.
        why: why the difference is not known; "" if it is.

    """

    experiment: str
    condition: str
    first: float
    second: float
    difference: Difference | None
    seeds: tuple[int, ...]
    trained: bool
    p_corrected: float | None = None
    why: str = ""

    @property
    def note(self) -> str:
        """What limits the comparison; "" if nothing does."""
        if self.why:
            return self.why
        if self.trained and len(self.seeds) == 1:
            return "one training seed: the interval is over tasks only"
        return ""


def compare(
    first: str,
    second: str,
    chosen: Sequence[Experiment],
    profile: str,
    results: Path,
    measure: str = "gap",
) -> list[Comparison]:
    """Compare two policies in every test of the experiments that both were run in.

    Args:
        first: the first policy.
        second: the second policy.
        chosen: experiments to search.
        profile: name of the profile.
        results: folder of the user's own rows.
        measure: measure to compare, see `spec.MEASURES`.

    Raises:
        ExperimentError: if the measure is unknown, a policy has no row, or they share
            no test.

    """
    if measure not in MEASURES:
        raise ExperimentError(
            f"unknown measure `{measure}`", f"measures are {', '.join(MEASURES)}"
        )
    ours, theirs = (
        named_groups(name, chosen, profile, results) for name in (first, second)
    )
    tried = (_compare(*pair, measure) for pair in same_tests(ours, theirs))
    made = [one for one in tried if one is not None]
    if not made:
        others = [cell for cell, _ in runs_in_tests(chosen, profile, results)]
        raise explain({first: ours, second: theirs}, others, chosen, profile)
    corrected = holm([x.difference.p if x.difference else None for x in made])
    return [
        dataclasses.replace(x, p_corrected=p)
        for x, p in zip(made, corrected, strict=True)
    ]


def _compare(ours_in: Group, theirs_in: Group, measure: str) -> Comparison | None:
    (experiment, first), (another, second) = ours_in, theirs_in
    ours, theirs = ({cell.seed: row for cell, row in g} for g in (first, second))
    seeds = tuple(seed for seed in ours if seed in theirs)
    if not seeds:
        return None
    pairs = [(ours[seed]["result"], theirs[seed]["result"]) for seed in seeds]
    trained = trains(first[0][0]) or trains(second[0][0])
    difference, why = None, ""
    mean = other = float("nan")
    try:
        mean, other = (
            over_seeds([row[side] for row in pairs], measure, trained=trained).mean
            for side in (0, 1)
        )
        difference = paired(pairs, measure, trained=trained)
    except NotComparableError as error:
        why = str(error)
    where = about(experiment, first[0][0], second[0][0])
    names = " and ".join(dict.fromkeys((experiment.name, another.name)))
    return Comparison(names, where, mean, other, difference, seeds, trained, why=why)


def _known(value: float) -> float | None:
    """Return a value, and None if it could not be computed."""
    return None if math.isnan(value) else value


def as_row(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values, in per cent."""
    found = comparison.difference
    return {
        "experiment": comparison.experiment,
        "test": comparison.condition,
        "first": _known(comparison.first),
        "second": _known(comparison.second),
        "difference": found and found.mean,
        "ci_low": found and found.low,
        "ci_high": found and found.high,
        "p": found and found.p,
        "p_corrected": comparison.p_corrected,
        "by_seed": found and list(found.seeds),
        "seeds": list(comparison.seeds),
        "tasks": found and found.tasks,
        "estimator": found and found.estimator,
        "note": comparison.note,
    }
