"""`sdm eval`."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group

from sdm.commands.console import (
    emit,
    fail,
    fail_without,
    start_jax,
    start_torch,
    user_faults,
)
from sdm.commands.eval_benchmarks import benchmarks
from sdm.commands.eval_checks import (
    check_one_process,
    warn_of_language_model_options,
    warn_of_odd_tasks,
)
from sdm.commands.eval_options import (
    ChosenBackend,
    ConfigFile,
    FigureFile,
    OutFile,
    PerTask,
    PolicyNames,
    Quantized,
    Reference,
    SchemaName,
    Setting,
    Temperature,
    TrustRemoteCode,
)
from sdm.commands.eval_report import Players, table_of
from sdm.commands.family_options import DEFAULT
from sdm.commands.options import (
    ALL,
    Backend,
    Context,
    FamilyName,
    Json,
    Overwrite,
    Resume,
    Seed,
    check_own_family,
)
from sdm.commands.progress import progress_bars

if TYPE_CHECKING:
    from sdm.data.benchmark import EvaluationConfig
    from sdm.policies.spec import ActingOptions


def evaluate(
    context: Context,
    policy: PolicyNames,
    reference: Reference = None,
    family: FamilyName = DEFAULT,
    setting: Setting = "",
    schema: SchemaName = None,
    quantize: Quantized = None,
    backend: ChosenBackend = Backend.torch,
    trust_remote_code: TrustRemoteCode = False,
    temperature: Temperature = 0.0,
    config: ConfigFile = None,
    out: OutFile = None,
    per_task: PerTask = False,
    figure: FigureFile = None,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure optimality gaps of policies on the same unseen tasks.

    `--setting all` evaluates every kind of model that the family supports, `--family
    all` every registered family. `{family}` and `{setting}` in a policy's name are
    replaced by their current values. `--prior-OPTION` sets an option of the family in
    the prior of Bayesian policies. `--family NAME --help` shows the options of another
    family.

    Examples: `sdm eval --policy ce --policy runs/tiny --tasks 100`,
    `sdm eval --policy runs/tiny --setting pomdp --q 0.7 --demonstrations random`,
    `sdm eval --family all --setting all --policy all`
    """
    several = ALL in (family, setting)
    _check_outputs(out, figure, resume=resume, several=several)
    with user_faults(), progress_bars() as bar:
        tests = _tests(context, family, setting, seed, config)
        from sdm.policies.spec import ActingOptions

        options = ActingOptions(
            schema=schema,
            quantize=quantize and quantize.value,
            backend=backend.value,
            trust_remote_code=trust_remote_code,
            temperature=temperature,
        )
        players = _players(context, tests, policy, reference, options, several=several)
        with ExitStack() as stack:
            kept = _folder(stack, out, players, options, resume=resume, again=overwrite)
            reports = [
                _play(
                    each,
                    options,
                    kept and kept / each.title.replace(" ", "-"),
                    bar,
                    per_task=per_task,
                    needs_regrets=figure is not None,
                )
                for each in players
            ]
            report = _all(reports) if several else reports[0]
            _write(report, out, figure)
    emit(report, as_json, lambda: Group(*map(table_of, players, reports)))


def _tests(
    context: Context, family: str, setting: str, seed: int, config: Path | None
) -> list["EvaluationConfig"]:
    """Start JAX, and return the benchmarks after a check of a user's own family."""
    check_one_process()
    tests = benchmarks(context, family, setting, seed, config)
    start_jax(every_core=any(test.kind != "mdp" for test in tests))
    for test in tests:
        check_own_family(test.family, test.kind)
    return tests


def _check_outputs(
    out: Path | None, figure: Path | None, *, resume: bool, several: bool
) -> None:
    """Fail unless the files can be what the options ask for."""
    if resume and out is None:
        fail("`--resume` needs `--out`: only a written evaluation can be continued")
    if several and figure is not None:
        fail("`--figure` shows one benchmark: choose one family and one setting")
    if figure is None:
        return
    if find_spec("matplotlib") is None:
        fail_without("matplotlib", "plot")
    from sdm.evaluation.loss_figure import check_suffix

    with user_faults():
        check_suffix(figure)


def _write(report: Mapping[str, Any], out: Path | None, figure: Path | None) -> None:
    """Write the files that were asked for."""
    if out is not None:
        from sdm.storage.files import write_atomically

        write_atomically(out, json.dumps(report, indent=2) + "\n")
    if figure is not None:
        from sdm.evaluation.loss_figure import save_loss_figure

        save_loss_figure(report["policies"], figure)


def _players(
    context: Context,
    tests: Sequence["EvaluationConfig"],
    policies: Sequence[str],
    reference: str | None,
    options: "ActingOptions",
    *,
    several: bool,
) -> list[Players]:
    """Return the policies of each benchmark, after checking that they apply to it."""
    from sdm.evaluation.evaluate import check_policy
    from sdm.policies.spec import choose_policies, parse_policy

    found = []
    for test in tests:
        names = choose_policies(policies, test.family, test.kind, several=several)
        chosen = reference and reference.replace("{setting}", test.kind)
        chosen = chosen and chosen.replace("{family}", test.family.name)
        if names:
            found.append(Players(test, names, chosen))
    if not found:
        fail(f"policy: none applies to these tasks, found {', '.join(policies)}")
    if any(parse_policy(n).needs_torch for each in found for n in each.names):
        start_torch()
    else:
        warn_of_language_model_options(context)
    for each in found:
        for name in each.names:
            check_policy(name, each.test, options)
        if reference is not None and each.reference not in each.names:
            fail(
                f"reference: `{each.reference}` is not among the policies evaluated on "
                f"{each.title} tasks: {', '.join(each.names)}"
            )
    return found


def _folder(
    stack: ExitStack,
    out: Path | None,
    players: Sequence[Players],
    options: "ActingOptions",
    *,
    resume: bool,
    again: bool,
) -> Path | None:
    """Open the folder that keeps finished episodes until `out` is written."""
    if out is None:
        return None
    from sdm.evaluation.evaluate import plan_of
    from sdm.storage.files import file_in_progress

    plan = {each.title: plan_of(each.names, each.test, options) for each in players}
    return stack.enter_context(
        file_in_progress(out, plan, resume=resume, overwrite=again)
    )


def _play(
    each: Players,
    options: "ActingOptions",
    kept: Path | None,
    bar: Any,
    *,
    per_task: bool,
    needs_regrets: bool,
) -> dict[str, Any]:
    """Evaluate all policies on a benchmark and return its report."""
    from sdm.data.benchmark import make_benchmark
    from sdm.evaluation.evaluate import evaluate as run
    from sdm.evaluation.loss_figure import NoRegretError
    from sdm.evaluation.paper import paper_rows
    from sdm.evaluation.tables import result_rows

    bed = make_benchmark(each.test)
    if needs_regrets and bed.optimal_losses is None:
        raise NoRegretError
    results = run(each.names, bed, options, kept=kept, progress=bar)
    warn_of_odd_tasks(results, each.title)
    return {
        "family": each.test.family.name,
        "setting": each.test.kind,
        "config": each.test.describe(),
        "policies": result_rows(results, each.reference, per_task=per_task),
        "paper": dict(paper_rows(each.test)),
    }


def _all(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the reports of several benchmarks by family and kind."""
    return {"benchmarks": {f"{r['family']} {r['setting']}": r for r in reports}}
