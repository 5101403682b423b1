"""Sentences and tables that state what the rows of an experiment show.

Every number in them is computed from the rows, and every comparison by the paired test
of `comparison`, so that running a cell again changes the sentence.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdm.experiments.comparison import as_row, compare
from sdm.experiments.spec import Experiment, ExperimentError, plain
from sdm.experiments.tables import Point

LEVEL = 0.05  # of the corrected p-values
NUMBER = r"-?\d+(?:\.\d+)?"
FEW = 4  # most tests that a sentence lists
Row = dict[str, Any]


@dataclass(frozen=True)
class Compared:
    """Two policies, compared in every test of an experiment that both were run in.

    Attributes:
        first: the first policy.
        second: the second policy.
        rows: the comparisons, see `comparison.as_row`; p-values are corrected for the
            number of all comparisons of the experiment.

    """

    first: str
    second: str
    rows: tuple[Row, ...]


def compared(experiment: Experiment, profile: str, results: Path) -> list[Compared]:
    """Return the comparisons that an experiment asks for, where there are rows."""
    found = []
    for first, second in experiment.compare:
        try:
            made = compare(
                first, second, [experiment], profile, results, experiment.measure
            )
        except ExperimentError:  # one of the policies has not been run
            continue
        found.append(Compared(first, second, tuple(map(as_row, made))))
    return _corrected(found)


def _corrected(found: Sequence[Compared]) -> list[Compared]:
    """Correct the p-values for the number of comparisons of all policies together."""
    from sdm.experiments.intervals import holm

    every = [row for one in found for row in one.rows]
    for row, p in zip(every, holm([row["p"] for row in every]), strict=True):
        row["p_corrected"] = p
    return list(found)


def sentences(
    experiment: Experiment, shown: Sequence[Point], found: Sequence[Compared]
) -> list[str]:
    """Return the conclusion of an experiment: its lead's gaps, and the comparisons."""
    lead = [p for p in shown if p.policy == experiment.lead and p.gap is not None]
    texts = [_gaps(experiment, lead)] if lead else []
    known = [
        one for one in found if any(x["p_corrected"] is not None for x in one.rows)
    ]
    if known:
        what = _what(experiment)
        pairs = "; ".join(_against(one, what) for one in known)
        texts.append(
            f"By paired tests (corrected p < {LEVEL}), {pairs}{_seeds(known)}."
        )
    unknown = [one for one in found if one not in known]
    if unknown:
        reasons: dict[str, list[str]] = {}
        for one in unknown:
            pair = f"`{one.first}` and `{one.second}`"
            reasons.setdefault(one.rows[0]["note"], []).append(pair)
        parts = (f"{'; '.join(pairs)} ({why})" for why, pairs in reasons.items())
        texts.append(f"Not compared: {'; '.join(parts)}.")
    return texts


def _gaps(experiment: Experiment, lead: Sequence[Point]) -> str:
    """Return a sentence with the gaps of a policy, by test."""
    counts = sorted({point.seeds for point in lead})
    what = _what(experiment)
    if len(lead) > FEW:
        low, high = (
            pick(lead, key=lambda point: point.gap or 0.0) for pick in (min, max)
        )
        ends = (_gap(experiment, point) for point in (low, high))
        parts = f"between {' and '.join(ends)}, in {len(lead)} tests"
    else:
        parts = ", ".join(_gap(experiment, point) for point in lead)
    paper = sorted(point.paper for point in lead if point.paper is not None)
    theirs = f"; the paper's, {_range(paper)} %" if paper else ""
    over = "one seed" if counts == [1] else f"mean of {counts[0]} seeds"
    if len(counts) > 1:
        over = f"{' or '.join(map(str, counts))} seeds"
    return f"The {what} of `{lead[0].policy}` is {parts} ({over}){theirs}."


def _what(experiment: Experiment) -> str:
    """Return the name of the measure that the conclusion is about."""
    own = experiment.measure == "gap"
    return "gap" if own else f"{_plain(experiment.measure)} gap"


def _gap(experiment: Experiment, point: Point) -> str:
    gap, where = f"{point.gap:.2f} %", _where(experiment, point)
    if len(point.by_seed) > 1:
        gap += f" (seeds {min(point.by_seed):.2f} … {max(point.by_seed):.2f})"
    return f"{gap} at {where}{_none_lost(point)}"


def _none_lost(point: Point) -> str:
    """Return how many tasks with a gap are possible if none has one; "" otherwise.

    If a share s of tasks had a gap, n tasks would show none with probability (1 - s)^n.
    """
    if not point.gap == point.low == point.high == 0:
        return ""
    n = point.test_tasks
    most = 1 - 0.05 ** (1 / n)
    return (
        f", where none of {n} tasks has one, and up to {100 * most:.0f} % of all can, "
        "with 95 % confidence"
    )


def _where(experiment: Experiment, point: Point) -> str:
    """Return the test of a point, with what the axis and the panel add to it."""
    text = point.condition
    shown = {name for grid in experiment.grids for name in grid.shown.values()}
    for dotted, title, raw in (
        (experiment.x, experiment.x_title, point.x),
        (experiment.facet, experiment.facet_title.strip(" :"), point.facet),
    ):
        value = "" if raw is None else plain(raw)
        if re.fullmatch(NUMBER, value):
            said = float(value) in map(float, re.findall(NUMBER, point.condition))
        else:
            said = value in point.condition
        if title and value and not (said and dotted in shown | {"condition"}):
            text += f", {title}: {value}"
    return text


def _range(values: Sequence[float]) -> str:
    low, high = f"{values[0]:g}", f"{values[-1]:g}"
    return low if low == high else f"{low} to {high}"


def _against(one: Compared, what: str) -> str:
    """Return what the comparisons of two policies show."""
    known = [row for row in one.rows if row["p_corrected"] is not None]
    unknown = len(one.rows) - len(known)
    sure = [row for row in known if row["p_corrected"] < LEVEL]
    smaller = sum(row["difference"] < 0 for row in sure)
    counts = {
        "smaller": smaller,
        "larger": len(sure) - smaller,
        "undecided": len(known) - len(sure),
    }
    parts = ", ".join(f"{what} in {n}" for what, n in counts.items() if n)
    tests = "test" if len(known) == 1 else "tests"
    ends = sorted(row["difference"] for row in known)
    spread = f"{ends[0]:+.2f}" + (f" to {ends[-1]:+.2f}" if len(ends) > 1 else "")
    return (
        f"the {what} of `{one.first}` against that of `{one.second}` is {parts} of "
        f"{len(known)} {tests} ({spread} points)"
        + (f", and not known in {unknown}" if unknown else "")
    )


def _seeds(found: Sequence[Compared]) -> str:
    """Return a warning if a comparison rests on one training seed."""
    rows = [row for one in found for row in one.rows if row["p_corrected"] is not None]
    few = [row for row in rows if "one training seed" in row["note"]]
    if not few:
        return ""
    return f" ({len(few)} of {len(rows)} from one training seed: another may differ)"


def _plain(measure: str) -> str:
    return measure.replace("_", "-") if measure != "alpha_meu" else "α-MEU"
