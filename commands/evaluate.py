"""`sdm eval`."""

import dataclasses
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group

from sdm.commands.console import (
    emit,
    fail,
    progress_bars,
    say,
    start_jax,
    start_torch,
    user_faults,
)
from sdm.commands.options import (
    SETTINGS,
    Alpha,
    Backend,
    Believe,
    Context,
    Demonstrations,
    Discount,
    GoalReward,
    Json,
    Models,
    Overwrite,
    Pays,
    PMax,
    PMin,
    Quantize,
    Resume,
    Schema,
    Seed,
    SeeingChance,
    Size,
    Split,
    of_setting,
    task_family,
    warn_of_idle_options,
)

if TYPE_CHECKING:
    from sdm.data.benchmark import EvaluationConfig
    from sdm.evaluation.evaluate import PolicyResult


def evaluate(
    context: Context,
    policy: Annotated[
        list[str],
        typer.Option(
            help="`oracle`, `random`, `always-work` (not darkroom), `mean-plan`, `bc`, "
            "`ce`, `psrl`, `qmdp`, `bayes-adaptive`, `bayes-imitation` (mdp), "
            "`observation-as-state` (pomdp, apomdp), `nominal`, `mixture` (apomdp), "
            "`dpt:RUN`, `cql:RUN`, `icl:BASE`, or the run folder of a language model. "
            "Repeat it."
        ),
    ],
    reference: Annotated[
        str | None,
        typer.Option(help="One of them; the others are compared to it task by task."),
    ] = None,
    setting: Annotated[
        str, typer.Option(help=f"Task type: {', '.join(SETTINGS)}; or all.")
    ] = "mdp",
    tasks: Annotated[
        int | None,
        typer.Option(help="Number of unseen tasks: 100 (darkroom: all held out, 20)."),
    ] = None,
    trajectories: Annotated[
        int | None, typer.Option(help="Episodes per task: 30 (darkroom: 5).")
    ] = None,
    support: Annotated[int, typer.Option(help="Demonstrations shown.")] = 2,
    demonstrations: Annotated[
        Demonstrations, typer.Option(help="Whose episodes are shown.")
    ] = Demonstrations.optimal,
    horizon: Annotated[
        int | None, typer.Option(help="Decisions per episode, T: 10 (darkroom: 100).")
    ] = None,
    discount: Discount = None,
    p_min: PMin = 0.2,
    p_max: PMax = 0.9,
    prior_p_min: Annotated[
        float | None,
        typer.Option(help="What policies with a prior take for the smallest p."),
    ] = None,
    prior_p_max: Annotated[
        float | None,
        typer.Option(help="What policies with a prior take for the largest p."),
    ] = None,
    q: SeeingChance = 0.8,
    models: Models = 5,
    alpha: Alpha = 0.5,
    believe: Believe = "0",
    size: Size = 10,
    pays: Pays = GoalReward.stay,
    split: Split = 0,
    schema: Annotated[
        Schema | None, typer.Option(help="Wording for `icl:` policies.")
    ] = None,
    quantize: Annotated[
        Quantize | None, typer.Option(help="4-bit weights for `icl:` policies.")
    ] = None,
    backend: Annotated[
        Backend, typer.Option(help="What computes; vllm takes `icl:` policies.")
    ] = Backend.torch,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Let policies act in the same unseen tasks and measure their optimality gaps.

    `--policy all` stands for every policy without learning that fits; with `--setting
    all`, one test after another, `{setting}` in a policy's name for the setting.

    Examples: `sdm eval --policy ce --policy runs/tiny --tasks 100`,
    `sdm eval --policy runs/tiny --setting pomdp --q 0.7 --demonstrations random`,
    `sdm eval --setting all --policy all --policy 'dpt:runs/dpt-{setting}'`
    """
    if resume and out is None:
        fail("`--resume` needs `--out`: nothing else is left to go on with")
    several = setting == "all"
    if not several:
        warn_of_idle_options(context, setting)
    with user_faults(), progress_bars() as bar:
        settings = SETTINGS if several else (setting,)
        families = {
            each: task_family(
                each,
                p_min=p_min,
                p_max=p_max,
                discount=discount,
                q=q,
                models=models,
                alpha=alpha,
                size=size,
                pays=pays.value,
                split=split,
            )
            for each in settings
        }
        start_jax(every_core=not {"pomdp", "apomdp"}.isdisjoint(settings))
        from sdm.data.benchmark import EvaluationConfig, make_benchmark
        from sdm.evaluation.evaluate import check_policy, choose_policies, plan_of
        from sdm.evaluation.evaluate import evaluate as run
        from sdm.evaluation.paper import caption, paper_column, paper_rows
        from sdm.evaluation.tables import gap_table, result_rows
        from sdm.policies.by_name import MAKERS
        from sdm.policies.learned import is_learned
        from sdm.storage.files import file_in_progress, write_atomically
        from sdm.tasks.families import DarkroomFamily, Family

        def test_of(setting: str, family: Family) -> EvaluationConfig:
            prior, held_out = family, 0
            if isinstance(family, DarkroomFamily):
                held_out = len(family.goals(held_out=True))
            else:
                prior = dataclasses.replace(
                    family,
                    p_min=p_min if prior_p_min is None else prior_p_min,
                    p_max=p_max if prior_p_max is None else prior_p_max,
                )
            return EvaluationConfig(
                family,
                of_setting(setting, horizon, 10, 100),
                of_setting(setting, tasks, 100, held_out),
                of_setting(setting, trajectories, 30, 5),
                support,
                seed,
                training_family=prior,
                setting=setting,
                demonstrations=demonstrations.value,
                believe=int(believe) if believe.isdecimal() else believe,
            )

        def named(setting: str) -> str | None:
            return reference and reference.replace("{setting}", setting)

        tests = {each: test_of(each, family) for each, family in families.items()}
        players = {
            each: choose_policies(policy, each, several=several) for each in settings
        }
        if several:  # those that nobody plays are left out
            players = {each: names for each, names in players.items() if names}
            tests = {each: tests[each] for each in players}
        if not any(players.values()):
            fail(f"none of the policies plays {setting} tasks")
        everyone = {name for names in players.values() for name in names}
        if not all(name in MAKERS or is_learned(name) for name in everyone):
            start_torch()
        for each, names in players.items():
            for name in names:
                check_policy(name, tests[each], backend=backend.value)
            if reference is not None and named(each) not in names:
                fail(
                    f"the reference `{named(each)}` is not among the policies that "
                    f"play {each} tasks: {', '.join(names)}"
                )
        wording: dict[str, str | None] = {
            "schema": schema and schema.value,
            "quantize": "nf4" if quantize is Quantize.nf4 else None,
            "backend": backend.value,
        }
        reports: dict[str, dict[str, Any]] = {}
        with ExitStack() as stack:
            kept = None
            if out is not None:
                plan = {
                    each: plan_of(players[each], test, **wording)
                    for each, test in tests.items()
                }
                folder = file_in_progress(out, plan, resume=resume, overwrite=overwrite)
                kept = stack.enter_context(folder)
            for each, test in tests.items():
                results = run(
                    players[each],
                    make_benchmark(test),
                    **wording,
                    kept=None if kept is None else kept / each,
                    progress=bar,
                )
                _warn_of_odd_tasks(results, each)
                reports[each] = {
                    "setting": each,
                    "config": dataclasses.asdict(test),
                    "policies": result_rows(results, named(each)),
                    "paper": dict(paper_rows(test)),
                }
            report = {"settings": reports} if several else reports[setting]
            if out is not None:
                write_atomically(out, json.dumps(report, indent=2) + "\n")
    emit(
        report,
        as_json,
        lambda: Group(
            *(
                gap_table(
                    done["policies"],
                    paper_column(done["paper"], done["policies"]),
                    reference=named(each),
                    test=_title(tests[each]),
                    caption=caption(done["paper"], each),
                )
                for each, done in reports.items()
            )
        ),
    )


def _title(test: "EvaluationConfig") -> str:
    """The test in a few words."""
    family, parts = test.family, [test.setting, f"T = {test.horizon}"]
    shown = {"pomdp": ("q",), "apomdp": ("q", "models", "alpha")}
    names = {"models": "K", "alpha": "α"}
    for field in shown.get(test.setting, ()):
        parts.append(f"{names.get(field, field)} = {getattr(family, field)}")
    return ", ".join([*parts, f"{test.tasks} tasks x {test.trajectories} episodes"])


def _warn_of_odd_tasks(results: "Sequence[PolicyResult]", setting: str) -> None:
    for result in results:
        for indices, what in (
            (result.gap.undefined_tasks, "of 0 and so no gap: they are left out"),
            (result.gap.tiny_tasks, "near 0: each may decide the mean alone"),
        ):
            if indices:
                say(
                    f"warning: `{result.policy}`: {setting} tasks {list(indices)} have "
                    f"an optimal return {what}",
                    "yellow",
                )
