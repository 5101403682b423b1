"""`sdm theory validate`, `flow`, `sample-size`, `beyond` and `regret`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdm.commands.console import (
    emit,
    fail,
    pairs_table,
    say,
    start_jax,
    start_plotting,
    user_faults,
)
from sdm.commands.options import Json, Overwrite, Seed
from sdm.commands.progress import doing, progress_bars
from sdm.commands.theory_output import Report, claims_table, rows_table, run_study
from sdm.commands.theory_regret import regret

if TYPE_CHECKING:
    from matplotlib.figure import Figure


theory = typer.Typer(
    no_args_is_help=True, help="Check the theory of linear self-attention."
)

theory.command()(regret)

Dim = Annotated[int, typer.Option(help="Dimension d of the features.")]
Kappas = Annotated[
    list[float], typer.Option("--kappa", help="Condition number κ of Λ; repeatable.")
]
Actions = Annotated[int, typer.Option(help="Number A of candidate actions per step.")]
Steps = Annotated[int, typer.Option("--horizon", help="Horizon T, in steps.")]
Gamma = Annotated[
    float, typer.Option("--discount", help="Discount factor γ, in (0, 1].")
]
Out = Annotated[
    Path | None, typer.Option(help="Folder for figures, CSV and JSON files.")
]
KAPPAS, SUPPORTS = [1.0, 10.0, 100.0], [5, 10, 20, 40, 80, 160]
TRAINS = [10, 20, 40, 80, 160]


@theory.command()
def validate(
    dim: Dim = 5,
    actions: Actions = 5,
    horizon: Steps = 20,
    discount: Gamma = 0.95,
    kappa: Kappas = KAPPAS,
    support: Annotated[
        list[int], typer.Option(help="Number M of prompt examples; repeatable.")
    ] = SUPPORTS,
    train: Annotated[
        list[int], typer.Option(help="Number N of training examples; repeatable.")
    ] = TRAINS,
    tasks: Annotated[int, typer.Option(help="Tasks per cell.")] = 1000,
    out: Out = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Check each step of the proof of Proposition 1 for every κ, M and N.

    Example: `sdm theory validate --out proposition-1`
    """
    if out is not None:
        start_plotting()
    with user_faults(), progress_bars() as bar:
        start_jax()
        from sdm.theory import proposition_1
        from sdm.theory.proposition_1_claims import Claim, claims

        grid = proposition_1.Grid(
            dim=dim,
            actions=actions,
            horizon=horizon,
            discount=discount,
            conditions=tuple(kappa),
            supports=tuple(sorted(support)),
            trains=tuple(sorted(train)),
            tasks=tasks,
            seed=seed,
        )

        def work() -> Report:
            cells = proposition_1.validate(
                grid, progress=lambda done: bar("κ", done, len(kappa))
            )
            return {
                "grid": dataclasses.asdict(grid),
                "all_hold": all(cell.holds for cell in cells),
                "claims": [dataclasses.asdict(c) for c in claims(cells)],
                "cells": proposition_1.rows(cells),
            }

        def draw(report: Report) -> "dict[str, Figure]":
            from sdm.theory import plots

            return {"gap_against_bound": plots.gap_against_bound(report["cells"])}

        report = run_study(
            work, draw, lambda r: {"cells": r["cells"]}, out, overwrite=overwrite
        )
    made = [Claim(**claim) for claim in report["claims"]]
    emit(report, as_json, lambda: claims_table(made))


@theory.command()
def flow(
    dim: Dim = 5,
    kappa: Kappas = KAPPAS,
    train: Annotated[int, typer.Option(help="Number N of training examples.")] = 20,
    scale: Annotated[
        float | None,
        typer.Option(help="Initial scale σ (default: half the largest allowed)."),
    ] = None,
    out: Out = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Integrate the gradient flow of the layer and estimate Γ from its limit.

    Example: `sdm theory flow --dim 10 --kappa 100`
    """
    if out is not None:
        start_plotting()
    with user_faults(), progress_bars() as bar:
        start_jax()
        from sdm.theory import plots
        from sdm.theory.flow_study import flow_study

        curves = {}

        def work() -> Report:
            found = flow_study(
                kappa,
                dim=dim,
                train=train,
                scale=scale,
                seed=seed,
                progress=lambda done: bar("flows", done, len(kappa)),
            )
            curves.update(found.curves)
            return {"dim": dim, "train": train, "seed": seed, "flows": found.rows}

        def draw(report: Report) -> "dict[str, Figure]":
            return {"flow": plots.flow(curves)}

        report = run_study(
            work, draw, lambda r: {"flows": r["flows"]}, out, overwrite=overwrite
        )
    emit(
        report,
        as_json,
        lambda: rows_table("Limit of the gradient flow", report["flows"]),
    )


@theory.command("sample-size")
def sample_size(
    delta: Annotated[
        float, typer.Option(help="Largest loss δ, in units of the return.")
    ],
    dim: Dim = 5,
    kappa: Annotated[float, typer.Option(help="Condition number κ of Λ.")] = 10.0,
    actions: Actions = 5,
    horizon: Steps = 20,
    discount: Gamma = 0.95,
    calibration: Annotated[
        float | None,
        typer.Option(help="Calibration constant C (default: estimated by simulation)."),
    ] = None,
    tasks: Annotated[int, typer.Option(help="Tasks in the simulation.")] = 200,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compute the sample sizes of Proposition 2 and check them by simulation.

    Example: `sdm theory sample-size --delta 5`
    """
    with user_faults(), progress_bars():
        start_jax()
        import numpy as np

        from sdm.theory.calibrated_sample_size import calibrated_sample_sizes
        from sdm.theory.covariances import log_spaced_eigenvalues
        from sdm.theory.sample_size import MOST_SIMULATED

        doing("simulating")
        assumed, sizes, found = calibrated_sample_sizes(
            delta,
            np.diag(log_spaced_eigenvalues(dim, kappa)),
            horizon=horizon,
            discount=discount,
            calibration=calibration,
            actions=actions,
            tasks=tasks,
            seed=seed,
        )
        if found is None:
            say(
                f"warning: not simulated: M must be {MOST_SIMULATED} or fewer, found "
                f"{sizes.support}",
                "yellow",
            )
        report = {
            "delta": delta,
            "kappa": kappa,
            "dim": dim,
            "horizon": horizon,
            "discount": discount,
            "calibration_assumed": assumed,
            **dataclasses.asdict(sizes),
            "achieved_gap": found and found.gap,
            "achieved_gap_se": found and found.gap_se,
            "achieved_calibration": found and found.calibration,
            "holds": found and found.gap <= delta,
        }
    emit(report, as_json, lambda: pairs_table(report))


@theory.command()
def beyond(
    study: Annotated[
        list[str] | None,
        typer.Argument(help="Names of studies (default all)."),
    ] = None,
    out: Out = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Run studies that relax the assumptions of the bound or test its looseness.

    Studies: finite-training, linear-mdp, covariate-shift, looseness, noisy-labels.

    Example: `sdm theory beyond linear-mdp --out studies`
    """
    if out is not None:
        start_plotting()
    with user_faults(), progress_bars() as bar:
        start_jax()
        from sdm.theory import plots
        from sdm.theory.beyond import STUDIES

        chosen = study or list(STUDIES)
        for name in chosen:
            if name not in STUDIES:
                fail(f"unknown study `{name}`", f"choose from {', '.join(STUDIES)}")

        def work() -> Report:
            rows = {}
            for index, name in enumerate(chosen):
                bar("studies", index, len(chosen))
                rows[name] = STUDIES[name](seed)
            bar("studies", len(chosen), len(chosen))
            return {"seed": seed, "studies": rows}

        def draw(report: Report) -> "dict[str, Figure]":
            found = report["studies"]
            return {name: plots.DRAWINGS[name](rows) for name, rows in found.items()}

        report = run_study(work, draw, lambda r: r["studies"], out, overwrite=overwrite)
    counts = {name: f"{len(rows)} rows" for name, rows in report["studies"].items()}
    emit(report, as_json, lambda: pairs_table(counts | {"out": str(out)}))
