"""What rows of policies say about the claims that an experiment's configuration lists.

The difference of each seed is that of the means over the test's tasks, of two policies
in the same tasks or in tests that differ in a value, or of a number and a policy.
`claims` makes the verdicts.
"""

from collections.abc import Iterator
from pathlib import Path

from sdm.experiments.claims import Case, case, claim_text, ruled
from sdm.experiments.policy_runs import Groups, Run, about, named_groups, same_tests
from sdm.experiments.spec import Cell, Claim, Experiment, ExperimentError

Values = dict[int, float]  # by seed


def claimed(experiment: Experiment, profile: str, results: Path) -> list[str]:
    """Return a sentence with the verdicts on each claim that the rows can test.

    Args:
        experiment: the experiment.
        profile: name of the profile.
        results: folder of the user's own rows.

    Raises:
        ExperimentError: if a measure is not a number.

    """
    texts = []
    for claim in experiment.claims:
        names = [name for name in (claim.less, claim.than) if isinstance(name, str)]
        groups = [named_groups(n, [experiment], profile, results) for n in names]
        cases: dict[str, list[Case]] = {}
        for tested, ours, theirs in _tests(claim, *groups):
            seeds = [seed for seed in ours if seed in theirs]
            if seeds:
                differences = [theirs[seed] - ours[seed] for seed in seeds]
                made = case(_where(experiment, claim, tested), differences)
                cases.setdefault(tested[0].family, []).append(made)
        texts += claim_text(claim.text, cases, _unit(claim.measure))
        missing = [name for name, found in zip(names, groups, strict=True) if not found]
        if missing:
            shown = " and ".join(f"`{name}`" for name in missing)
            texts.append(f"{claim.text}: not known, since {shown} has no row.")
        elif not cases:
            texts.append(
                f"{claim.text}: not known, since no test has `{claim.measure}` of both "
                "sides."
            )
    return ruled(texts)


def _unit(measure: str) -> str:
    """Return the unit of differences of a measure."""
    if measure == "gap_percent":
        return "points"
    shown, per_cent, _ = measure.replace("_", " ").partition(" percent")
    return f"points of {shown}" if per_cent else f"in {shown}"


def _where(experiment: Experiment, claim: Claim, tested: list[Cell]) -> str:
    """Return the test of a case, or both tests of a claim across tests."""
    if not claim.across:
        return about(experiment, *tested)
    return " against ".join(dict.fromkeys(about(experiment, cell) for cell in tested))


def _tests(
    claim: Claim, ours: Groups, theirs: Groups | None = None
) -> Iterator[tuple[list[Cell], Values, Values]]:
    """Yield the cells of each test, and the values that are to be less than others."""
    if theirs is None:
        for _, runs in ours.values():
            values = _values(claim, runs)
            yield [runs[0][0]], values, dict.fromkeys(values, float(claim.than))
        return
    for (_, first), (_, second) in same_tests(ours, theirs, claim.across):
        cells = [first[0][0], second[0][0]]
        yield cells, _values(claim, first), _values(claim, second)


def _values(claim: Claim, runs: list[Run]) -> Values:
    """Return the measure by seed, where it is known.

    Raises:
        ExperimentError: if a row has something else than a number under its name.

    """
    found = {cell.seed: row["result"].get(claim.measure) for cell, row in runs}
    known = {seed: value for seed, value in found.items() if value is not None}
    for value in known.values():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ExperimentError(
                f"claim `{claim.text}`: measure `{claim.measure}`: must be a number in "
                f"results, found {type(value).__name__}"
            )
    return known
