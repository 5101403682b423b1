"""Run cells over judges and seeds in a folder that an interrupted run resumes.

config.json    how it was made
rows.jsonl     the result of each cell
report.json    the summary
env.json       versions, commit and device
README.md      a description for readers
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from sdm.storage.files import folder_in_progress, write_atomically
from sdm.storage.provenance import provenance

CELLS = "cells"
Cell = Callable[[Path | None], dict[str, Any]]  # of the folder that it may use
Report = Callable[[Sequence[dict[str, Any]]], dict[str, Any]]


def run_cells(
    cells: Mapping[str, Cell],
    report_of: Report,
    card: Callable[[dict[str, Any]], str],
    plan: Mapping[str, Any],
    out: Path | None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    by_torch: bool = False,
    inputs: tuple[Path, ...] = (),
) -> dict[str, Any]:
    """Run cells that are not stored yet, and return the report of all.

    Args:
        cells: what computes each cell in a folder of its own, by the folder's name.
        report_of: makes the report.
        card: makes the README from the report.
        plan: configuration that determines the results.
        out: folder to write; None to write nothing.
        resume: continue an unfinished run.
        overwrite: replace `out`.
        by_torch: whether PyTorch computes, rather than JAX.
        inputs: paths that are read.

    Raises:
        StorageError: if `out` cannot be written.

    """
    if out is None:
        return report_of([cell(None) for cell in cells.values()])
    options = {"inputs": inputs, "resume": resume, "overwrite": overwrite}
    with folder_in_progress(out, plan, **options) as folder:  # type: ignore[arg-type]
        found = [_stored(folder / CELLS / name, cell) for name, cell in cells.items()]
        report = report_of(found)
        made = json.dumps(provenance(by_torch=by_torch), indent=2) + "\n"
        for name, text in (
            ("config.json", json.dumps(plan, indent=2) + "\n"),
            ("rows.jsonl", "".join(json.dumps(cell) + "\n" for cell in found)),
            ("report.json", json.dumps(report, indent=2) + "\n"),
            ("env.json", made),
            ("README.md", card(report)),
        ):
            write_atomically(folder / name, text)
    shutil.rmtree(out / CELLS)
    return report


def _stored(folder: Path, cell: Cell) -> dict[str, Any]:
    """Return the result of a cell, computed unless it is stored."""
    file = folder / "result.json"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(cell(folder)) + "\n")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def half_width(means: Sequence[float]) -> float | None:
    """Return half the 95 % Student-t interval of a mean; None for a single value."""
    if len(means) < 2:
        return None
    return float(stats.sem(means) * stats.t.ppf(0.975, len(means) - 1))


def interval(values: Sequence[float | None]) -> dict[str, Any]:
    """Return the mean over seeds with its interval, as JSON values."""
    known = [value for value in values if value is not None]
    mean, half = mean_of(values), half_width(known)
    missing = mean is None or half is None
    return {
        "mean": mean,
        "ci_low": None if missing else mean - half,  # type: ignore[operator]
        "ci_high": None if missing else mean + half,  # type: ignore[operator]
        "seeds": list(values),
    }


def seeds_text(seeds: int) -> str:
    """Return the number of seeds in words; a single one is marked as such."""
    return "1 seed only" if seeds == 1 else f"{seeds} seeds"
