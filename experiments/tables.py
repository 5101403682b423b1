"""From rows to what figures and tables show: points, ours and the paper's.

A point is a policy's gap at a place on the axis, in a panel. Several seeds make one
point: their mean, with a Student-t interval over the seeds; a single seed has the
interval over its tasks.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from sdm.evaluation.paper import paper_rows
from sdm.experiments.catalogue import Cell, Experiment
from sdm.experiments.rows import Row
from sdm.tasks.families import EnergyFamily

# Which of the paper's policies ours are to be compared with, by what they are.
PAPER_KIND = {"finetune": "sft", "icl": "icl", "dpt": "dpt"}
PAPER_TASKS = 3200


@dataclass(frozen=True)
class Point:
    """One line of a table, one point of a figure.

    Attributes:
        policy: whose it is.
        x: where on the axis; None for a policy that does not depend on it.
        facet: in which panel; None for the only one.
        condition: the test in a few words.
        gap: in per cent of the optimal return; None if it was not run.
        low: lower end of the interval; None if there is none.
        high: upper end of the interval.
        exact: the exact gap; None where it is not known.
        paper: the paper's gap in a test like this; None where there is none.
        tasks: that it was trained on; None where nothing was trained.
        seeds: that were run.
        wanted: seeds that there are.
        training_seconds: mean over seeds; None where nothing was trained.
        training_tokens: mean over seeds; None where none were.
        seconds: mean over seeds, of training and acting.
        tested: tasks and episodes of each, of one seed.
        published: whether it was published with the code, in part at least, and is
            shown where the user has none.

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


def points(
    experiment: Experiment, found: Sequence[tuple[Cell, Row | None]]
) -> list[Point]:
    """The points of an experiment, in the order of its cells."""
    groups: dict[str, list[tuple[Cell, Row | None]]] = {}
    for cell, row in found:
        spec = {name: x for name, x in cell.spec.items() if name != "seed"}
        groups.setdefault(repr(spec), []).append((cell, row))
    return [_point(experiment, group) for group in groups.values()]


def _point(experiment: Experiment, group: Sequence[tuple[Cell, Row | None]]) -> Point:
    cell = group[0][0]
    rows = [row for _, row in group if row is not None]
    gap, low, high = _mean([row["result"] for row in rows])
    exact = [row["result"]["exact_gap_percent"] for row in rows]
    training = [row["training"] for row in rows if row["training"] is not None]
    return Point(
        policy=cell.policy,
        x=cell.value(experiment.x),
        facet=cell.value(experiment.facet) if experiment.facet else None,
        condition=cell.condition,
        gap=gap,
        low=low,
        high=high,
        exact=_average([x for x in exact if x is not None]),
        paper=paper_gap(cell) if _has_its_like(experiment, cell) else None,
        tasks=cell.learn.get("tasks", cell.data.get("tasks")),
        seeds=len(rows),
        wanted=len(group),
        training_seconds=_average([t["seconds"] for t in training]),
        training_tokens=_average([t["tokens"] for t in training if "tokens" in t]),
        seconds=_average([row["seconds"] for row in rows]),
        tested=f"{cell.test['tasks']} × {cell.test['trajectories']}",
        published=any(row.get("published", False) for row in rows),
    )


def _has_its_like(experiment: Experiment, cell: Cell) -> bool:
    """Whether the paper has such a policy, trained like this one, in this figure."""
    if not experiment.paper:
        return False
    learned_otherwise = (
        cell.learn.get("contexts", "trajectories") != "trajectories"
        or cell.learn.get("demonstrations", "optimal") != "optimal"
        or cell.data.get("p_min", EnergyFamily.p_min) != EnergyFamily.p_min
    )
    fewer = cell.data.get("tasks", PAPER_TASKS) != PAPER_TASKS
    return not learned_otherwise and not (experiment.x == "data.tasks" and fewer)


def reached(experiment: Experiment, shown: Sequence[Point]) -> str:
    """What number on the axis it takes each policy to keep within the goal, in words.

    The least with a gap, as estimated, of at most the goal there and at every larger
    one that was run. "" where no goal is set, or nothing along the axis was run.
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
        f"To keep within {experiment.goal:g} %, as estimated, it takes, in "
        f"{experiment.x_title} and of those run: {'; '.join(parts)}."
    )


def plain(value: Any) -> str:
    """A number or a name as people read it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _mean(
    results: Sequence[Row],
) -> tuple[float | None, float | None, float | None]:
    """Mean gap of the seeds, and its interval."""
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


def paper_gap(cell: Cell) -> float | None:
    """The paper's gap for a policy and a test like these; None where it has none."""
    from sdm.experiments.workshop import evaluation_of

    kind = PAPER_KIND.get(cell.kind, cell.name)
    known = paper_rows(evaluation_of(cell))
    return float(known[kind]) if kind in known else None
