"""`sdm ope`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdm.commands.config_command import OptionGroup, command_with, group_of
from sdm.commands.console import emit, fail, progress_bars, start_jax, user_faults
from sdm.commands.options import Context, Json, Overwrite, Seed, given
from sdm.commands.source_fields import config_fields

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


def _options() -> OptionGroup:
    return group_of(config_fields("data/off_policy/config.py", "OffPolicyConfig"))


OpeCommand = command_with(_options)


def ope(
    context: Context,
    policy: Annotated[
        str,
        typer.Option(
            help="Policy to evaluate: `random`, `behavior`, `always-ACTION`, a `.npz` "
            "or `.npy` file of probabilities, a folder that `sdm solve --out` wrote, "
            "or a language model's run folder."
        ),
    ],
    path: Annotated[
        Path | None, typer.Argument(metavar="LOGS", help="Logged episodes.")
    ] = None,
    logs: Annotated[
        Path | None, typer.Option(help="Logged episodes, in place of the argument.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Policy to compare with on the same episodes.")
    ] = None,
    estimator: Annotated[
        list[str],
        typer.Option(
            help="Estimator, `wpdis`, `pdis`, `is`, `fqe`, `dr`, `wdr` or `model`; all "
            "if not given; repeatable."
        ),
    ] = [],  # noqa: B006
    confounding: Annotated[
        list[float],
        typer.Option(
            help="Factor Λ by which a confounder may change the odds of an action; "
            "repeatable."
        ),
    ] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Estimate a policy's value from episodes that another policy generated.

    Every estimate has a 95 % bootstrap interval, which covers what the logs cannot
    identify, and an effective sample size.

    Example: `sdm ope visits.parquet --policy plan --against behavior --confounding 1.5`
    """
    if (path is None) == (logs is None):
        fail("logs: must be given once, as `sdm ope LOGS` or with `--logs LOGS`")
    with user_faults(), progress_bars() as bar:
        start_jax()
        from sdm.data.logs import read_logs
        from sdm.data.off_policy.config import OffPolicyConfig
        from sdm.data.off_policy.logged_policy import parse_logged_policy
        from sdm.data.off_policy.report import off_policy_report
        from sdm.storage.files import check_output_file, write_atomically
        from sdm.storage.provenance import provenance

        config = OffPolicyConfig(**given(context, "config").merged(None))
        if out is not None:
            check_output_file(out, overwrite=overwrite)
        source = path or logs
        assert source is not None
        found = read_logs(source)
        names = dict.fromkeys(name for name in (policy, against) if name is not None)
        policies = {name: parse_logged_policy(name, found) for name in names}
        report = off_policy_report(
            found,
            policies,
            config,
            estimators=estimator,
            factors=confounding,
            seed=seed,
            progress=bar,
        )
        report |= {"logs": str(source), "seed": seed, "resamples": config.resamples}
        report["provenance"] = provenance(by_torch=False)
        if out is not None:
            write_atomically(out, json.dumps(report, indent=2, allow_nan=False) + "\n")
        _warn(report)
    emit(report, as_json, lambda: _tables(report))
