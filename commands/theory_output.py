"""What the commands of `sdm theory` write and print."""

import csv
import importlib.metadata
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sdm

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

    from sdm.theory.proposition_1_claims import Claim

Report = dict[str, Any]


def run_study(
    work: Callable[[], Report],
    draw: "Callable[[Report], Mapping[str, Figure]]",
    tables: Callable[[Report], Mapping[str, Sequence[Mapping[str, Any]]]],
    out: Path | None,
    *,
    overwrite: bool,
) -> Report:
    """Return the report of `work`; write it, its figures and its tables to `out`."""
    if out is None:
        return work()
    from sdm.storage.files import folder_in_progress, write_atomically
    from sdm.theory.plots import save

    made = {"command": sys.argv[1:], "versions": _versions()}
    with folder_in_progress(out, made, overwrite=overwrite, resumable=False) as folder:
        # These commands cannot be resumed, so they write all files at the end.
        report = work() | {"out": str(out), "made": made}
        text = json.dumps(report, indent=2, allow_nan=False) + "\n"
        figures = draw(report)
        for name, rows in tables(report).items():
            with (folder / f"{name}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        for name, figure in figures.items():
            save(figure, folder / name)
        write_atomically(folder / "results.json", text)
    return report


def _versions() -> dict[str, str]:
    """Return the versions of the packages that the results depend on."""
    names = ("jax", "numpy", "diffrax", "optax")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"sdm": sdm.__version__, **found}


def claims_table(made: "Sequence[Claim]") -> "Table":
    """Return a table of the proof's steps: source, cells and looseness."""
    from sdm.evaluation.fitting_table import FittingTable

    table = FittingTable(title="Proposition 1, step by step")
    for title in ("claim", "source", "cells in which it holds"):
        table.add_column(title)
    for title in ("right / left, min", "median", "max"):
        table.add_column(title, justify="right")
    for claim in made:
        table.add_row(
            claim.name,
            claim.where,
            f"{claim.holds} of {claim.cells}",
            *(f"{ratio:.3g}" for ratio in claim.looseness or ()),
        )
    return table


def rows_table(title: str, rows: Sequence[Mapping[str, Any]]) -> "Table":
    """Return a table with a line per row and a column per name."""
    from sdm.evaluation.fitting_table import FittingTable

    table = FittingTable(title=title)
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(
            *(f"{x:.4g}" if isinstance(x, float) else str(x) for x in row.values())
        )
    return table
