"""Compare two policies in every test that both were run in.

A policy is named by its label, and by values if several of its cells share a test:
`tiny`, or `tiny,learn.loss=actions`.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
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
from sdm.experiments.origin import trains
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
Group = tuple[Experiment, list[Run]]
Groups = dict[str, Group]


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
        from sdm.experiments.not_comparable import explain

        others = [cell for cell, _ in _runs(chosen, profile, results)]
        raise explain({first: ours, second: theirs}, others, chosen, profile)
    corrected = holm([x.difference.p if x.difference else None for x in made])
    return [
        dataclasses.replace(x, p_corrected=p)
        for x, p in zip(made, corrected, strict=True)
    ]


def split_name(name: str) -> tuple[str, list[tuple[str, str]]]:
    """Split the name of a policy into its label and its values by dotted names.

    Raises:
        ExperimentError: if a part is not NAME=VALUE.

    """
    label, *wanted = name.split(",")
    values = []
    for each in wanted:
        dotted, sign, value = each.partition("=")
        if not sign:
            raise ExperimentError(
                f"policy `{name}`: `{each}` is not NAME=VALUE",
                "examples: tiny,learn.loss=actions and tiny,data.q=0.6",
            )
        values.append((dotted, value))
    return label, values


def _select(name: str, runs: Sequence[Run]) -> list[Run]:
    """Return the runs of a policy named by its label and values."""
    label, wanted = split_name(name)
    found = [run for run in runs if run[0].policy == label]
    for dotted, value in wanted:
        found = [run for run in found if plain(run[0].value(dotted)) == value]
    return found


def named_groups(
    name: str, chosen: Sequence[Experiment], profile: str, results: Path
) -> Groups:
    """Return the runs of a policy that differ in their seeds only, by a key.

    Runs that experiments share are in the first of them with values of each task.
    """
    groups: Groups = {}
    for experiment in chosen:
        here: Groups = {}
        for cell, row in _select(name, _runs([experiment], profile, results)):
            spec = {k: x for k, x in cell.spec.items() if k != "seed"}
            group = here.setdefault(key_of(spec), (experiment, []))
            group[1].append((cell, row))
        for key, found_here in here.items():
            if key not in groups or _values(found_here) > _values(groups[key]):
                groups[key] = found_here
    return groups


def _runs(chosen: Sequence[Experiment], profile: str, results: Path) -> list[Run]:
    """Return the cells of policies in tests, not of studies, that have a row."""
    return [
        (cell, row)
        for experiment in chosen
        if not experiment.study
        for cell, row in found_rows(experiment, profile, results)
        if row is not None
    ]


def _values(group: Group) -> int:
    """Return in how many rows of a group the values of each task are."""
    return sum("returns" in row.get("result", {}) for _, row in group[1])


def same_tests(
    ours: Groups, theirs: Groups, across: str = ""
) -> Iterator[tuple[Group, Group]]:
    """Yield every pair of groups, one of each, that are in the same test.

    Args:
        ours: groups of the first policy.
        theirs: groups of the second.
        across: dotted name of a value in which the tests may differ; "" for none.

    """
    done: set[frozenset[str]] = set()
    for key, group in ours.items():
        for other in _same_test(group[1], theirs, across):
            if key != other and (pair := frozenset((key, other))) not in done:
                done.add(pair)
                yield group, theirs[other]


def _same_test(group: Sequence[Run], others: Groups, across: str = "") -> list[str]:
    """Return the others with the same test: those with the same data, if there are."""

    def test(cell: Cell) -> str:
        return key_of({k: x for k, x in cell.test.items() if f"test.{k}" != across})

    cell = group[0][0]
    tested = {key: runs[0][0] for key, (_, runs) in others.items()}
    found = [k for k, x in tested.items() if test(x) == test(cell)]
    alike = [k for k in found if key_of(tested[k].data) == key_of(cell.data)]
    return alike or found


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


def about(experiment: Experiment, *tested: Cell) -> str:
    """Return the test of cells, with what the axis and the panel add to it.

    Values in which the cells differ are shown as "one against another".
    """
    text = max((cell.condition for cell in tested), key=len)
    shown = {name for cell in tested for name in cell.shows.values()}
    for dotted, title in (
        (experiment.x, experiment.x_title),
        (experiment.facet, experiment.facet_title.strip(" :")),
    ):
        if not title or dotted in shown | {"condition"}:
            continue
        values = [cell.value(dotted) for cell in tested]
        known = dict.fromkeys(plain(x) for x in values if x is not None)
        if known:
            text += f", {title}: {' against '.join(known)}"
    return text


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
