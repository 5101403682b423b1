"""`sdm experiment list`, `run`, `compare` and `report`."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdm.commands.console import (
    emit,
    fail,
    fail_without,
    say,
    start_jax,
    start_torch,
    user_faults,
)
from sdm.commands.experiment_compare import compare
from sdm.commands.experiment_options import RESULTS, IdleSeed, Profile, Results
from sdm.commands.experiment_progress import rows_table, watched
from sdm.commands.options import Json, Overwrite, Resume
from sdm.commands.progress import doing, progress_bars

if TYPE_CHECKING:
    from rich.table import Table

    from sdm.experiments.runner import Outcome
    from sdm.experiments.spec import Experiment

experiment = typer.Typer(
    no_args_is_help=True, help="Run and report experiments: the paper's and others."
)
experiment.command()(compare)


@experiment.command("list")
def list_experiments(
    results: Results = RESULTS, seed: IdleSeed = 0, as_json: Json = False
) -> None:
    """List the experiments and the number of completed cells of each."""
    with user_faults(), progress_bars():
        doing("reading the rows")
        from sdm.experiments.catalogue import experiments
        from sdm.experiments.rows import known_rows

        own = {row["key"] for row in known_rows(results)}
        report = {
            name: {
                "title": each.title,
                "paper": each.paper,
                "question": each.question,
                "profiles": _shares(each, results, own),
            }
            for name, each in experiments().items()
        }
    emit({"experiments": report}, as_json, lambda: _list_table(report))


def _shares(
    each: "Experiment", results: Path, own: set[str]
) -> dict[str, dict[str, float]]:
    """Return counts of cells and their seconds, by profile."""
    from sdm.experiments.rows import found_rows, seconds_spent

    shares = {}
    for profile in Profile:
        found = found_rows(each, profile.value, results)
        rows = [row for _, row in found if row is not None]
        done = sum(row["key"] in own for row in rows)
        shares[profile.value] = {
            "cells": len(found),
            "done": done,
            "published": len(rows) - done,
            "seconds": seconds_spent(rows),
        }
    return shares


def _list_table(report: Mapping[str, Any]) -> "Table":
    from sdm.evaluation.fitting_table import FittingTable

    title = "Cells that you ran, cells published with the code, and their run time"
    table = FittingTable(spare=("figure", "about", "smoke"), title=title)
    for title in ("experiment", "figure", "about"):
        table.add_column(title)
    for profile in Profile:
        table.add_column(profile.value, justify="right")
    for name, about in report.items():
        shares = []
        for share in about["profiles"].values():
            text = f"{share['done']} of {share['cells']}"
            text += f", {share['published']} published" * bool(share["published"])
            text += f", {share['seconds'] / 60:.0f} min" * bool(share["seconds"])
            shares.append(text)
        table.add_row(name, about["paper"], about["title"], *shares)
    return table


@experiment.command()
def run(
    name: Annotated[
        str,
        typer.Argument(help="Experiment from `list`, or a configuration FILE.toml."),
    ],
    profile: Annotated[
        Profile,
        typer.Option(
            help="Size: `smoke` (seconds per cell), `laptop`, or `paper` (needs a GPU)."
        ),
    ] = Profile.laptop,
    results: Results = RESULTS,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Run only the cells of this seed (default all)."),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Run only the cells of this policy (default all). Repeatable."
        ),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Run an experiment cell by cell, and write each result row when its cell is done.

    Examples: `sdm experiment run mdp-horizon --profile laptop`, with `--resume` after
    an interruption; `sdm experiment run mine.toml --profile smoke`
    """
    with user_faults(), progress_bars():
        from sdm.experiments.catalogue import experiment_named
        from sdm.experiments.grid_cells import cells

        chosen = experiment_named(name)
        from sdm.experiments.study import needs_torch

        found = cells(chosen, profile.value)
        start_jax(every_core=True)
        if importlib.util.find_spec("torch") and any(map(needs_torch, found)):
            start_torch()  # without PyTorch, the other cells still run
        from sdm.experiments.runner import run_experiment

        with watched(chosen.name) as watcher:
            outcome = run_experiment(
                chosen,
                profile.value,
                results,
                watcher,
                seed=seed,
                policies=policy or (),
                resume=resume,
                overwrite=overwrite,
            )
    report = {
        "experiment": chosen.name,
        "profile": profile.value,
        "rows": outcome.rows,
        "failed": [
            {"policy": cell.policy, **cell.spec, "why": why}
            for cell, why in outcome.failed
        ],
    }
    emit(report, as_json, lambda: rows_table(chosen.title, outcome.rows))
    _fail_if_failed(outcome)
    argument = "" if name == chosen.name else f" {name}"
    only = " --profile smoke" if profile is Profile.smoke else ""
    place = "" if results == RESULTS else f" --results {results}"
    say(f"`sdm experiment report{argument}{only}{place}` shows the results")


def _fail_if_failed(outcome: "Outcome") -> None:
    if outcome.failed:
        _, why = outcome.failed[0]
        fail(
            f"{len(outcome.failed)} cells failed; the first: {why}",
            "completed cells are kept: retry the failed ones with `--resume`",
            code=1,
        )


@experiment.command()
def report(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Experiments or configuration files (default all)."),
    ] = None,
    profile: Annotated[
        Profile | None,
        typer.Option(help="Profile to report (default: every profile with rows)."),
    ] = None,
    results: Results = RESULTS,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write (default: `--results`).")
    ] = None,
    seed: IdleSeed = 0,
    as_json: Json = False,
) -> None:
    """Write a self-contained page that compares all results with the paper's.

    The report uses your own rows and, where you have none, the rows published with the
    code, with their device and commit. It writes `report.html`, its tables as
    `README.md`, and an image of each figure.
    """
    with user_faults(), progress_bars():
        for package in ("altair", "vl_convert", "jinja2"):
            if importlib.util.find_spec(package) is None:
                fail_without(package, "plot")
        start_jax()
        from sdm.experiments.catalogue import experiment_named, experiments
        from sdm.experiments.report import write_report
        from sdm.experiments.rows import known_rows
        from sdm.experiments.sections import sections

        chosen = [experiment_named(name) for name in names or experiments()]
        if not known_rows(results):
            say(f"`{results}` has no rows: the report shows the published rows")
        doing("reading the rows")
        shown = sections(chosen, results, profile and profile.value)
        doing("drawing the figures")
        written = write_report(shown, out or results)
    found = {
        "page": str(written[0]),
        "files": [str(path) for path in written],
        "experiments": [
            {
                "experiment": section.name,
                "profile": section.profile,
                "cells": section.wanted,
                "done": section.done - section.published,
                "published": section.published,
            }
            for section in shown
        ],
    }
    emit(found, as_json, lambda: _report_table(found))


def _report_table(found: Mapping[str, Any]) -> "Table":
    from sdm.evaluation.fitting_table import FittingTable

    table = FittingTable(title=found["page"])
    for title in ("experiment", "profile"):
        table.add_column(title)
    for title in ("cells", "done", "published"):
        table.add_column(title, justify="right")
    for about in found["experiments"]:
        counts = (str(about[name]) for name in ("cells", "done", "published"))
        table.add_row(about["experiment"], about["profile"], *counts)
    return table
