"""`sdm solve`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from sdm.commands.console import (
    emit,
    pairs_table,
    progress_bars,
    start_jax,
    user_faults,
)
from sdm.commands.options import (
    Discount,
    Horizon,
    Json,
    Overwrite,
    PMax,
    PMin,
    Resume,
    Seed,
    Setting,
    energy_family,
)


def solve(
    setting: Setting = "mdp",
    tasks: Annotated[int, typer.Option(help="Number of tasks.")] = 3200,
    horizon: Horizon = 10,
    discount: Discount = 0.95,
    p_min: PMin = 0.2,
    p_max: PMax = 0.9,
    trajectories: Annotated[
        int, typer.Option(help="Optimal episodes per task, where `--out` is given.")
    ] = 15,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the oracle dataset.")
    ] = None,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Sample energy tasks and solve them; with `--out`, write the oracle's episodes.

    Example: `sdm solve --tasks 3200 --horizon 10 --out data`
    """
    with user_faults(), progress_bars() as bar:
        family = energy_family(setting, p_min, p_max, discount)
        start_jax()
        import jax

        from sdm.solvers_jax.oracle_data import (
            OracleConfig,
            solve_tasks,
            write_oracle_dataset,
        )

        config = OracleConfig(family, horizon, tasks, trajectories, seed)

        def progress(done: int) -> None:
            bar("solving", done, tasks)

        if out is None:
            summary = solve_tasks(config, progress=progress)
        else:
            summary = write_oracle_dataset(
                config, out, resume=resume, overwrite=overwrite, progress=progress
            )
    report = {
        "setting": setting,
        "tasks": tasks,
        "horizon": horizon,
        **dataclasses.asdict(summary),
        "tasks_per_second": tasks / summary.seconds,
        "device": str(jax.devices()[0].device_kind),
        "out": str(out) if out else None,
    }
    emit(report, as_json, lambda: pairs_table(report))
