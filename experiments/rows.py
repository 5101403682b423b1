"""Results of experiments on disk: one JSON line per cell, with its full configuration.

`RESULTS/NAME/PROFILE.jsonl` holds a user's own rows; the package ships the same files
in `published`. A row is the result of a cell if their keys are equal.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from sdm.experiments.catalogue import PUBLISHED
from sdm.experiments.grid_cells import cells
from sdm.experiments.spec import PROFILES, Cell, Experiment, ExperimentError
from sdm.storage.files import write_atomically

Row = dict[str, Any]
VERSION = 2
# Required fields of a row.
NEEDED = {"key", "profile", "policy", "learner", "seconds", "device", "commit"}
NEEDED |= {"training"}


def rows_file(results: Path, experiment: str, profile: str) -> Path:
    """Return the file with the rows of an experiment."""
    return results / experiment / f"{profile}.jsonl"


def read_rows(file: Path) -> list[Row]:
    """Read the rows of a file; none if the file does not exist.

    Raises:
        ExperimentError: if a line is not a row or has another version.

    """
    if not file.is_file():
        return []
    about = file.stat()
    return list(_parsed(file, about.st_ino, about.st_mtime_ns, about.st_size))


@lru_cache(maxsize=64)
def _parsed(file: Path, *_: int) -> tuple[Row, ...]:
    """Parse each version of a file once, since a report reads it many times."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return tuple(_read_row(file, number, line) for number, line in enumerate(lines, 1))


def _read_row(file: Path, number: int, line: str) -> Row:
    try:
        row: Row = json.loads(line)
        version, missing = row.get("version", 1), NEEDED - row.keys()
    except (ValueError, AttributeError, RecursionError):
        version, missing = VERSION, {"JSON"}
    if version != VERSION:
        raise ExperimentError(
            f"`{file}`, line {number}: row version must be {VERSION}, found {version}",
            "move the results folder away and run the experiment again; rows of "
            "version 1 lack the family and kind of their tasks",
        )
    if missing:
        raise ExperimentError(
            f"`{file}`, line {number}: invalid row: no {', '.join(sorted(missing))}",
            "remove that line and run the experiment again with `--resume`",
        )
    return row


def write_rows(file: Path, rows: Sequence[Row]) -> None:
    """Write all rows, or leave the file unchanged."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, "".join(json.dumps(row) + "\n" for row in rows))


@contextmanager
def changing(file: Path) -> Iterator[list[Row]]:
    """Yield the rows of a file to change in place, and write them at the end.

    A lock makes this safe for concurrent processes.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        rows = read_rows(file)
        yield rows
        write_rows(file, rows)


def add_row(file: Path, row: Row, order: Sequence[str]) -> list[Row]:
    """Add a row to a file; return the rows whose keys are in `order`, in that order.

    Rows with other keys, from another configuration, stay at the end of the file.
    """
    with changing(file) as rows:
        by_key = {each["key"]: each for each in (*rows, row)}
        wanted = [by_key.pop(key) for key in order if key in by_key]
        rows[:] = [*wanted, *by_key.values()]
    return wanted


def known_rows(folder: Path) -> list[Row]:
    """Return the rows of all experiments in a folder."""
    files = (sorted(folder.glob(f"*/{profile}.jsonl")) for profile in PROFILES)
    return [row for found in files for file in found for row in read_rows(file)]


def seconds_spent(rows: Sequence[Row]) -> float:
    """Return the total seconds of rows, counting each shared training once.

    The iterations of a training on its own episodes are one training, whose seconds are
    those until its last iteration.
    """
    trainings: dict[str, float] = {}
    played = 0.0
    for row in rows:
        training = row["training"] or {"seconds": 0.0}
        own = ("selection", "seconds") if "selection" in training else ()
        same = {name: x for name, x in training.items() if name not in own}
        key, seconds = json.dumps(same, sort_keys=True), training["seconds"]
        trainings[key] = max(trainings.get(key, 0.0), seconds)
        played += row["seconds"] - seconds
    return played + sum(trainings.values())


def found_rows(
    experiment: Experiment, profile: str, results: Path
) -> list[tuple[Cell, Row | None]]:
    """Return every cell with its row: the user's own, the published one, or None.

    Cells with equal keys are equal, so that the row may come from another experiment in
    the same profile; of several, it is the newest, in every experiment alike. A
    published row has the entry `published`.
    """
    published = [{**row, "published": True} for row in known_rows(PUBLISHED)]
    by_key: dict[str, Row] = {}
    for known in (published, known_rows(results)):
        of_profile = [row for row in known if row["profile"] == profile]
        of_profile.sort(key=lambda row: row.get("finished", ""))
        by_key |= {row["key"]: row for row in of_profile}
    return [(cell, by_key.get(cell.key)) for cell in cells(experiment, profile)]
