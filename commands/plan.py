"""`sdm plan`: a policy from logged episodes, with bounds on its value."""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdm.commands.config_command import ConfigCommand, OptionGroup, group_of
from sdm.commands.config_options import OptionField, fields_of, parameters_of
from sdm.commands.console import emit, pairs_table, say, start_jax, user_faults
from sdm.commands.options import Context, Json, Overwrite, Seed, given
from sdm.commands.source_fields import ROOT, class_fields, config_fields, string_of

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT = "pooled"
PLANNERS = ROOT / "data" / "planning" / "planners"


class PlanCommand(ConfigCommand):
    """A command with the options of the planner that `--planner` names."""

    def dynamic(self, args: Sequence[str]) -> Mapping[str, OptionGroup]:
        """Return the options of all plans, and those of one planner."""
        name = DEFAULT
        for word, following in zip(args, [*args[1:], ""], strict=False):
            if word == "--planner":
                name = following
            elif word.startswith("--planner="):
                name = word.partition("=")[2]
        with user_faults():
            fields = planner_fields(name)
        panel = f"Options of planner {name}"
        shared = config_fields("data/planning/config.py", "PlanningConfig")
        return {
            "config": group_of(shared),
            "planner": OptionGroup(fields, parameters_of(fields, panel=panel)),
        }


def planner_fields(name: str) -> list[OptionField]:
    """Return the options of a planner.

    Raises:
        ValueError: if it is unknown.

    """
    for path in sorted(PLANNERS.glob("[!_]*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and string_of(node, "name") == name:
                return class_fields(node)
    start_jax()
    from sdm.data.planning.planner import planner_class

    return fields_of(planner_class(name))


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
    with user_faults():
        start_jax()
        from sdm.data.logs import read_logs
        from sdm.data.planning.config import PlanningConfig
        from sdm.data.planning.files import plan_from_logs, write_plan
        from sdm.data.planning.planner import planner_class

        config = PlanningConfig(**given(context, "config").merged(None))
        chosen = planner_class(planner)(**given(context, "planner").merged(None))
        found = read_logs(logs)
        if out is None:
            report = plan_from_logs(found, chosen, config, seed=seed)[1]
        else:
            report = write_plan(
                out, logs, found, chosen, config, seed=seed, overwrite=overwrite
            )
    report = {"logs": str(logs), **report, "out": None if out is None else str(out)}
    for text in report["warnings"]:
        say(f"warning: {text}", "yellow")
    emit(report, as_json, lambda: _table(report))


def _table(report: Mapping[str, Any]) -> "Table":
    """Return a table of a plan's report."""
    plain = {name: x for name, x in report.items() if name != "warnings"}
    return pairs_table({name.replace("_", " "): x for name, x in plain.items()})
