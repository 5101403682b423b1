"""The runs of a policy, and which of two policies are in the same test.

A policy is named by its label, and by values if several of its cells share a test:
`tiny`, or `tiny,learn.loss=actions`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sdm.experiments.rows import Row, found_rows
from sdm.experiments.spec import Cell, Experiment, ExperimentError, key_of, plain

Run = tuple[Cell, Row]
Group = tuple[Experiment, list[Run]]
Groups = dict[str, Group]


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
        for cell, row in _select(name, runs_in_tests([experiment], profile, results)):
            spec = {k: x for k, x in cell.spec.items() if k != "seed"}
            group = here.setdefault(key_of(spec), (experiment, []))
            group[1].append((cell, row))
        for key, found_here in here.items():
            if key not in groups or _values(found_here) > _values(groups[key]):
                groups[key] = found_here
    return groups


def runs_in_tests(
    chosen: Sequence[Experiment], profile: str, results: Path
) -> list[Run]:
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
