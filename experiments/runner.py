"""Run experiments cell by cell, and write each row as soon as its cell is done."""

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from filelock import FileLock, Timeout

from sdm.experiments.artifacts import Artifacts
from sdm.experiments.catalogue import PUBLISHED
from sdm.experiments.cell_runner import run_cell, study_folder
from sdm.experiments.grid_cells import cells
from sdm.experiments.origin import is_trained, trains
from sdm.experiments.rows import (
    Row,
    add_row,
    changing,
    known_rows,
    read_rows,
    rows_file,
)
from sdm.experiments.spec import (
    Cell,
    Experiment,
    ExperimentError,
)
from sdm.experiments.time_left import TimeLeft, share_done
from sdm.storage.files import PLAN
from sdm.storage.provenance import commit

WORK = "work"  # folder of datasets, trained policies and locks
PATIENCE = 1.0  # seconds between attempts at cells locked by another process


@runtime_checkable
class Watcher(Protocol):
    """Observer of the progress of a run."""

    def begin(self, cells: int, todo: int) -> None:
        """Begin a run of `cells` cells, of which `todo` have no row yet."""

    def step(self, cell: Cell, name: str, share: float, left: float) -> None:
        """Show the completed share of a cell's step, and the seconds left."""

    def done(self, cell: Cell, row: Row, left: float) -> None:
        """Show a finished cell, and the seconds left."""

    def failed(self, cell: Cell, why: str) -> None:
        """Show a cell that failed."""


@dataclass
class Outcome:
    """Outcome of a run of an experiment.

    Attributes:
        rows: rows of all completed cells.
        new: number of cells completed in this run.
        failed: failed cells, each with its error.

    """

    rows: list[Row]
    new: int = 0
    failed: list[tuple[Cell, str]] = field(default_factory=list)


def run_experiment(
    experiment: Experiment,
    profile: str,
    results: Path,
    watcher: Watcher,
    *,
    seed: int | None = None,
    policies: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
) -> Outcome:
    """Run the cells of an experiment that have no row yet.

    A failed cell is skipped and reported; the next run retries it. If another
    experiment in the folder has a row of the same cell, it is reused.

    Args:
        experiment: the experiment.
        profile: its sizes.
        results: folder of rows; its subfolder `work` holds the cells' shared inputs.
        watcher: observer of the progress.
        seed: the only seed to run; None for all seeds of the profile.
        policies: labels of the only policies to run; () for all.
        resume: whether to keep existing rows and run the other cells.
        overwrite: whether to run cells with existing rows again; trained policies with
            an unchanged configuration are reused.

    Raises:
        ExperimentError: if rows exist and neither `resume` nor `overwrite` is set, the
            profile has no such cells, or `results` is another command's output.

    """
    wanted = cells(experiment, profile)
    asked = [
        cell
        for cell in wanted
        if seed in (None, cell.seed) and (not policies or cell.policy in policies)
    ]
    file = rows_file(results, experiment.name, profile)
    known = dict.fromkeys(cell.policy for cell in wanted)
    if unknown := [name for name in policies if name not in known]:
        raise ExperimentError(
            f"`{experiment.name}` has no policy `{unknown[0]}` in profile {profile}",
            f"its policies are {', '.join(known)}",
        )
    if not asked:
        what = "cells" if seed is None else f"cells of seed {seed}"
        raise ExperimentError(f"`{experiment.name}` has no {what} in profile {profile}")
    _check_folder(results, file, asked, new=not resume and not overwrite)
    again = overwrite and not resume
    if again:
        keys = {cell.key for cell in asked}
        with changing(file) as rows:
            rows[:] = [row for row in rows if row["key"] not in keys]
        for cell in asked:
            _forget_unfinished(results / WORK, cell)
    done = {row["key"] for row in read_rows(file)}
    todo = {cell.key: cell for cell in asked if cell.key not in done}
    commit()  # cache the commit now, since the files may change during the run
    order = list(dict.fromkeys(cell.key for cell in wanted))
    run = _Run(results, file, order, watcher, reuse=not again)
    watcher.begin(len({cell.key for cell in asked}), len(todo))
    return run.all(list(todo.values()))


def _check_folder(
    results: Path, file: Path, asked: Sequence[Cell], *, new: bool
) -> None:
    """Raise `ExperimentError` unless rows of these cells can be written."""
    keys = {cell.key for cell in asked}
    before = sum(row["key"] in keys for row in read_rows(file))
    if before and new:
        raise ExperimentError(
            f"`{file}` already has {before} of these {len(keys)} rows",
            "pass `--resume` to continue, or `--overwrite` to start again",
        )
    if (results / PLAN).exists():
        raise ExperimentError(
            f"`{results}` is the output of another command, which may replace it",
            "choose another folder with `--results`",
        )


class _Run:
    """A run of cells into one file of rows."""

    def __init__(
        self,
        results: Path,
        file: Path,
        order: Sequence[str],
        watcher: Watcher,
        *,
        reuse: bool,
    ) -> None:
        self.results, self.file, self.work = results, file, results / WORK
        self.order, self.watcher, self.reuse = order, watcher, reuse

    def all(self, todo: Sequence[Cell]) -> Outcome:
        """Run all cells; those locked by other processes come last."""
        known = [*known_rows(PUBLISHED), *known_rows(self.results)]
        left = TimeLeft(todo, known, self._is_trained)
        done = {row["key"]: row for row in read_rows(self.file)}
        outcome = Outcome([done[key] for key in self.order if key in done])
        self.work.mkdir(parents=True, exist_ok=True)
        for cell in _by_turns(todo, self.work):
            self._one(cell, left, outcome)
        return outcome

    def _is_trained(self, cell: Cell) -> bool:
        return is_trained(cell, Artifacts(self.work))

    def _one(self, cell: Cell, left: TimeLeft, outcome: Outcome) -> None:
        to_train = trains(cell) and not self._is_trained(cell)

        def step(name: str, part: int, total: int) -> None:
            share = part / max(1, total)
            done = share if cell.study else share_done(name, share, trains=to_train)
            seconds = left(cell, done, time.monotonic())
            self.watcher.step(cell, name, share, seconds)

        step("beginning", 0, 1)
        try:
            taken = _done_elsewhere(cell, self.results) if self.reuse else None
            row = taken or run_cell(cell, self.work, step)
            outcome.rows = add_row(self.file, row, self.order)
            _forget_unfinished(self.work, cell)
        except Exception as error:
            if os.environ.get("SDM_DEBUG") == "1":
                raise
            left.skip(cell)
            outcome.failed.append((cell, why := _why(error)))
            self.watcher.failed(cell, why)
            return
        if taken:
            left.skip(cell)
        else:
            left.done(cell, time.monotonic())
        outcome.new += 1
        self.watcher.done(cell, row, left())


def _by_turns(todo: Iterable[Cell], work: Path) -> Iterator[Cell]:
    """Yield every cell while this process holds its lock; locked ones come last."""
    waiting = list(todo)
    while waiting:
        for cell in list(waiting):
            lock = FileLock(work / f"cell-{cell.key}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            waiting.remove(cell)
            try:
                yield cell
            finally:
                lock.release()
            break
        else:
            time.sleep(PATIENCE)


def _why(error: Exception) -> str:
    """Return the error of a cell and its hint in one line."""
    if isinstance(error, ModuleNotFoundError):
        return f"package `{error.name}` is missing: see `sdm doctor`"
    words = (str(error).strip() or type(error).__name__).splitlines()[0]
    if not isinstance(error, (ValueError, RuntimeError, OSError, FloatingPointError)):
        words = f"{type(error).__name__}: {words} (`SDM_DEBUG=1` shows the traceback)"
    hint = getattr(error, "hint", "")
    return f"{words}; {hint}" if hint else words


def _done_elsewhere(cell: Cell, results: Path) -> Row | None:
    """Return the row of the same cell in any experiment of a folder."""
    for row in known_rows(results):
        if row["key"] == cell.key:
            names = ("experiment", "profile", "policy")
            return {**row, **{name: getattr(cell, name) for name in names}}
    return None


def _forget_unfinished(work: Path, cell: Cell) -> None:
    """Remove what an unfinished cell saved: episodes, or parts of a study."""
    for folder in work.glob(f"played-{cell.key}-*"):
        shutil.rmtree(folder)
    shutil.rmtree(study_folder(work, cell), ignore_errors=True)
