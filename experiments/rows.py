"""Results of experiments on disk: one JSON line a cell, with all it takes to rerun it.

`RESULTS/NAME/PROFILE.jsonl` is a user's own; the same files in this folder are those
that were published with the code. A row counts as a cell's result if their keys agree:
what was configured otherwise since is not shown.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from sdm.experiments.catalogue import (
    PROFILES,
    PUBLISHED,
    CatalogueError,
    Cell,
    Experiment,
    cells,
    experiments,
)
from sdm.storage.files import write_atomically

Row = dict[str, Any]
# What readers of rows rely on.
NEEDED = {"key", "profile", "policy", "seconds", "device", "commit", "training"}


def rows_file(results: Path, experiment: str, profile: str) -> Path:
    """Where the rows of an experiment are."""
    return results / experiment / f"{profile}.jsonl"


def read_rows(file: Path) -> list[Row]:
    """The rows of a file; none where there is no file.

    Raises:
        CatalogueError: if a line is no row.

    """
    if not file.is_file():
        return []
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            missing = NEEDED - row.keys()
        except (ValueError, AttributeError):
            missing = {"JSON"}
        if missing:
            raise CatalogueError(
                f"`{file}`, line {number}, is damaged: no {', '.join(sorted(missing))}",
                "remove that line, and run the experiment again with `--resume`",
            )
        rows.append(row)
    return rows


def write_rows(file: Path, rows: Sequence[Row]) -> None:
    """Write all rows, or leave the file as it was."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, "".join(json.dumps(row) + "\n" for row in rows))


@contextmanager
def changing(file: Path) -> Iterator[list[Row]]:
    """The rows of a file, to be changed in place; written when the block is left.

    Several processes may do so at a time.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        rows = read_rows(file)
        yield rows
        write_rows(file, rows)


def add_row(file: Path, row: Row, order: Sequence[str]) -> list[Row]:
    """Add a row to a file; those of the keys, in their order.

    Rows of other keys, which a changed configuration leaves behind, stay at the end.
    """
    with changing(file) as rows:
        by_key = {each["key"]: each for each in (*rows, row)}
        wanted = [by_key.pop(key) for key in order if key in by_key]
        rows[:] = [*wanted, *by_key.values()]
    return wanted


def known_rows(folder: Path) -> list[Row]:
    """The rows of all experiments in a folder."""
    return [
        row
        for name in experiments()
        for profile in PROFILES
        for row in read_rows(rows_file(folder, name, profile))
    ]


def seconds_spent(rows: Sequence[Row]) -> float:
    """Seconds that rows took, a training that several share counted once."""
    trainings: dict[str, float] = {}
    played = 0.0
    for row in rows:
        training = row["training"] or {"seconds": 0.0}
        trainings[json.dumps(training, sort_keys=True)] = training["seconds"]
        played += row["seconds"] - training["seconds"]
    return played + sum(trainings.values())


def found_rows(
    experiment: Experiment, profile: str, results: Path
) -> list[tuple[Cell, Row | None]]:
    """Every cell with its row: the user's own, else the published one, else None.

    Whichever experiment of the profile it was played for: equal keys are equal cells.
    A published row among a user's own says so: it has `published`.
    """
    published = ({**row, "published": True} for row in known_rows(PUBLISHED))
    known = [*published, *known_rows(results)]
    by_key = {row["key"]: row for row in known if row["profile"] == profile}
    return [(cell, by_key.get(cell.key)) for cell in cells(experiment, profile)]
