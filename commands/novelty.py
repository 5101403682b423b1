"""`sdm novelty`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdm.commands.config_command import OptionGroup
from sdm.commands.console import (
    emit,
    fail,
    start_jax,
    start_torch,
    user_faults,
)
from sdm.commands.family_options import DEFAULT, FamilyCommand, make_family
from sdm.commands.options import (
    Context,
    FamilyName,
    Json,
    Overwrite,
    Resume,
    Seed,
    check_own_family,
    given,
)
from sdm.commands.progress import progress_bars

if TYPE_CHECKING:
    from rich.table import Table

JUDGES = ["synthetic:1"]


class NoveltyCommand(FamilyCommand):
    """Command with the options of the family."""

    @property
    def configs(self) -> dict[str, OptionGroup]:
        """Return no further options."""
        return {}


def novelty(
    context: Context,
    family: FamilyName = DEFAULT,
    judge: Annotated[
        list[str],
        typer.Option(help="Judge, `synthetic:ACCURACY` or `model:BASE`; repeatable."),
    ] = JUDGES,
    bonus: Annotated[
        float, typer.Option(help="Bonus of a new state, above 0, in units of reward.")
    ] = 0.1,
    horizon: Annotated[
        int | None, typer.Option(help="Decisions per episode; the family's default.")
    ] = None,
    tasks: Annotated[
        int | None, typer.Option(help="Number of unseen tasks; the family's default.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of seeds, from `--seed` upwards.")
    ] = 3,
    out: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Explore tasks without demonstrations, with a bonus for states that are new.

    A judge says whether a state is new, given the states before it. The row `none` is
    exploration without a bonus.

    Example: `sdm novelty --family darkroom --pays arrival --judge synthetic:0.9`
    """
    if resume and out is None:
        fail("`--resume` needs `--out`: only a written folder can be continued")
    with user_faults(), progress_bars() as bar:
        posed = make_family(family, given(context, "family").merged(None))
        start_jax()
        check_own_family(posed, "mdp")
        from sdm.feedback.judge import parse_judge
        from sdm.feedback.novelty_study import NoveltyConfig, run_novelty

        default = posed.defaults
        config = NoveltyConfig(
            family=posed,
            horizon=horizon if horizon is not None else default.horizon,
            tasks=tasks
            if tasks is not None
            else default.test_tasks or posed.available("test") or 1,
            bonus=bonus,
        )
        judges = [parse_judge(text) for text in judge]
        if any(each.needs_torch for each in judges):
            start_torch()
        report = run_novelty(
            judges,
            config,
            seeds=range(seed, seed + seeds),
            out=out,
            resume=resume,
            overwrite=overwrite,
            progress=bar,
        )
    report["out"] = str(out) if out else None
    emit(report, as_json, lambda: _table(report))


def _table(report: dict[str, Any]) -> "Table":
    """Return a table with a row for each judge."""
    from sdm.evaluation.fitting_table import FittingTable

    table = FittingTable(caption="Means over seeds, with 95 % intervals (Student's t).")
    names = ("found_percent", "steps_mean", "return_mean", "states_mean")
    for name in ("judge", *names, "hits", "false_alarms"):
        table.add_column(name.replace("_", " "))
    for name, found in report["judges"].items():
        cells = list[str]()
        for each in names:
            low, high = found[each]["ci_low"], found[each]["ci_high"]
            ends = "" if low is None else f" ({low:.1f} … {high:.1f})"
            cells.append(f"{found[each]['mean']:.1f}{ends}")
        for each in ("hits", "false_alarms"):
            mean = found[each]["mean"]
            cells.append("" if mean is None else f"{mean:.2f}")
        table.add_row(name, *cells)
    return table
