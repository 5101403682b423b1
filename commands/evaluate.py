"""`sdm eval`."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group

from sdm.commands.console import (
    emit,
    fail,
    fail_without,
    progress_bars,
    say,
    start_jax,
    start_torch,
    user_faults,
)
from sdm.commands.eval_benchmarks import benchmarks
from sdm.commands.eval_options import (
    ChosenBackend,
    ConfigFile,
    FigureFile,
    PerTask,
    PolicyNames,
    Quantized,
    Reference,
    SchemaName,
    Setting,
)
from sdm.commands.family_options import DEFAULT
from sdm.commands.options import (
    ALL,
    Backend,
    Context,
    FamilyName,
    Json,
    Overwrite,
    Quantize,
    Resume,
    Seed,
    check_own_family,
)

if TYPE_CHECKING:
    from sdm.data.benchmark import EvaluationConfig
    from sdm.evaluation.result import PolicyResult
    from sdm.policies.spec import ActingOptions
    from sdm.tasks.family import TaskFamily


def evaluate(
    context: Context,
    policy: PolicyNames,
    reference: Reference = None,
    family: FamilyName = DEFAULT,
    setting: Setting = "",
    schema: SchemaName = None,
    quantize: Quantized = None,
    backend: ChosenBackend = Backend.torch,
    config: ConfigFile = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
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
        tests = benchmarks(context, family, setting, seed, config)
        start_jax(every_core=any(test.kind != "mdp" for test in tests))
        for test in tests:
            check_own_family(test.family, test.kind)
        from sdm.policies.spec import ActingOptions

        options = ActingOptions(
            schema=schema,
            quantize="nf4" if quantize is Quantize.nf4 else None,
            backend=backend.value,
        )
        players = _players(tests, policy, reference, options, several=several)
        with ExitStack() as stack:
            kept = _folder(stack, out, players, options, resume=resume, again=overwrite)
            reports = [
                _play(
                    each,
                    options,
                    kept and kept / each.title.replace(" ", "-"),
                    bar,
                    per_task=per_task,
                )
                for each in players
            ]
            report = _all(reports) if several else reports[0]
            _write(report, out, figure)
    emit(report, as_json, lambda: Group(*map(_table, players, reports)))


def _check_outputs(
    out: Path | None, figure: Path | None, *, resume: bool, several: bool
) -> None:
    """Fail unless the files can be what the options ask for."""
    if resume and out is None:
        fail("`--resume` needs `--out`: only a written evaluation can be continued")
    if several and figure is not None:
        fail("`--figure` shows one benchmark: choose one family and one setting")
    if figure is not None and find_spec("matplotlib") is None:
        fail_without("matplotlib", "plot")


def _write(report: Mapping[str, Any], out: Path | None, figure: Path | None) -> None:
    """Write the files that were asked for."""
    if figure is not None:
        from sdm.evaluation.loss_figure import save_loss_figure

        save_loss_figure(report["policies"], figure)
    if out is not None:
        from sdm.storage.files import write_atomically

        write_atomically(out, json.dumps(report, indent=2) + "\n")


class _Players:
    """A benchmark, the policies to evaluate on it, and their reference policy."""

    def __init__(
        self, test: "EvaluationConfig", names: list[str], reference: str | None
    ) -> None:
        self.test, self.names, self.reference = test, names, reference
        self.title = f"{test.family.name} {test.kind}"


def _players(
    tests: Sequence["EvaluationConfig"],
    policies: Sequence[str],
    reference: str | None,
    options: "ActingOptions",
    *,
    several: bool,
) -> list[_Players]:
    """Return the policies of each benchmark, after checking that they apply to it."""
    from sdm.evaluation.evaluate import check_policy
    from sdm.policies.spec import choose_policies, parse_policy

    found = []
    for test in tests:
        names = choose_policies(policies, test.family, test.kind, several=several)
        chosen = reference and reference.replace("{setting}", test.kind)
        chosen = chosen and chosen.replace("{family}", test.family.name)
        if names:
            found.append(_Players(test, names, chosen))
    if not found:
        fail(f"policy: none applies to these tasks, found {', '.join(policies)}")
    if any(parse_policy(n).needs_torch for each in found for n in each.names):
        start_torch()
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
    players: Sequence[_Players],
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
    each: _Players,
    options: "ActingOptions",
    kept: Path | None,
    bar: Any,
    *,
    per_task: bool,
) -> dict[str, Any]:
    """Evaluate all policies on a benchmark and return its report."""
    from sdm.data.benchmark import make_benchmark
    from sdm.evaluation.evaluate import evaluate as run
    from sdm.evaluation.paper import paper_rows
    from sdm.evaluation.tables import result_rows

    results = run(
        each.names, make_benchmark(each.test), options, kept=kept, progress=bar
    )
    _warn_of_odd_tasks(results, each.title)
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


def _table(each: _Players, report: Mapping[str, Any]) -> Any:
    """Return the table of a benchmark."""
    from sdm.evaluation.gap_table import gap_table
    from sdm.evaluation.paper import caption, paper_column
    from sdm.policies.spec import parse_policy

    like = {name: parse_policy(name).like for name in report["policies"]}
    return gap_table(
        report["policies"],
        paper_column(report["paper"], like),
        reference=each.reference,
        test=_words(each.test),
        caption=caption(report["paper"], each.test.family, each.test.kind) or None,
    )


def _words(test: "EvaluationConfig") -> str:
    """Return the benchmark's title: family, non-default options and sizes."""
    from sdm.tasks.registry import reference_of

    parts = [f"{reference_of(test.family)}, {test.kind}", f"T = {test.horizon}"]
    parts += [f"{name} = {value}" for name, value in _changed(test.family)]
    return ", ".join([*parts, f"{test.tasks} tasks x {test.trajectories} episodes"])


def _changed(family: "TaskFamily") -> list[tuple[str, Any]]:
    """Return the family's options that differ from the defaults of its class."""
    try:
        plain = type(family)().config()
    except TypeError:  # it needs an argument, which its reference contains
        return []
    return [(k, x) for k, x in family.config().items() if plain.get(k) != x]


def _warn_of_odd_tasks(results: "Sequence[PolicyResult]", title: str) -> None:
    for result in results:
        for indices, what in (
            (result.gap.undefined_tasks, "of 0 and no defined gap: they are excluded"),
            (result.gap.tiny_tasks, "near 0: each may dominate the mean"),
        ):
            if indices:
                say(
                    f"warning: `{result.policy}`: {title} tasks {list(indices)} have "
                    f"an optimal return {what}",
                    "yellow",
                )
