"""From rows to points of figures and lines of tables, ours beside the paper's.

A point is a policy's gap at a place on the axis, in a panel. Several seeds make one
point: their mean, with a Student-t interval over the seeds. A single seed has the
interval over its tasks.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from sdm.evaluation.paper import paper_rows
from sdm.experiments.rows import Row
from sdm.experiments.spec import Cell, Experiment

# The paper's policy that stands beside those of a learner.
LIKE = {"finetune": "sft", "icl": "icl", "dpt": "dpt"}
Found = Sequence[tuple[Cell, Row | None]]


@dataclass(frozen=True)
class Point:
    """A line of a table and a point of a figure.

    Attributes:
        policy: its label; with what makes it where several policies share the label.
        x: place on the axis; None for a policy that does not depend on it.
        facet: panel; None for the only one.
        condition: the test in a few words.
        gap: in per cent of the optimal return; None if it was not run.
        low: lower end of the interval; None if there is none.
        high: upper end of the interval.
        exact: the exact gap; None where it is not known.
        paper: the paper's gap in a test like this; None where there is none.
        tasks: number of training tasks; None where nothing was trained.
        seeds: number of seeds run.
        wanted: number of seeds in the profile.
        training_seconds: mean over seeds; None where nothing was trained.
        training_tokens: mean over seeds; None where nothing was trained on tokens.
        seconds: mean over seeds, of training and acting.
        tested: tasks and episodes of each, of one seed.
        published: whether a row of it is one published with the code, shown since the
            user has none.

    """

    policy: str
    x: Any
    facet: Any
    condition: str
    gap: float | None
    low: float | None
    high: float | None
    exact: float | None
    paper: float | None
    tasks: int | None
    seeds: int
    wanted: int
    training_seconds: float | None
    training_tokens: float | None
    seconds: float | None
    tested: str
    published: bool


def points(experiment: Experiment, found: Found) -> list[Point]:
    """Return the points of an experiment, in the order of its cells."""
    groups: dict[str, list[tuple[Cell, Row | None]]] = {}
    for cell, row in found:
        spec = {name: x for name, x in cell.spec.items() if name != "seed"}
        groups.setdefault(repr((cell.policy, spec)), []).append((cell, row))
    made_by: dict[str, set[str]] = {}
    for cell, _ in found:
        made_by.setdefault(cell.policy, set()).add(cell.made_by)
    shared = {label for label, policies in made_by.items() if len(policies) > 1}
    return [_point(experiment, group, shared) for group in groups.values()]


def _point(experiment: Experiment, group: Found, shared: set[str]) -> Point:
    cell = group[0][0]
    rows = [row for _, row in group if row is not None]
    gap, low, high = _mean([row["result"] for row in rows])
    exact = [row["result"]["exact_gap_percent"] for row in rows]
    training = [row["training"] for row in rows if row["training"] is not None]
    return Point(
        policy=f"{cell.policy} ({cell.made_by})"
        if cell.policy in shared
        else cell.policy,
        x=cell.value(experiment.x),
        facet=cell.value(experiment.facet) if experiment.facet else None,
        condition=cell.condition,
        gap=gap,
        low=low,
        high=high,
        exact=_average([x for x in exact if x is not None]),
        paper=paper_gap(cell) if experiment.paper and cell.paper else None,
        tasks=cell.learn.get("tasks", cell.data.get("tasks")),
        seeds=len(rows),
        wanted=len(group),
        training_seconds=_average([t["seconds"] for t in training]),
        training_tokens=_average([t["tokens"] for t in training if "tokens" in t]),
        seconds=_average([row["seconds"] for row in rows]),
        tested=f"{cell.test['tasks']} × {cell.test['trajectories']}",
        published=any(row.get("published", False) for row in rows),
    )


def paper_gap(cell: Cell) -> float | None:
    """Return the paper's gap for a policy and a test like these, if it has one."""
    from sdm.experiments.cell_configs import evaluation_of

    name = LIKE.get(cell.learner, cell.made_by)
    known = paper_rows(evaluation_of(cell))
    return float(known[name]) if name in known else None


def reached(experiment: Experiment, shown: Sequence[Point]) -> str:
    """Say what number on the axis each policy needs to keep within the goal.

    It is the least with an estimated gap of at most the goal there and at every larger
    number that was run. "" where no goal is set, or nothing along the axis was run.
    """
    if experiment.goal is None:
        return ""
    gaps: dict[str, dict[float, float]] = {}
    for point in shown:
        if point.x is not None and point.gap is not None:
            gaps.setdefault(point.policy, {})[point.x] = point.gap
    parts = []
    for policy, along in gaps.items():
        least = f"more than {max(along):,}"
        for x in sorted(along, reverse=True):
            if along[x] > experiment.goal:
                break
            least = f"{x:,}" if x > min(along) else f"{x:,} or fewer"
        parts.append(f"`{policy}` {least}")
    if not parts:
        return ""
    return (
        f"Number of {experiment.x_title} from which every estimated gap is at most "
        f"{experiment.goal:g} %, among those run: {'; '.join(parts)}."
    )


def remarks(found: Found) -> list[str]:
    """Return the remarks of rows, each with the policies and tests it is about."""
    about: dict[str, dict[str, list[str]]] = {}
    for cell, row in found:
        if row is not None and "remark" in row:
            of_policy = about.setdefault(row["remark"], {})
            of_policy.setdefault(cell.policy, []).append(cell.condition)
    notes = []
    for remark, policies in about.items():
        parts = (f"`{p}` at {', '.join(dict.fromkeys(c))}" for p, c in policies.items())
        notes.append(f"{'; '.join(parts)}: {remark}")
    return notes


def _mean(results: Sequence[Row]) -> tuple[float | None, float | None, float | None]:
    """Return the mean gap of the seeds, and its interval."""
    if not results:
        return None, None, None
    gaps = [float(result["gap_percent"]) for result in results]
    if len(gaps) == 1:
        return gaps[0], results[0]["ci_low"], results[0]["ci_high"]
    mean = statistics.fmean(gaps)
    half = float(stats.sem(gaps) * stats.t.ppf(0.975, len(gaps) - 1))
    return mean, mean - half, mean + half


def _average(values: Sequence[float | int]) -> float | None:
    return statistics.fmean(values) if values else None
