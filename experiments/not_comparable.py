"""Why two policies cannot be compared: what was found of each, and what to do."""

import difflib
from collections.abc import Iterable, Mapping, Sequence

from sdm.experiments.grid_cells import cells
from sdm.experiments.policy_runs import Groups, about, split_name
from sdm.experiments.spec import Cell, Experiment, ExperimentError, plain

TWO_TRAININGS = "tiny,learn.loss=all and tiny,learn.loss=actions"


def explain(
    groups: Mapping[str, Groups],
    others: Sequence[Cell],
    chosen: Sequence[Experiment],
    profile: str,
) -> ExperimentError:
    """Return the error of policies that share no test.

    Args:
        groups: runs of each policy, by its name.
        others: cells of the experiments that have a row.
        chosen: experiments that were searched.
        profile: name of the profile.

    """
    if all(each.study for each in chosen):
        names = ", ".join(f"`{each.name}`" for each in chosen)
        return ExperimentError(
            f"{names} is a study: it has no policies in tests to compare",
            "its section in the report has the verdicts on its claims",
        )
    if not others:
        return ExperimentError(
            f"profile `{profile}` has no rows of these experiments",
            f"run one first: `sdm experiment run {chosen[0].command} --profile "
            f"{profile}`",
        )
    for name, found in groups.items():
        if not found:
            return _no_row(name, others, chosen, profile)
    first, *rest = groups.values()
    if all(first.keys() & each.keys() for each in rest):
        return ExperimentError(
            f"{' and '.join(f'`{name}`' for name in groups)}: a run cannot be compared "
            "with itself",
            "name two policies, or two trainings of one by their values: "
            + TWO_TRAININGS,
        )
    return _apart(groups)


def _no_row(
    name: str, others: Sequence[Cell], chosen: Sequence[Experiment], profile: str
) -> ExperimentError:
    """Return the error of a policy without a row."""
    label, wanted = split_name(name)
    runs = [cell for cell in others if cell.policy == label]
    for dotted, value in wanted:
        known = [cell for cell in runs if plain(cell.value(dotted)) == value]
        if runs and not known:
            return _no_value(name, dotted, runs)
        runs = known
    listed = {c.policy: each for each in chosen for c in cells(each, profile)}
    if label not in listed:
        labels = sorted({c.policy for c in others})
        close = difflib.get_close_matches(label, labels, n=1)
        return ExperimentError(
            f"policy `{name}`: no row in profile `{profile}`",
            (f"did you mean `{close[0]}`? " if close else "")
            + f"policies with rows are {', '.join(labels)}",
        )
    experiment = listed[label]
    if experiment.study:
        return ExperimentError(
            f"policy `{name}` is part of the study `{experiment.name}`, not in a test",
            "the study's section in the report has the verdicts on its claims",
        )
    return ExperimentError(
        f"policy `{name}`: no row in profile `{profile}`",
        f"run it first: `sdm experiment run {experiment.command} --profile {profile} "
        f"--policy '{label}'`",
    )


def _no_value(name: str, dotted: str, runs: Sequence[Cell]) -> ExperimentError:
    """Return the error of a policy none of whose runs has a value."""
    values = sorted({plain(x) for c in runs if (x := c.value(dotted)) is not None})
    if not values:  # an option that is not set
        part = dotted.partition(".")[0]
        options = sorted({f"{part}.{x}" for cell in runs for x in cell.value(part)})
        return ExperimentError(
            f"policy `{name}`: no row has a value `{dotted}`",
            f"values are {', '.join(options)}",
        )
    return ExperimentError(
        f"policy `{name}`: no row has this value of `{dotted}`",
        f"rows have {', '.join(values)}",
    )


def _apart(groups: Mapping[str, Groups]) -> ExperimentError:
    """Return the error of policies in different tests, with the two nearest."""
    ours, theirs = (
        [(each, [cell for cell, _ in runs]) for each, runs in found.values()]
        for found in groups.values()
    )
    pairs = [(_differences(a[1], b[1]), (a, b)) for a in ours for b in theirs]
    differ, pair = min(pairs, key=lambda one: len(one[0]))
    where = (
        f"`{name}` in {each.name}: {about(each, tested[0])}"
        for name, (each, tested) in zip(groups, pair, strict=True)
    )
    return ExperimentError(
        f"{' and '.join(f'`{name}`' for name in groups)} were tested on different "
        "tasks in every experiment",
        "a paired difference needs the same tasks; the nearest tests are "
        f"{' and '.join(where)}, which differ in {', '.join(differ)}",
    )


def _differences(ours: Sequence[Cell], theirs: Sequence[Cell]) -> list[str]:
    """Return the values in which two tests differ."""
    first, second = ours[0].test, theirs[0].test
    found = [
        f"{name} ({_shown(first.get(name))} and {_shown(second.get(name))})"
        for name in dict.fromkeys((*first, *second))
        if first.get(name) != second.get(name)
    ]
    seeds = [[cell.seed for cell in cells_] for cells_ in (ours, theirs)]
    if not found and not set(seeds[0]) & set(seeds[1]):
        found.append(f"seed ({' and '.join(map(_listed, seeds))})")
    return found


def _shown(value: object) -> str:
    """Return a value of a test, which can be unset."""
    return "not set" if value is None else plain(value)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
