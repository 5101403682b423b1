"""`sdm experiment list`, `run` and `report`."""

import enum
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
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
from sdm.commands.options import Json, Overwrite, Resume, Seed

if TYPE_CHECKING:
    from rich.table import Table

    from sdm.experiments.catalogue import Cell, Experiment
    from sdm.experiments.rows import Row
    from sdm.experiments.run import Watcher

experiment = typer.Typer(
    no_args_is_help=True, help="Every figure of the paper, and some of our own."
)


class Profile(enum.StrEnum):
    """Sizes of experiments."""

    smoke = "smoke"
    laptop = "laptop"
    paper = "paper"


Results = Annotated[
    Path, typer.Option(help="Folder of rows, and of what experiments share.")
]
RESULTS = Path("results")


@experiment.command("list")
def list_experiments(
    results: Results = RESULTS, seed: Seed = 0, as_json: Json = False
) -> None:
    """Say what experiments there are, and how much of each is done.

    Nothing here is random: `--seed` is there because every command has it.
    """
    with user_faults():
        from sdm.experiments.catalogue import experiments
        from sdm.experiments.rows import found_rows, known_rows, seconds_spent

        own = {row["key"] for row in known_rows(results)}
        report = {}
        for name, each in experiments().items():
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
            report[name] = {
                "title": each.title,
                "paper": each.paper,
                "question": each.question,
                "profiles": shares,
            }
    emit({"experiments": report}, as_json, lambda: _list_table(report))


def _list_table(report: dict[str, Any]) -> "Table":
    from sdm.evaluation.tables import FittingTable

    title = "Cells that you have done, those published with the code, minutes they took"
    table = FittingTable(spare=("paper", "about"), title=title, title_style="")
    for title in ("experiment", "paper", "about"):
        table.add_column(title)
    for profile in Profile:
        table.add_column(profile.value, justify="right")
    for name, about in report.items():
        shares = []
        for share in about["profiles"].values():
            told = f"{share['done']} of {share['cells']}"
            told += f", {share['published']} published" * bool(share["published"])
            told += f", {share['seconds'] / 60:.0f} min" * bool(share["seconds"])
            shares.append(told)
        table.add_row(name, about["paper"], about["title"], *shares)
    return table


@experiment.command()
def run(
    name: Annotated[str, typer.Argument(help="Experiment, from `list`.")],
    profile: Annotated[
        Profile, typer.Option(help="`smoke`: seconds; `laptop`; `paper`: one GPU.")
    ] = Profile.laptop,
    results: Results = RESULTS,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Only cells of this seed; the profile has them."),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Run an experiment, cell by cell; each is written down as soon as it is done.

    Example: `sdm experiment run mdp-horizon --profile laptop`, and after it was
    stopped the same with `--resume`
    """
    with user_faults():
        from sdm.experiments.catalogue import cells, experiment_named

        chosen = experiment_named(name)
        kinds = {cell.kind for cell in cells(chosen, profile.value)}
        start_jax(every_core=True)
        if kinds & {"finetune", "icl"} and importlib.util.find_spec("torch"):
            start_torch()  # without it other cells can be done
        from sdm.experiments.run import run_experiment

        with _watched(chosen) as watcher:
            outcome = run_experiment(
                chosen,
                profile.value,
                results,
                watcher,
                seed=seed,
                resume=resume,
                overwrite=overwrite,
            )
    report = {
        "experiment": name,
        "profile": profile.value,
        "rows": outcome.rows,
        "failed": [{**cell.spec, "why": why} for cell, why in outcome.failed],
    }
    emit(report, as_json, lambda: _rows_table(chosen, outcome.rows))
    if outcome.failed:
        _, why = outcome.failed[0]
        fail(
            f"{len(outcome.failed)} cells could not be done; the first: {why}",
            "the others are kept: `--resume` tries these again",
            code=1,
        )
    only = " --profile smoke" if profile is Profile.smoke else ""
    place = "" if results == RESULTS else f" --results {results}"
    beside = "" if profile is Profile.smoke else " beside the paper's"
    say(f"`sdm experiment report{only}{place}` shows it{beside}")


def _rows_table(chosen: "Experiment", rows: "list[Row]") -> "Table":
    from rich.table import Table

    table = Table(title=chosen.title)
    for title in ("test", "policy"):
        table.add_column(title)
    for title in ("gap, %", "95 % interval", "seconds"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*_words(row))
    return table


def _words(row: "Row") -> tuple[str, str, str, str, str]:
    """A row for people: test, policy, gap, interval, seconds."""
    seconds = f"{row['seconds']:.0f}"
    if "cells" in row:
        holds = sum(cell["holds"] for cell in row["cells"])
        told = f"{holds} of {len(row['cells'])} below the bound"
        return "κ, M and N", row["policy"], told, "", seconds
    result = row["result"]
    low, high = result["ci_low"], result["ci_high"]
    interval = "" if low is None else f"{low:.2f} … {high:.2f}"
    shown = ("horizon", "q", "models", "alpha", "support", "demonstrations", "pays")
    parts = [f"{k} {row['test'][k]}" for k in shown if k in row["test"]]
    if "tasks" in row["data"]:
        tasks = row["learn"].get("tasks", row["data"]["tasks"])
        parts += [f"q {row['data']['q']} in training"] if "q" in row["data"] else []
        parts += [f"{tasks} tasks"]
    parts += [str(row["learn"][k]) for k in ("schema", "loss") if k in row["learn"]]
    test = ", ".join([row["test"]["setting"], *parts])
    gap = f"{result['gap_percent']:.2f}"
    return test, row["policy"], gap, interval, seconds


def _time(seconds: float) -> str:
    """A length of time, about."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


@contextmanager
def _watched(chosen: "Experiment") -> "Iterator[Watcher]":
    """A bar and the time left on a terminal, and everywhere a line a cell."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}"),
    )

    class Shown:
        def __init__(self, bars: Progress) -> None:
            self.bars = bars
            self.task = bars.add_task(chosen.name, total=1.0, left="")
            self.cells = self.met = 0

        def begin(self, cells: int, todo: int) -> None:
            self.cells, self.met = cells, cells - todo
            if self.met:
                self._say(f"{self.met} of {cells} cells are done already")

        def step(self, cell: "Cell", name: str, share: float, left: float) -> None:
            self.bars.update(
                self.task,
                description=f"{chosen.name}: {cell.policy}, {cell.condition}, {name}",
                completed=share,
                left=f"cell {self.met + 1} of {self.cells}; about {_time(left)} left",
            )

        def done(self, cell: "Cell", row: "Row", left: float) -> None:
            test, policy, gap, interval, seconds = _words(row)
            within = f" ({interval})" if interval else ""
            unit = " %" if "result" in row else ""
            self._say(f"{policy}, {test}: {gap}{unit}{within}, {seconds} s", left)

        def failed(self, cell: "Cell", why: str) -> None:
            self._say(f"{cell.policy}, {cell.condition}: could not be done: {why}", 0)

        def _say(self, text: str, left: float | None = None) -> None:
            if left is not None:
                self.met += 1
                text = f"{self.met} of {self.cells}: {text}"
            if left:
                text += f"; about {_time(left)} left"
            self.bars.console.print(text, soft_wrap=True, markup=False)

    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as bars:
        yield Shown(bars)


@experiment.command()
def report(
    names: Annotated[
        list[str] | None, typer.Argument(help="Experiments; all, if none is named.")
    ] = None,
    profile: Annotated[
        Profile | None, typer.Option(help="Only this; else all that have rows.")
    ] = None,
    results: Results = RESULTS,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; that of the rows, if none.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Make a page of all results beside the paper's, which needs no network.

    Your own rows come first; where you have none, those published with the code are
    shown, with their device and commit. Writes `report.html`, its tables as
    `README.md`, and a picture of each figure; made again from the rows at any time.
    """
    with user_faults():
        for package in ("altair", "vl_convert", "jinja2"):
            if importlib.util.find_spec(package) is None:
                fail_without(package, "plot")
        start_jax()
        from sdm.experiments.catalogue import experiment_named, experiments
        from sdm.experiments.report import sections, write_report
        from sdm.experiments.rows import known_rows

        chosen = [experiment_named(name) for name in names or experiments()]
        if not known_rows(results):
            say(f"`{results}` has no rows: what is shown was published with the code")
        shown = sections(chosen, results, profile and profile.value)
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


def _report_table(found: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table(title=found["page"])
    for title in ("experiment", "profile"):
        table.add_column(title)
    for title in ("cells", "done", "published"):
        table.add_column(title, justify="right")
    for about in found["experiments"]:
        counts = (str(about[name]) for name in ("cells", "done", "published"))
        table.add_row(about["experiment"], about["profile"], *counts)
    return table
