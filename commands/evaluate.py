"""`sdm eval`."""

import dataclasses
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

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
    Alpha,
    Backend,
    Believe,
    Context,
    Demonstrations,
    Discount,
    Horizon,
    Json,
    Models,
    Overwrite,
    PMax,
    PMin,
    Quantize,
    Resume,
    Schema,
    Seed,
    SeeingChance,
    Setting,
    energy_family,
    warn_of_idle_options,
)


def evaluate(
    context: Context,
    policy: Annotated[
        list[str],
        typer.Option(
            help="`oracle`, `random`, `always-work`, `mean-plan`, `bc`, `ce`, `psrl`, "
            "`qmdp`, `bayes-adaptive` (mdp), `observation-as-state` (pomdp, apomdp), "
            "`nominal`, `mixture` (apomdp), `icl:BASE`, or a run folder. Repeat it."
        ),
    ],
    reference: Annotated[
        str | None,
        typer.Option(help="One of them; the others are compared to it task by task."),
    ] = None,
    setting: Setting = "mdp",
    tasks: Annotated[int, typer.Option(help="Number of unseen tasks.")] = 100,
    trajectories: Annotated[int, typer.Option(help="Episodes per task.")] = 30,
    support: Annotated[int, typer.Option(help="Demonstrations shown.")] = 2,
    demonstrations: Annotated[
        Demonstrations, typer.Option(help="Whose episodes are shown.")
    ] = Demonstrations.optimal,
    horizon: Horizon = 10,
    discount: Discount = 0.95,
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

    Examples: `sdm eval --policy ce --policy runs/tiny --tasks 100`,
    `sdm eval --policy runs/tiny --setting pomdp --q 0.7 --demonstrations random`
    """
    if resume and out is None:
        fail("`--resume` needs `--out`: nothing else is left to go on with")
    if reference is not None and reference not in policy:
        fail(
            f"the reference `{reference}` does not play",
            f"it must be one of the policies: {', '.join(policy)}",
        )
    warn_of_idle_options(context, setting)
    with user_faults(), progress_bars() as bar:
        family = energy_family(
            setting,
            p_min=p_min,
            p_max=p_max,
            discount=discount,
            q=q,
            models=models,
            alpha=alpha,
        )
        prior = dataclasses.replace(
            family,
            p_min=p_min if prior_p_min is None else prior_p_min,
            p_max=p_max if prior_p_max is None else prior_p_max,
        )
        start_jax(every_core=setting != "mdp")
        from sdm.baselines.by_name import MAKERS
        from sdm.llm.evaluate import check_policy_name, plan_of
        from sdm.llm.evaluate import evaluate as run
        from sdm.llm.results import gap_table, result_rows
        from sdm.llm.test_bed import EvaluationConfig, make_test_bed
        from sdm.solvers_jax.shards import file_in_progress, write_atomically

        for name in policy:
            check_policy_name(name, setting)
        config = EvaluationConfig(
            family,
            horizon,
            tasks,
            trajectories,
            support,
            seed,
            training_family=prior,
            setting=setting,
            demonstrations=demonstrations.value,
            believe=int(believe) if believe.isdecimal() else believe,
        )
        wording: dict[str, str | None] = {
            "schema": schema and schema.value,
            "quantize": "nf4" if quantize is Quantize.nf4 else None,
            "backend": backend.value,
        }
        with ExitStack() as stack:
            kept = None
            if out is not None:
                plan = plan_of(policy, config, **wording)
                folder = file_in_progress(out, plan, resume=resume, overwrite=overwrite)
                kept = stack.enter_context(folder)
            if not set(policy) <= set(MAKERS):
                start_torch()
            bed = make_test_bed(config)
            results = run(policy, bed, **wording, kept=kept, progress=bar)
            rows = result_rows(results, reference)
            report = {
                "setting": setting,
                "config": dataclasses.asdict(config),
                "policies": rows,
            }
            if out is not None:
                write_atomically(out, json.dumps(report, indent=2) + "\n")
    for result in results:
        for indices, what in (
            (result.gap.undefined_tasks, "of 0 and so no gap: they are left out"),
            (result.gap.tiny_tasks, "near 0: each may decide the mean alone"),
        ):
            if indices:
                say(
                    f"warning: `{result.policy}`: tasks {list(indices)} have an "
                    f"optimal return {what}",
                    "yellow",
                )
    emit(report, as_json, lambda: gap_table(rows, reference=reference))
