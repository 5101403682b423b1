"""`sdm ope`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdm.commands.config_command import OptionGroup, group_of
from sdm.commands.console import (
    emit,
    fail,
    say,
    start_jax,
    user_faults,
)
from sdm.commands.family_options import FamilyCommand, make_family
from sdm.commands.options import (
    KINDS,
    Context,
    Json,
    Overwrite,
    Seed,
    check_own_family,
    check_setting,
    given,
)
from sdm.commands.progress import progress_bars
from sdm.commands.solve_options import Setting
from sdm.commands.source_fields import config_fields

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


class OpeCommand(FamilyCommand):
    """Command with the options of the evaluation, the policies and a family."""

    @property
    def configs(self) -> Mapping[str, OptionGroup]:
        """Return the options of the evaluation and of the policies."""
        evaluation = config_fields("data/off_policy/config.py", "OffPolicyConfig")
        acting = config_fields(
            "data/off_policy/logged_policy.py",
            "PolicyOptions",
            without=("family", "kind"),
        )
        return {"config": group_of(evaluation), "acting": group_of(acting)}

    def dynamic(self, args: Sequence[str]) -> Mapping[str, OptionGroup]:
        """Return these options, and those of a family if there is one."""
        if any(arg.partition("=")[0] == "--family" for arg in args):
            return super().dynamic(args)
        return self.configs


def ope(
    context: Context,
    policy: Annotated[
        str,
        typer.Option(
            help="Policy to evaluate: `random`, `behavior`, `always-ACTION`, a `.npz` "
            "or `.npy` file of probabilities, a folder that `sdm plan --out` or `sdm "
            "solve --out` wrote, a language model's run folder, `icl:BASE`, "
            "`dpt:RUN`, `cql:RUN`, or, with `--family`, another policy of `sdm eval`."
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
    family: Annotated[
        str | None,
        typer.Option(
            help="Tasks that are possible, for policies that plan for them: a family, "
            "or a folder of models, as of `sdm estimate`."
        ),
    ] = None,
    setting: Setting = "",
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Estimate a policy's value from episodes that another policy generated.

    Every estimate has a 95 % bootstrap interval, which covers what the logs cannot
    identify, and an effective sample size.

    Example: `sdm ope visits.parquet --policy plan --against behavior --confounding
    1.5`, or `sdm ope visits.parquet --policy bayes-adaptive --family estimates`
    """
    if (path is None) == (logs is None):
        fail("logs: must be given once, as `sdm ope LOGS` or with `--logs LOGS`")
    with user_faults(), progress_bars() as bar:
        start_jax()
        from sdm.data.logs import read_logs
        from sdm.data.off_policy.config import OffPolicyConfig
        from sdm.data.off_policy.learned_from import (
            OPTIMISTIC,
            learned_from,
            made_from,
        )
        from sdm.data.off_policy.logged_policy import PolicyOptions, parse_logged_policy
        from sdm.data.off_policy.policies.named import RANDOM
        from sdm.data.off_policy.report import off_policy_report
        from sdm.policies.registry import rules
        from sdm.storage.files import check_output_file, write_atomically
        from sdm.storage.provenance import provenance

        config = OffPolicyConfig(**given(context, "config").merged(None))
        acting = PolicyOptions(
            **given(context, "acting").merged(None), **_tasks(context, family, setting)
        )
        if out is not None:
            check_output_file(out, overwrite=overwrite)
        source = path or logs
        assert source is not None
        found = read_logs(source)
        names = dict.fromkeys(name for name in (policy, against) if name is not None)
        plans = set(rules()) - {RANDOM}
        policies = {n: parse_logged_policy(n, found, acting) for n in names}
        report = off_policy_report(
            found,
            policies,
            config,
            estimators=estimator,
            factors=confounding,
            seed=seed,
            progress=bar,
        )
        for name in names:
            planned = name in plans and made_from(Path(family or ""), source)
            if planned or learned_from(name, source):
                report["log_warnings"].append(f"`{name}`: {OPTIMISTIC}")
        report |= {"logs": str(source), "seed": seed, "resamples": config.resamples}
        report["provenance"] = provenance(by_torch=False)
        if out is not None:
            write_atomically(out, json.dumps(report, indent=2, allow_nan=False) + "\n")
        _warn(report)
    emit(report, as_json, lambda: _tables(report))


def _tasks(context: Context, family: str | None, setting: str) -> dict[str, Any]:
    """Return the possible tasks as options of policies."""
    if family is None:
        if setting:
            fail("setting: is that of a family", "pass `--family`, too")
        return {}
    posed = make_family(family, given(context, "family").merged(None))
    able = [kind for kind in KINDS if kind in posed.kinds]
    kind = check_setting(setting or able[0], posed)
    check_own_family(posed, kind)
    return {"family": posed, "kind": kind}


def _warn(report: Mapping[str, Any]) -> None:
    """Print what a reader must know of the results."""
    about = [report, *([report["against"]] if "against" in report else [])]
    said = list(report["log_warnings"])
    for each in about:
        notes = [*each["warnings"], *each.get("confounding", {}).get("warnings", [])]
        said += [f"`{each['policy']}`: {note}" for note in notes]
    for line in said:
        say(f"warning: {line}", "yellow")


def _tables(report: Mapping[str, Any]) -> "Group":
    """Return the tables of estimates, differences and bounds."""
    from rich.console import Group

    about = [report, *([report["against"]] if "against" in report else [])]
    tables = [_estimates(each, report) for each in about]
    if "difference" in report:
        tables.append(_differences(report))
    tables += [_bounds(each, report) for each in about if "confounding" in each]
    return Group(*tables)


def _columns(title: str, caption: str, *names: str) -> "Table":
    from sdm.evaluation.fitting_table import FittingTable

    spare = ("unsupported, %", "effective episodes")
    table = FittingTable(spare=spare, title=title, caption=caption)
    for i, name in enumerate(names):
        table.add_column(name, justify="right" if i else "left")
    return table


def _estimates(each: Mapping[str, Any], report: Mapping[str, Any]) -> "Table":
    low, high = report["returns"]
    table = _columns(
        each["policy"],
        f"{report['episodes']} episodes, mean return "
        f"{report['behavior_return']:.4g}, possible returns {low:.4g} … {high:.4g}",
        *("estimator", "value", "95 % interval", "effective episodes"),
        "unsupported, %",
    )
    for name, row in each["estimators"].items():
        table.add_row(
            name,
            _number(row["value"]),
            _interval(row),
            f"{row['effective_sample_size']:.1f}",
            f"{100 * row['unsupported']:.3g}",
        )
    for name, why in each["refused"].items():
        table.add_row(name, "", why, "", "")
    return table


def _differences(report: Mapping[str, Any]) -> "Table":
    first, second = report["policy"], report["against"]["policy"]
    table = _columns(
        f"{first} − {second}",
        "On the same bootstrap resamples.",
        *("estimator", "difference", "95 % interval"),
    )
    for name, row in report["difference"].items():
        table.add_row(name, _number(row["value"]), _interval(row))
    return table


def _bounds(each: Mapping[str, Any], report: Mapping[str, Any]) -> "Table":
    found = each["confounding"]
    lines = ["Too few effective episodes to say what would turn the ranking."]
    if found["identified"]:
        lines = [_turn("behavior policy", found["behavior_turns_at"])]
    others = [report.get("against", each), report]
    if "against" in report and all(x["confounding"]["identified"] for x in others):
        lines.append(_turn("other policy", report["ranking_turns_at"]))
    table = _columns(
        f"{each['policy']}, if the decision of stage {found['stage']} was confounded",
        "\n".join(lines),
        *("Λ", "lower", "upper", "95 % interval of both"),
    )
    for row in found["bounds"]:
        table.add_row(
            f"{row['factor']:g}",
            _number(row["low"]),
            _number(row["high"]),
            _interval(row),
        )
    return table


def _turn(other: str, factor: float | None) -> str:
    """Say at which Λ the ranking against another policy may turn."""
    shown = "no Λ up to 100" if factor is None else f"Λ = {factor:.3g}"
    return f"The ranking against the {other} may turn at {shown}."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _interval(row: Mapping[str, Any]) -> str:
    return f"{row['ci_low']:.4g} … {row['ci_high']:.4g}"
