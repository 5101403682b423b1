"""`sdm estimate`: describe logged episodes, and estimate models from them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdm.commands.config_command import ConfigCommand, OptionGroup, group_of
from sdm.commands.config_options import parameters_of
from sdm.commands.console import (
    emit,
    fail,
    pairs_table,
    say,
    start_jax,
    user_faults,
)
from sdm.commands.options import Context, Json, Overwrite, Seed, given
from sdm.commands.plugin_options import named_in, plugin_fields
from sdm.commands.progress import progress_bars
from sdm.commands.source_fields import ROOT, config_fields
from sdm.storage.ownership import check_absent

if TYPE_CHECKING:
    from rich.console import Group

DEFAULT = "tabular"
ESTIMATORS = ROOT / "data" / "estimation" / "estimators"
RARE = 10  # actions and pairs that the description shows


class EstimateCommand(ConfigCommand):
    """A command with the options of the estimator that `--estimator` names."""

    plugins = {"--estimator": ESTIMATORS}  # noqa: RUF012

    def dynamic(self, args: Sequence[str]) -> Mapping[str, OptionGroup]:
        """Return what all estimators assume, and the options of one."""
        name = named_in(args, "--estimator", DEFAULT)
        with user_faults():
            fields = plugin_fields(ESTIMATORS, name, _find)
        panel = f"Options of estimator {name}"
        shared = config_fields("data/estimation/config.py", "EstimationConfig")
        return {
            "config": group_of(shared),
            "estimator": OptionGroup(fields, parameters_of(fields, panel=panel)),
        }


def _find() -> Callable[[str], Any]:
    from sdm.data.estimation.estimator import estimator_class

    return estimator_class


def estimate(
    context: Context,
    logs: Annotated[
        Path,
        typer.Argument(
            help="Table with one row per decision (.csv, .jsonl, .parquet), folder of "
            "such tables, Minari dataset, or dataset of `sdm solve --out`."
        ),
    ],
    describe: Annotated[
        bool, typer.Option("--describe", help="Only describe the episodes.")
    ] = False,
    estimator: Annotated[str, typer.Option(help="Estimator of the models.")] = DEFAULT,
    reward_min: Annotated[
        float | None,
        typer.Option(help="Smallest possible reward; not checked if not given."),
    ] = None,
    reward_max: Annotated[
        float | None,
        typer.Option(help="Largest possible reward; not checked if not given."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Estimate models, or sets of models, from logged episodes.

    `--out` writes a model file for each task, which `sdm solve --model` reads, and
    `--family FOLDER` if there are two or more.

    Example: `sdm estimate logs.csv --estimator l1 --out model`
    """
    if describe and out is not None:
        fail("`--describe` writes no folder: remove `--out`")
    with user_faults(), progress_bars() as bar:
        if out is not None:
            check_absent(out, overwrite=overwrite)
        start_jax()
        from sdm.data.estimation.config import EstimationConfig
        from sdm.data.estimation.estimator import estimator_class
        from sdm.data.estimation.files import write_estimate
        from sdm.data.estimation.run import estimate_models
        from sdm.data.logs import read_logs
        from sdm.data.logs.summary import describe_logs

        config = EstimationConfig(**given(context, "config").merged(None))
        chosen = estimator_class(estimator)(**given(context, "estimator").merged(None))
        found = read_logs(logs, reward_min=reward_min, reward_max=reward_max)
        if not describe:

            def make() -> Any:
                return estimate_models(found, chosen, config, seed=seed, progress=bar)

            report: dict[str, Any]
            if out is None:
                report = make()[1]
            else:
                report = write_estimate(
                    out,
                    logs,
                    found,
                    chosen,
                    config,
                    make,
                    seed=seed,
                    overwrite=overwrite,
                )
            report["out"] = None if out is None else str(out)
        else:
            report = describe_logs(found, discount=config.discount)
    report = {"logs": str(logs), **report}
    for text in report["warnings"]:
        say(f"warning: {text}", "yellow")
    emit(report, as_json, lambda: _description(report) if describe else _table(report))


def _table(report: dict[str, Any]) -> Any:
    """Return a table of an estimate's report."""
    left_out = ("notes", "warnings", "models", "candidates")
    plain = {name: x for name, x in report.items() if name not in left_out}
    radius = plain.pop("radius")
    if radius:
        plain |= {
            f"radius, {name}": float("inf") if x is None else x
            for name, x in radius.items()
        }
    for index, note in enumerate(report["notes"], 1):
        plain[f"note {index}"] = note
    return pairs_table({k.replace("_", " "): x for k, x in plain.items()})


def _description(report: dict[str, Any]) -> "Group":
    """Return tables of lengths and coverage, of returns, and of the rarest actions."""
    from rich.console import Group

    from sdm.evaluation.fitting_table import FittingTable

    length, cover = report["length"], report["coverage"]
    chance = report["behavior_probability"]
    first = pairs_table(
        {
            "episodes": report["episodes"],
            "tasks": report["tasks"],
            "decisions": report["decisions"],
            "decisions per episode": f"{length['min']} to {length['max']}, mean "
            f"{length['mean']:.4g}",
            "ended, cut off": f"{report['ended']}, {report['cut_off']}",
            "observations": f"{report['observations']}, "
            f"{report['observations_with_decisions']} with decisions",
            "pairs of observation and action": f"{cover['pairs']} of "
            f"{cover['possible']} seen ({cover['share']:.1%}), {cover['below']} of "
            f"them in fewer than {cover['few_visits']} decisions",
            "rewards": f"{report['reward']['min']:g} to {report['reward']['max']:g}",
            "behavior probability": "not logged"
            if chance is None
            else f"{chance['min']:.3g} or more, median {chance['median']:.3g}",
        }
    )
    returns = FittingTable(title="Returns of episodes")
    spread = report["return"]
    deviation = spread["standard_deviation"]
    cells = {"mean": spread["mean"]}
    if deviation is not None:
        cells["standard deviation"] = deviation
    cells |= {f"{q} %": x for q, x in spread["quantiles"].items()}
    for name in cells:
        returns.add_column(name, justify="right")
    returns.add_row(*(f"{x:.4g}" for x in cells.values()))
    rare = FittingTable(title="Actions, the rarest first")
    for name in ("action", "decisions", "share", "observations"):
        rare.add_column(name, justify="left" if name == "action" else "right")
    for row in report["action_shares"][:RARE]:
        share = f"{row['share']:.2%}"
        count = str(row["decisions"])
        rare.add_row(row["action"], count, share, str(row["observations"]))
    return Group(first, returns, rare)
