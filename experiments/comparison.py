"""Compare two policies in every test that both were run in.

A policy is named by its label, and by values if several of its cells share a test:
`tiny`, or `tiny,learn.loss=actions`.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdm.experiments.grid_cells import cells
from sdm.experiments.intervals import (
    Difference,
    NotComparableError,
    holm,
    over_seeds,
    paired,
)
from sdm.experiments.rows import Row, found_rows
from sdm.experiments.spec import (
    MEASURES,
    Cell,
    Experiment,
    ExperimentError,
    key_of,
    plain,
)

Run = tuple[Cell, Row]


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
    tests: dict[str, list[str]] = {first: [], second: []}
    found: dict[str, Comparison] = {}
    for experiment in chosen:
        found_here = found_rows(experiment, profile, results)
        runs = [(cell, row) for cell, row in found_here if row is not None]
        ours, theirs = (_groups(_select(name, runs)) for name in (first, second))
        for name, groups in ((first, ours), (second, theirs)):
            tests[name] += [
                f"{experiment.name}: {_about(experiment, g)}" for g in groups.values()
            ]
        for key, group in ours.items():
            for other, against in _same_test(group, theirs):
                if key != other and f"{key} {other}" not in found:
                    one = _compare(experiment, group, against, measure)
                    if one is not None:
                        found[f"{key} {other}"] = one
    if not found:
        raise _no_common_test(first, second, tests, chosen, profile)
    made = list(found.values())
    p_values = [x.difference.p if x.difference else None for x in made]
    corrected = iter(holm([p for p in p_values if p is not None]))
    return [
        x if p is None else dataclasses.replace(x, p_corrected=next(corrected))
        for x, p in zip(made, p_values, strict=True)
    ]


def _select(name: str, runs: Sequence[Run]) -> list[Run]:
    """Return the runs of a policy named by its label and values."""
    label, *wanted = name.split(",")
    found = [run for run in runs if run[0].policy == label]
    for each in wanted:
        dotted, sign, value = each.partition("=")
        if not sign:
            raise ExperimentError(
                f"policy `{name}`: `{each}` is not NAME=VALUE",
                "examples: tiny,learn.loss=actions and tiny,data.q=0.6",
            )
        found = [run for run in found if plain(run[0].value(dotted)) == value]
    return found


def _groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs that differ in their seeds only, by a key."""
    groups: dict[str, list[Run]] = {}
    for cell, row in runs:
        spec = {k: x for k, x in cell.spec.items() if k != "seed"}
        groups.setdefault(key_of(spec), []).append((cell, row))
    return groups


def _same_test(
    group: Sequence[Run], others: dict[str, list[Run]]
) -> list[tuple[str, list[Run]]]:
    """Return the others with the same test: those with the same data, if there are."""
    cell = group[0][0]
    found = [
        (key, other)
        for key, other in others.items()
        if key_of(other[0][0].test) == key_of(cell.test)
    ]
    alike = [x for x in found if key_of(x[1][0][0].data) == key_of(cell.data)]
    return alike or found


def _compare(
    experiment: Experiment, first: Sequence[Run], second: Sequence[Run], measure: str
) -> Comparison | None:
    ours, theirs = ({cell.seed: row for cell, row in g} for g in (first, second))
    seeds = tuple(seed for seed in ours if seed in theirs)
    if not seeds:
        return None
    pairs = [(ours[seed]["result"], theirs[seed]["result"]) for seed in seeds]
    trained = first[0][0].trains or second[0][0].trains
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
    about = max((_about(experiment, x) for x in (first, second)), key=len)
    return Comparison(
        experiment.name, about, mean, other, difference, seeds, trained, why=why
    )


def _about(experiment: Experiment, group: Sequence[Run]) -> str:
    """Return the test of a group, and its value on the axis if that adds something."""
    cell, text = group[0][0], group[0][0].condition
    if experiment.x in ("condition", "tasks"):
        return text
    x = cell.value(experiment.x)
    shown = experiment.x in cell.shows.values() or x is None
    return text if shown else f"{text}, {experiment.x_title}: {plain(x)}"


def _no_common_test(
    first: str,
    second: str,
    tests: dict[str, list[str]],
    chosen: Sequence[Experiment],
    profile: str,
) -> ExperimentError:
    for name in (first, second):
        if not tests[name]:
            labels = {c.policy for e in chosen for c in cells(e, profile)}
            return ExperimentError(
                f"policy `{name}`: no row in profile `{profile}`",
                f"policies of these experiments are {', '.join(sorted(labels))}",
            )
    parts = (f"`{name}` in {'; '.join(tests[name])}" for name in (first, second))
    return ExperimentError(
        f"`{first}` and `{second}` were tested on different tasks in every experiment",
        f"a paired difference needs the same tasks; rows are of {', '.join(parts)}",
    )


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
