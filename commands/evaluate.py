"""`sdm eval`."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from sdm.commands.console import (
    emit,
    progress_bars,
    say,
    start_jax,
    start_torch,
    user_faults,
)
from sdm.commands.options import (
    Discount,
    Horizon,
    Json,
    Overwrite,
    PMax,
    PMin,
    Quantize,
    Schema,
    Seed,
    Setting,
    energy_family,
)


def evaluate(
    policy: Annotated[
        list[str],
        typer.Option(
            help="`oracle`, `random`, `always-work`, `mean-plan`, `ce`, `icl:BASE`, or "
            "a run folder. Repeat it for more."
        ),
    ],
    setting: Setting = "mdp",
    tasks: Annotated[int, typer.Option(help="Number of unseen tasks.")] = 100,
    trajectories: Annotated[int, typer.Option(help="Episodes per task.")] = 30,
    support: Annotated[int, typer.Option(help="Demonstrations shown.")] = 2,
    horizon: Horizon = 10,
    discount: Discount = 0.95,
    p_min: PMin = 0.2,
    p_max: PMax = 0.9,
    schema: Annotated[
        Schema | None, typer.Option(help="Wording for `icl:` policies.")
    ] = None,
    quantize: Annotated[
        Quantize | None, typer.Option(help="4-bit weights for `icl:` policies.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Let policies act in the same unseen tasks and measure their optimality gaps.

    Example: `sdm eval --policy ce --policy runs/tiny --tasks 100`
    """
    with user_faults(), progress_bars() as bar:
        family = energy_family(
            setting, settings=("mdp",), p_min=p_min, p_max=p_max, discount=discount
        )
        start_jax()
        from sdm.llm.evaluate import (
            BASELINES,
            EvaluationConfig,
            check_policy_name,
            make_test_bed,
        )
        from sdm.llm.evaluate import evaluate as run
        from sdm.llm.results import gap_table, result_row
        from sdm.solvers_jax.shards import check_output_file, write_atomically

        for name in policy:
            check_policy_name(name)
        config = EvaluationConfig(
            family, horizon, tasks, trajectories, support, seed=seed
        )
        if out is not None:
            check_output_file(out, overwrite=overwrite)
        if not set(policy) <= set(BASELINES):
            start_torch()
        results = run(
            policy,
            make_test_bed(config),
            schema=schema and schema.value,
            quantize=quantize and quantize.value,
            progress=bar,
        )
        rows = {result.policy: result_row(result) for result in results}
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
    emit(report, as_json, lambda: gap_table(rows))
