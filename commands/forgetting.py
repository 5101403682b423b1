"""`sdm forgetting`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdm.commands.config_command import OptionGroup, group_of
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
from sdm.commands.source_fields import config_fields

if TYPE_CHECKING:
    from rich.table import Table

EPISODES = 3  # of the oracle in each text: two demonstrations and a query


class ForgettingCommand(FamilyCommand):
    """Command with the options of the training and of the family."""

    @property
    def configs(self) -> dict[str, OptionGroup]:
        """Return the options of the training."""
        fields = config_fields("feedback/forgetting_config.py", "ForgettingConfig")
        return {"config": group_of(fields)}


def forgetting(
    context: Context,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    family: FamilyName = DEFAULT,
    tasks: Annotated[
        int | None,
        typer.Option(help="Training tasks of the texts; 200, or all of the family."),
    ] = None,
    horizon: Annotated[
        int | None, typer.Option(help="Decisions per episode; the family's default.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of seeds, from `--seed` upwards.")
    ] = 3,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure what a model forgets if it is tuned as a judge, or as a policy.

    Both see the same number of tokens with the same optimiser, once with an adapter,
    once with all weights. Held-out perplexity and small language tasks are measured
    before and after.

    Example: `sdm forgetting --base smollm2 --out forgetting`
    """
    with user_faults(), progress_bars() as bar:
        values = given(context, "config").merged(None)
        if "base" not in values:
            fail("Missing option '--base'.", "sdm forgetting --help")
        posed = make_family(family, given(context, "family").merged(None))
        start_torch()
        start_jax()
        check_own_family(posed, "mdp")
        from sdm.feedback.config import FeedbackConfig
        from sdm.feedback.forgetting import run_forgetting
        from sdm.feedback.forgetting_config import ForgettingConfig
        from sdm.feedback.reward_model import RewardConfig
        from sdm.llm.base_names import check_base_name

        config = ForgettingConfig(**values)
        check_base_name(config.base)
        most = posed.available("train")
        study = FeedbackConfig(
            family=posed,
            horizon=horizon if horizon is not None else posed.defaults.horizon,
            tasks=tasks if tasks is not None else min(200, most or 200),
            reward=RewardConfig(support=EPISODES),
        )
        report = run_forgetting(
            config,
            study,
            seeds=range(seed, seed + seeds),
            out=out,
            resume=resume,
            overwrite=overwrite,
            progress=bar,
        )
    report["out"] = str(out)
    emit(report, as_json, lambda: _table(report))


def _table(report: dict[str, Any]) -> "Table":
    """Return a table with a row for each way to tune."""
    from sdm.evaluation.fitting_table import FittingTable

    table = FittingTable(caption="Means over seeds, before → after; 95 % intervals.")
    for name in ("tuned as", "weights", "perplexity", "change", "right answers"):
        table.add_column(name)
    table.add_column("tuning loss")
    for row in report["rows"]:
        shown = {
            name: f"{row[f'{name}_before']['mean']:.3g} → "
            f"{row[f'{name}_after']['mean']:.3g}"
            for name in ("perplexity", "accuracy", "tuning_loss")
        }
        change = row["perplexity_change"]
        ends = ""
        if change["ci_low"] is not None:
            ends = f" ({change['ci_low']:.2f} … {change['ci_high']:.2f})"
        table.add_row(
            row["tuning"],
            row["weights"],
            shown["perplexity"],
            f"{change['mean']:.2f}{ends}",
            shown["accuracy"],
            shown["tuning_loss"],
        )
    return table
