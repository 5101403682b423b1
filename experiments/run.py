"""Running experiments: cell by cell, each written down as soon as it is done."""

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Protocol, runtime_checkable

from sdm.experiments.catalogue import (
    HERE,
    PROFILES,
    CatalogueError,
    Cell,
    Experiment,
    cells,
    experiments,
)
from sdm.experiments.provenance import provenance
from sdm.experiments.rows import Row, add_row, read_rows, rows_file, write_rows

WORK = "work"  # the folder of what cells share
UNKNOWN = 60.0  # seconds that a cell is thought to take, where nothing is known
TRAINING_SHARE = 0.8  # of a cell's time, for want of anything better


@runtime_checkable
class Watcher(Protocol):
    """Is told how a run goes."""

    def step(self, cell: Cell, name: str, share: float, left: float) -> None:
        """A step of a cell is done in part; so many seconds are left of all."""

    def done(self, cell: Cell, row: Row, left: float) -> None:
        """A cell is done; so many seconds are left."""

    def failed(self, cell: Cell, why: str) -> None:
        """A cell could not be done."""


@dataclass
class Outcome:
    """How a run of an experiment went.

    Attributes:
        rows: of all its cells that are done.
        new: how many of them were done now.
        failed: cells that could not be done, and why.

    """

    rows: list[Row]
    new: int = 0
    failed: list[tuple[Cell, str]] = field(default_factory=list)


class TimeLeft:
    """An estimate from what cells took before, corrected as this machine goes along."""

    def __init__(self, todo: Iterable[Cell], known: Iterable[Row]) -> None:
        """Expect of each cell what it took, or what its kind took in its profile."""
        rows = list(known)
        exact = {row["key"]: row["seconds"] for row in rows}
        alike: dict[tuple[str, str], list[float]] = {}
        for row in rows:
            alike.setdefault((row["profile"], row["policy"]), []).append(row["seconds"])

        def expected(cell: Cell) -> float:
            like = alike.get((cell.profile, cell.policy), [UNKNOWN])
            return float(max(0.1, exact.get(cell.key, median(like))))

        self._expected = {cell.key: expected(cell) for cell in todo}
        self._spent = self._met = 0.0

    def done(self, cell: Cell, seconds: float) -> None:
        """A cell took so long."""
        self._met += self._expected.pop(cell.key)
        self._spent += seconds

    def __call__(self, cell: Cell | None = None, share: float = 0.0) -> float:
        """Seconds left, when this share of a cell is done."""
        left = sum(self._expected.values())
        if cell is not None and cell.key in self._expected:
            left -= share * self._expected[cell.key]
        # A machine twice as slow shows after the first minutes, not after a second.
        pace = (self._spent + UNKNOWN) / (self._met + UNKNOWN)
        return left * pace


def run_experiment(
    experiment: Experiment,
    profile: str,
    results: Path,
    watcher: Watcher,
    *,
    seed: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Outcome:
    """Run the cells of an experiment that have no row yet.

    A cell that cannot be done is told and passed over; it is tried again by the next
    run.

    Args:
        experiment: what to run.
        profile: of what size.
        results: the folder of rows; what cells share is kept in its `work`.
        watcher: told how it goes.
        seed: only cells of this one; None for all of the profile's.
        resume: go on where rows are there already.
        overwrite: begin again where they are.

    Raises:
        CatalogueError: if there are rows and neither `resume` nor `overwrite` is given,
            or nothing is left to be done, or the profile has no cell of this.

    """
    wanted = cells(experiment, profile)
    if not wanted:
        raise CatalogueError(f"`{experiment.name}` has no cells in profile {profile}")
    file = rows_file(results, experiment.name, profile)
    before = read_rows(file)
    if before and not resume and not overwrite:
        raise CatalogueError(
            f"`{file}` has {len(before)} rows already",
            "pass `--resume` to go on, or `--overwrite` to begin again",
        )
    order = [cell.key for cell in wanted]
    todo = [cell for cell in wanted if seed in (None, cell.seed)]
    if not todo:
        raise CatalogueError(f"profile {profile} has no seed {seed}")
    if overwrite and not resume:
        again = {cell.key for cell in todo}
        before = [row for row in before if row["key"] not in again]
        write_rows(file, before)
    kept = {row["key"]: row for row in before}
    todo = [cell for cell in todo if cell.key not in kept]
    if not todo:
        raise CatalogueError(
            f"`{file}` is complete: nothing that is asked for is left to be done",
            "see them with `sdm experiment report`, or begin again with `--overwrite` "
            "and without `--resume`",
        )
    left = TimeLeft(todo, _all_known(results))
    outcome = Outcome([kept[key] for key in order if key in kept])
    work = results / WORK
    for cell in todo:
        start = time.monotonic()

        def step(name: str, done: int, total: int, cell: Cell = cell) -> None:
            share = done / max(1, total)
            watcher.step(cell, name, share, left(cell, _part(cell, name, share)))

        watcher.step(cell, "beginning", 0.0, left(cell))
        try:
            row = run_cell(cell, work, step)
        except (ValueError, RuntimeError, OSError, FloatingPointError) as error:
            why = (str(error).strip() or repr(error)).splitlines()[0]
            outcome.failed.append((cell, why))
            left.done(cell, time.monotonic() - start)
            watcher.failed(cell, why)
            continue
        left.done(cell, time.monotonic() - start)
        outcome.new += 1
        outcome.rows = add_row(file, row, order)
        shutil.rmtree(_played(work, cell), ignore_errors=True)
        watcher.done(cell, row, left())
    return outcome


def _part(cell: Cell, step: str, share: float) -> float:
    """How much of a cell is done when a step of it is done to this share."""
    trained = 0.0 if cell.kind in ("baseline", "icl") else TRAINING_SHARE
    parts = {"training": trained * share, "acting": trained + (1 - trained) * share}
    return parts.get(step, 0.0)


def _played(work: Path, cell: Cell) -> Path:
    """Where the episodes of a cell are kept until it is done."""
    return work / f"played-{cell.key}"


def _all_known(results: Path) -> list[Row]:
    """Rows of all experiments, published ones and the user's own."""
    return [
        row
        for folder in (HERE, results)
        for name in experiments()
        for profile in PROFILES
        for row in read_rows(rows_file(folder, name, profile))
    ]


def run_cell(cell: Cell, work: Path, step: Callable[[str, int, int], None]) -> Row:
    """Make what a cell needs, and play it; its row.

    Seconds are those of training, whenever that was, and of acting.

    Raises:
        ValueError, RuntimeError, OSError, FloatingPointError: if it cannot be done.

    """
    row: Row = {
        "experiment": cell.experiment,
        "profile": cell.profile,
        "key": cell.key,
        **cell.spec,
    }
    found = _theory(cell) if cell.kind == "theory" else _play(cell, work, step)
    finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {**row, **found, **provenance(), "finished": finished}


def _play(cell: Cell, work: Path, step: Callable[[str, int, int], None]) -> Row:
    """Train a policy if need be, and test it."""
    from sdm.experiments.workshop import Workshop, evaluation_of, test_bed_of
    from sdm.llm.evaluate import check_policy, evaluate
    from sdm.llm.results import result_row

    test = evaluation_of(cell)
    policy = Workshop(work, step).policy(cell)
    check_policy(policy.name, test)
    (result,) = evaluate(
        [policy.name],
        test_bed_of(test),
        kept=_played(work, cell),
        progress=lambda _, done, tasks: step("acting", done, tasks),
        **policy.options,
    )
    trained = 0.0 if policy.training is None else policy.training["seconds"]
    return {
        "result": result_row(result),
        "training": policy.training,
        "seconds": result.seconds + trained,
    }


def _theory(cell: Cell) -> Row:
    """Check Proposition 1 for one κ."""
    from sdm.theory.proposition_1 import Grid, rows, validate

    options: dict[str, Any] = dict(cell.learn)
    start = time.monotonic()
    grid = Grid(conditions=(options.pop("kappa"),), seed=cell.seed, **options)
    checked = validate(grid)
    seconds = time.monotonic() - start
    return {"cells": rows(checked), "training": None, "seconds": seconds}
