"""`sdm plan`: a policy from logged episodes, with bounds on its value."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdm.commands.config_command import ConfigCommand, OptionGroup, group_of
from sdm.commands.config_options import parameters_of
from sdm.commands.console import emit, pairs_table, say, start_jax, user_faults
from sdm.commands.options import Context, Json, Overwrite, Seed, given
from sdm.commands.plugin_options import named_in, plugin_fields
from sdm.commands.progress import progress_bars
from sdm.commands.source_fields import ROOT, config_fields
from sdm.storage.ownership import check_absent

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT = "pooled"
PLANNERS = ROOT / "data" / "planning" / "planners"


class PlanCommand(ConfigCommand):
    """A command with the options of the planner that `--planner` names."""

    plugins = {"--planner": PLANNERS}  # noqa: RUF012

    def dynamic(self, args: Sequence[str]) -> Mapping[str, OptionGroup]:
        """Return the options of all plans, and those of one planner."""
        name = named_in(args, "--planner", DEFAULT)
        with user_faults():
            fields = plugin_fields(PLANNERS, name, _find)
        panel = f"Options of planner {name}"
        shared = config_fields("data/planning/config.py", "PlanningConfig")
        return {
            "config": group_of(shared),
            "planner": OptionGroup(fields, parameters_of(fields, panel=panel)),
        }


def _find() -> Callable[[str], Any]:
    from sdm.data.planning.planner import planner_class

    return planner_class


def plan(
    context: Context,
    logs: Annotated[
        Path,
        typer.Argument(
            help="Table with one row per decision (.csv, .jsonl, .parquet), folder of "
            "such tables, Minari dataset, or dataset of `sdm solve --out`."
        ),
    ],
    planner: Annotated[
        str,
        typer.Option(
            help="Planner, `pooled`, `support`, `baseline`, `robust`, `posterior`, "
            "`behavior` or `naive`."
        ),
    ] = DEFAULT,
    out: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Plan on logged episodes, and bound the value of the plan from other episodes.

    `--out` writes the policy, which `sdm ope --policy OUT/policy.npz` evaluates.

    Example: `sdm plan logs.csv --planner support --min-visits 20 --out plan`
    """
    with user_faults(), progress_bars() as bar:
        if out is not None:
            check_absent(out, overwrite=overwrite)
        start_jax()
        from sdm.data.logs import read_logs
        from sdm.data.planning.config import PlanningConfig
        from sdm.data.planning.files import plan_from_logs, write_plan
        from sdm.data.planning.planner import planner_class

        config = PlanningConfig(**given(context, "config").merged(None))
        chosen = planner_class(planner)(**given(context, "planner").merged(None))
        found = read_logs(logs)
        bar(f"planning by {planner}", 0, 1)
        if out is None:
            report = plan_from_logs(found, chosen, config, seed=seed)[1]
        else:
            report = write_plan(
                out, logs, found, chosen, config, seed=seed, overwrite=overwrite
            )
        bar(f"planning by {planner}", 1, 1)
    report = {"logs": str(logs), **report, "out": None if out is None else str(out)}
    for text in report["warnings"]:
        say(f"warning: {text}", "yellow")
    emit(report, as_json, lambda: _table(report))


def _table(report: Mapping[str, Any]) -> "Table":
    """Return a table of a plan's report."""
    plain = {name: x for name, x in report.items() if name != "warnings"}
    return pairs_table({name.replace("_", " "): x for name, x in plain.items()})
