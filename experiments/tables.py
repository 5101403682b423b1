"""Aggregate rows into points of figures and lines of tables, with the paper's values.

A point is a policy's gap at one value on the axis, in one panel: the mean over seeds,
with the interval that `intervals` defines.
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdm.evaluation.measure import measure_titles
from sdm.evaluation.paper import paper_rows
from sdm.experiments.intervals import (
    Interval,
    NotComparableError,
    measured,
    over_seeds,
)
from sdm.experiments.origin import trains
from sdm.experiments.policy_runs import about
from sdm.experiments.rows import Row
from sdm.experiments.spec import MEASURES, Cell, Experiment
from sdm.llm.recipes import FinetuneConfig, recipe_of

# The paper's policy that corresponds to each learner.
LIKE = {"finetune": "sft", "icl": "icl", "dpt": "dpt"}
# Options of trainings whose rows are older than the option.
OLDER = {field.name: field.default for field in dataclasses.fields(FinetuneConfig)}
Found = Sequence[tuple[Cell, Row | None]]


@dataclass(frozen=True)
class Point:
    """A line of a table and a point of a figure.

    Attributes:
        policy: label of the policy; with its origin if several policies share a label.
        x: value on the axis; None for a policy that does not depend on it.
        facet: panel; None if there is only one.
        condition: short description of the test.
        gap: optimality gap in per cent of the optimal return; None if not run.
        low: lower end of the 95 % interval; None if unknown.
        high: upper end of the 95 % interval; None if unknown.
        by_seed: the gap of each seed.
        measures: mean of every known measure, see `spec.MEASURES`, and of those of the
            family, see `sdm.evaluation.measure`.
        exact: exact gap in per cent; None if unknown.
        paper: the paper's gap in a comparable test; None if it has none.
        tasks: number of training tasks; None without training.
        seeds: number of seeds run.
        wanted: number of seeds in the profile.
        training_seconds: mean training time over seeds; None without training.
        training_tokens: mean number of training tokens over seeds; None without tokens.
        seconds: mean time of training and evaluation over seeds.
        tested: number of tasks and of episodes per task, for one seed.
        test_tasks: number of tasks of all seeds.
        published: whether a row is published with the code rather than the user's own.
        noted: whether a note limits a row, such as an earlier recipe; see `remarks`.

    """

    policy: str
    x: Any
    facet: Any
    condition: str
    gap: float | None
    low: float | None
    high: float | None
    by_seed: tuple[float, ...]
    measures: Mapping[str, float]
    exact: float | None
    paper: float | None
    tasks: int | None
    seeds: int
    wanted: int
    training_seconds: float | None
    training_tokens: float | None
    seconds: float | None
    tested: str
    test_tasks: int
    published: bool
    noted: bool


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
    results = [row["result"] for row in rows]
    found = {x: _measure(cell, results, x) for x in (experiment.measure, *MEASURES)}
    own = {
        name: statistics.fmean(each[name] for each in results)
        for name in measure_titles()
        if results and all(each.get(name) is not None for each in results)
    }
    gap = found[experiment.measure]
    exact = [row["result"]["exact_gap_percent"] for row in rows]
    training = [row["training"] for row in rows if row["training"] is not None]
    return Point(
        policy=f"{cell.policy} ({cell.made_by})"
        if cell.policy in shared
        else cell.policy,
        x=cell.value(experiment.x),
        facet=cell.value(experiment.facet) if experiment.facet else None,
        condition=cell.condition,
        gap=None if gap is None else gap.mean,
        low=None if gap is None else gap.low,
        high=None if gap is None else gap.high,
        by_seed=() if gap is None else gap.seeds,
        measures={x: each.mean for x, each in found.items() if each is not None} | own,
        exact=_average([x for x in exact if x is not None]),
        paper=paper_gap(cell) if experiment.paper and cell.paper else None,
        tasks=cell.learn.get("tasks", cell.data.get("tasks")),
        seeds=len(rows),
        wanted=len(group),
        training_seconds=_average([t["seconds"] for t in training]),
        training_tokens=_average([t["tokens"] for t in training if "tokens" in t]),
        seconds=_average([row["seconds"] for row in rows]),
        tested=f"{cell.test['tasks']} × {cell.test['trajectories']}",
        test_tasks=cell.test["tasks"] * len(rows),
        published=any(row.get("published", False) for row in rows),
        noted=any(_notes(cell, row) for cell, row in group if row is not None),
    )


def _measure(cell: Cell, results: Sequence[Row], measure: str) -> Interval | None:
    """Return a measure over seeds; None without results that have it."""
    try:
        return over_seeds(results, measure, trained=trains(cell)) if results else None
    except NotComparableError:
        return None


def paper_gap(cell: Cell) -> float | None:
    """Return the paper's gap for a cell's policy and test, if it has one."""
    from sdm.experiments.cell_configs import evaluation_of

    name = LIKE.get(cell.learner, cell.made_by)
    known = paper_rows(evaluation_of(cell))
    return float(known[name]) if name in known else None


def reached(experiment: Experiment, shown: Sequence[Point]) -> str:
    """Return a sentence with the value on the axis at which each policy meets the goal.

    It is the smallest value such that the estimated gap is at most the goal there and
    at every larger value that was run. The sentence is "" without a goal or results.
    """
    if experiment.goal is None:
        return ""
    gaps: dict[str, dict[float, float]] = {}
    single = set()
    for point in shown:
        if point.x is not None and point.gap is not None:
            gaps.setdefault(point.policy, {})[point.x] = point.gap
            if point.seeds == 1:
                single.add(point.policy)
    parts = []
    for policy, along in gaps.items():
        least = f"more than {max(along):,}"
        for x in sorted(along, reverse=True):
            if along[x] > experiment.goal:
                break
            least = f"{x:,}" if x > min(along) else f"{x:,} or fewer"
        seeds = " (one seed)" if policy in single else ""
        parts.append(f"`{policy}` {least}{seeds}")
    if not parts:
        return ""
    return (
        f"Number of {experiment.x_title} from which every estimated gap is at most "
        f"{experiment.goal:g} %, among those run and without a test: "
        f"{'; '.join(parts)}."
    )


def remarks(experiment: Experiment, found: Found) -> list[str]:
    """Return the remarks of rows, each with its policies and tests.

    Rows that lack the measure of the experiment are named.

    Args:
        experiment: the experiment.
        found: its cells with their rows.

    """
    said: dict[str, dict[str, list[str]]] = {}
    for cell, row in found:
        if row is None:
            continue
        for remark in (*_notes(cell, row), *_lacks(row, experiment.measure)):
            of_policy = said.setdefault(remark, {})
            of_policy.setdefault(cell.policy, []).append(about(experiment, cell))
    notes = []
    for remark, policies in said.items():
        parts = (f"`{p}` at {_joined(tests)}" for p, tests in policies.items())
        notes.append(f"{'; '.join(parts)}: {remark}")
    return notes


def _joined(tests: Sequence[str]) -> str:
    """Return different tests, separated such that one can contain commas."""
    found = list(dict.fromkeys(tests))
    return ("; " if any("," in test for test in found) else ", ").join(found)


def _notes(cell: Cell, row: Row) -> list[str]:
    """Return what limits a row."""
    return [x for x in (row.get("remark"), _earlier_recipe(cell, row)) if x]


def _lacks(row: Row, measure: str) -> list[str]:
    """Return why a measure of a row is unknown; empty if it is known."""
    if "result" not in row:  # of a study
        return []
    try:
        measured(row["result"], measure)
    except NotComparableError as error:
        return [str(error)]
    return []


def _earlier_recipe(cell: Cell, row: Row) -> str:
    """Return how a row's training differs from its base's recipe now; "" if not.

    Rows of self-training record what differs from the recipe of their day only.
    """
    trained = (row.get("training") or {}).get("config")
    if not trained or "learning_rate" not in trained:
        return ""
    trained = OLDER | trained
    changed = [
        f"{name} {trained[name] or 'not given'} (now {value})"
        for name, value in recipe_of(str(cell.learn.get("base"))).items()
        if name not in cell.learn and trained[name] != value
    ]
    return f"trained with an earlier recipe: {', '.join(changed)}" if changed else ""


def _average(values: Sequence[float | int]) -> float | None:
    return statistics.fmean(values) if values else None
