"""`sdm demo`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from sdm.commands.console import (
    emit,
    say,
    start_jax,
    start_torch,
    user_faults,
)
from sdm.commands.options import Json, Overwrite, Seed
from sdm.commands.progress import progress_bars


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("demo"),
    quick: Annotated[
        bool, typer.Option(help="Fewer tasks and episodes, to save minutes.")
    ] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Run the demo: generate oracle data, fine-tune, and compare optimality gaps.

    Example: `sdm demo`
    """
    with user_faults(), progress_bars() as progress:
        start_jax()
        start_torch()
        from sdm.evaluation.gap_table import gap_table
        from sdm.experiments.demo import QUICK, DemoConfig, paper_values, run_demo
        from sdm.llm.bases import smollm2_folder

        smollm2_folder()  # fail before training if the base model is unavailable
        config = dataclasses.replace(QUICK if quick else DemoConfig(), seed=seed)
        report = run_demo(config, out, overwrite=overwrite, progress=progress)
    emit(report, as_json, lambda: gap_table(report["policies"], paper_values(config)))
    say(f"`{out}` contains this table, its figure, the data and the fine-tuned models")
