"""`sdm theory regret`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdm.commands.console import (
    emit,
    start_jax,
    start_plotting,
    user_faults,
)
from sdm.commands.options import Json, Overwrite, Seed
from sdm.commands.progress import progress_bars
from sdm.commands.theory_output import Report, rows_table, run_study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sdm.theory.regret_study import Study

SPACES = ["ball", "simplex"]


def regret(
    space: Annotated[
        list[str],
        typer.Option(help="Policy space, `ball` or `simplex`; repeatable."),
    ] = SPACES,
    dim: Annotated[int, typer.Option(help="Dimension d of a reward.")] = 3,
    horizon: Annotated[int, typer.Option(help="Rounds T of a training scenario.")] = 20,
    test_horizon: Annotated[int, typer.Option(help="Rounds of a test.")] = 100,
    iterations: Annotated[
        int, typer.Option(help="Iterations of play, selection and fit.")
    ] = 30,
    scenarios: Annotated[int, typer.Option(help="Scenarios per iteration.")] = 1000,
    episodes: Annotated[int, typer.Option(help="Episodes per scenario.")] = 10,
    kept: Annotated[
        int, typer.Option(help="Episodes of lowest regret that are kept.")
    ] = 2,
    tests: Annotated[int, typer.Option(help="Random scenarios of a test.")] = 1000,
    out: Annotated[
        Path | None, typer.Option(help="Folder for figures, CSV and JSON files.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Simulate regret-minimising fine-tuning of a single-layer linear self-attention.

    Example: `sdm theory regret --space ball --iterations 30`
    """
    if out is not None:
        start_plotting()
    with user_faults(), progress_bars() as bar:
        start_jax()
        from sdm.theory.regret_study import study
        from sdm.theory.regret_training import Setting

        settings = [
            Setting(
                space=each,
                dim=dim,
                horizon=horizon,
                scenarios=scenarios,
                episodes=episodes,
                kept=kept,
            )
            for each in dict.fromkeys(space)
        ]

        def work() -> Report:
            found: dict[str, Any] = {"seed": seed, "progress": [], "regret": []}
            for each in settings:
                made = study(
                    each,
                    iterations=iterations,
                    horizon=test_horizon,
                    tests=tests,
                    seed=seed,
                    progress=partial(bar, each.space),
                )
                rows = [{"space": each.space, **x._asdict()} for x in made.progress]
                found["progress"] += rows
                found["regret"] += regret_rows(each.space, made)
            return found

        def draw(report: Report) -> "dict[str, Figure]":
            from sdm.theory.plots import regret_training

            return {"training": regret_training(report["progress"])}

        def tables(report: Report) -> dict[str, Any]:
            return {name: report[name] for name in ("progress", "regret")}

        report = run_study(work, draw, tables, out, overwrite=overwrite)
    emit(
        report,
        as_json,
        lambda: rows_table("Regret before and after training", report["regret"]),
    )


def regret_rows(space: str, made: "Study") -> list[dict[str, Any]]:
    """Return the regret of the initial and the final layer, and its exponent."""
    from sdm.evaluation.regret_curve import regret_exponent

    rows = []
    for layer, found in (("initial", made.start), ("final", made.end)):
        cases = (
            ("random", found.random, found.bound),
            ("alternating", found.alternating, found.bound_alternating),
        )
        for rewards, regret, bound in cases:
            growth = regret_exponent(regret)
            rows.append(
                {
                    "space": space,
                    "layer": layer,
                    "rewards": rewards,
                    "regret": float(regret.sum(-1).mean()),
                    "bound": _number(bound),
                    "exponent": growth and growth.slope,
                    "exponent_low": growth and _number(growth.low),
                    "exponent_high": growth and _number(growth.high),
                }
            )
    return rows


def _number(x: float) -> float | None:
    """Return a number that JSON can represent; None for others."""
    return x if abs(x) < float("inf") else None
