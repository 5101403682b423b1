"""Running experiments: cell by cell, each written down as soon as it is done."""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Protocol, runtime_checkable

from filelock import FileLock, Timeout

from sdm.experiments.catalogue import (
    PUBLISHED,
    CatalogueError,
    Cell,
    Experiment,
    cells,
    key_of,
)
from sdm.experiments.rows import (
    Row,
    add_row,
    changing,
    known_rows,
    read_rows,
    rows_file,
)
from sdm.storage.files import PLAN
from sdm.storage.provenance import commit, provenance

WORK = "work"  # the folder of what cells share
LEARNING = ("finetune", "dpt", "cql")  # kinds of cells that train a policy
# Seconds that a cell may take, where nothing is known: one that learns, or another.
UNKNOWN, AT_ONCE = 60.0, 1.0
PATIENCE = 1.0  # seconds until cells that others are at are looked at again
TRAINING_SHARE = 0.8  # of a cell's time, for want of anything better


@runtime_checkable
class Watcher(Protocol):
    """Is told how a run goes."""

    def begin(self, cells: int, todo: int) -> None:
        """So many cells there are; so many of them are to be done."""

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

    def __init__(
        self,
        todo: Iterable[Cell],
        known: Iterable[Row],
        is_trained: Callable[[Cell], bool] = lambda cell: False,
    ) -> None:
        """Expect of each cell what it took, or what its kind took in its profile.

        Of those whose policy is trained already, without the training.
        """
        exact: dict[str, Row] = {}
        alike: dict[tuple[str, str], list[Row]] = {}
        for row in known:
            exact[row["key"]] = row
            alike.setdefault((row["profile"], row["policy"]), []).append(row)

        def expected(cell: Cell) -> float:
            like = alike.get((cell.profile, cell.policy), [])
            rows = [exact[cell.key]] if cell.key in exact else like
            if not rows:
                return UNKNOWN if cell.kind in LEARNING else AT_ONCE
            trained = is_trained(cell)
            return float(max(0.1, median(_seconds(row, trained) for row in rows)))

        self._expected = {cell.key: expected(cell) for cell in todo}
        self._spent = self._met = 0.0
        self._at = ("", 0.0, 0.0)  # the cell, from what share and what time on

    def __call__(
        self, cell: Cell | None = None, share: float = 0.0, now: float = 0.0
    ) -> float:
        """Seconds left, when this share of a cell is done at this time.

        What a cell had done before it was gone on with says nothing of the pace.
        """
        left, spent, met = sum(self._expected.values()), self._spent, self._met
        if cell is not None and cell.key in self._expected:
            if self._at[0] != cell.key or not self._at[1]:
                self._at = (cell.key, share, now)
            _, first, since = self._at
            expected = self._expected[cell.key]
            left -= share * expected
            spent, met = spent + now - since, met + (share - first) * expected
        # A machine twice as slow shows after the first minutes, not after a second.
        return left * (spent + UNKNOWN) / (met + UNKNOWN)

    def done(self, cell: Cell, now: float) -> None:
        """A cell is done at this time."""
        expected = self._expected.pop(cell.key)
        key, first, since = self._at
        if key == cell.key and expected > AT_ONCE:  # others only begin and end
            self._met += (1 - first) * expected
            self._spent += now - since

    def failed(self, cell: Cell) -> None:
        """A cell is not to be waited for; what it took tells nothing of the others."""
        del self._expected[cell.key]


def _seconds(row: Row, trained: bool) -> float:
    """What a row's cell took, or would have without the training."""
    training: Mapping[str, Any] = row.get("training") or {}
    return float(row["seconds"]) - (training.get("seconds", 0.0) if trained else 0.0)


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
    run. One that another experiment in the same folder has done is taken from there.

    Args:
        experiment: what to run.
        profile: of what size.
        results: the folder of rows; what cells share is kept in its `work`.
        watcher: told how it goes.
        seed: only cells of this one; None for all of the profile's.
        resume: go on where rows are there already.
        overwrite: begin again where they are; trained policies are kept as long as
            nothing that decides them has changed.

    Raises:
        CatalogueError: if there are rows and neither `resume` nor `overwrite` is given,
            or the profile has no cell of this, or `results` is another's output.

    """
    wanted = cells(experiment, profile)
    order = [cell.key for cell in wanted]
    asked = [cell for cell in wanted if seed in (None, cell.seed)]
    if not asked:
        what = "cells" if seed is None else f"cells of seed {seed}"
        raise CatalogueError(f"`{experiment.name}` has no {what} in profile {profile}")
    file, work = rows_file(results, experiment.name, profile), results / WORK
    keys = {cell.key for cell in asked}
    before = sum(row["key"] in keys for row in read_rows(file))
    if before and not resume and not overwrite:
        raise CatalogueError(
            f"`{file}` has {before} of these {len(asked)} rows already",
            "pass `--resume` to go on, or `--overwrite` to begin again",
        )
    if (results / PLAN).exists():
        raise CatalogueError(
            f"`{results}` is what another command made, and would be lost with it",
            "choose another folder with `--results`",
        )
    again = overwrite and not resume
    if again:
        with changing(file) as rows:
            rows[:] = [row for row in rows if row["key"] not in keys]
        for cell in asked:
            _forget_played(work, cell)
    done = {row["key"]: row for row in read_rows(file)}
    todo = [cell for cell in asked if cell.key not in done]
    commit()  # that of the code in memory: looked up now, and remembered
    known = [*known_rows(PUBLISHED), *known_rows(results)]
    left = TimeLeft(todo, known, lambda cell: _is_trained(cell, work))
    outcome = Outcome([done[key] for key in order if key in done])
    watcher.begin(len(asked), len(todo))
    work.mkdir(parents=True, exist_ok=True)
    for cell in _by_turns(todo, work):
        trains = cell.kind in LEARNING and not _is_trained(cell, work)

        def step(
            name: str, part: int, total: int, cell: Cell = cell, trains: bool = trains
        ) -> None:
            share = part / max(1, total)
            done = _part(name, share, trains=trains)
            watcher.step(cell, name, share, left(cell, done, time.monotonic()))

        watcher.step(cell, "beginning", 0.0, left(cell, 0.0, time.monotonic()))
        try:
            taken = None if again else _done_elsewhere(cell, results)
            row = taken or run_cell(cell, work, step)
            outcome.rows = add_row(file, row, order)
            _forget_played(work, cell)
        except Exception as error:
            if os.environ.get("SDM_DEBUG") == "1":
                raise
            why = _why(error)
            outcome.failed.append((cell, why))
            left.failed(cell)
            watcher.failed(cell, why)
            continue
        if taken:
            left.failed(cell)
        else:
            left.done(cell, time.monotonic())
        outcome.new += 1
        watcher.done(cell, row, left())
    return outcome


def _by_turns(todo: Iterable[Cell], work: Path) -> Iterator[Cell]:
    """Every cell, while no other process is at it; those that one is at come last."""
    waiting = list(todo)
    while waiting:
        for cell in waiting:
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
    """What a cell failed of, and what to do about it, in one line."""
    if isinstance(error, ModuleNotFoundError):
        return f"it needs the package `{error.name}`: see `sdm doctor`"
    words = (str(error).strip() or type(error).__name__).splitlines()[0]
    if not isinstance(error, (ValueError, RuntimeError, OSError, FloatingPointError)):
        words = f"{type(error).__name__}: {words} (`SDM_DEBUG=1` shows where)"
    hint = getattr(error, "hint", "")
    return f"{words}; {hint}" if hint else words


def _done_elsewhere(cell: Cell, results: Path) -> Row | None:
    """The same cell's row in another experiment of the same folder, or by now."""
    for row in known_rows(results):
        if row["key"] == cell.key:
            return {**row, "experiment": cell.experiment, "profile": cell.profile}
    return None


def _is_trained(cell: Cell, work: Path) -> bool:
    """Whether the policy of a cell is there already."""
    if cell.kind not in LEARNING:
        return False
    from sdm.experiments.workshop import Workshop

    try:
        return Workshop(work, lambda *_: None).run_folder(cell).is_dir()
    except (ValueError, ImportError):  # told when it is that cell's turn
        return False


def _part(step: str, share: float, *, trains: bool) -> float:
    """How much of a cell is done when a step of it is done to this share."""
    trained = TRAINING_SHARE if trains else 0.0
    parts = {"training": trained * share, "acting": trained + (1 - trained) * share}
    return parts.get(step, 0.0)


def _forget_played(work: Path, cell: Cell) -> None:
    """Remove the episodes of a cell, which are kept until it is done."""
    for folder in work.glob(f"played-{cell.key}-*"):
        shutil.rmtree(folder)


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
    return {**row, **found, **provenance(cell.kind), "finished": finished}


def _play(cell: Cell, work: Path, step: Callable[[str, int, int], None]) -> Row:
    """Train a policy if need be, and test it."""
    from sdm.evaluation.evaluate import check_policy, evaluate
    from sdm.evaluation.tables import result_row
    from sdm.experiments.workshop import Workshop, benchmark_of, evaluation_of
    from sdm.llm.base_names import check_base_name

    test = evaluation_of(cell)
    if "base" in cell.learn:
        check_base_name(cell.learn["base"])  # before anything is made
    policy = Workshop(work, step).policy(cell)
    check_policy(policy.name, test)
    # What was played by another training of the same policy is of no use.
    played = f"played-{cell.key}-{key_of({'training': policy.training})}"
    (result,) = evaluate(
        [policy.name],
        benchmark_of(test),
        kept=work / played if cell.kind in ("finetune", "icl") else None,
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
    """Check Proposition 1, cell by cell of κ, M and N."""
    from sdm.theory.proposition_1 import Grid, rows, validate

    start = time.monotonic()
    checked = validate(Grid(seed=cell.seed, **cell.learn))
    seconds = time.monotonic() - start
    return {"cells": rows(checked), "training": None, "seconds": seconds}
