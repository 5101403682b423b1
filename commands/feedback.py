"""`sdm feedback`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdm.commands.config_command import OptionGroup, group_of
from sdm.commands.console import (
    emit,
    fail,
    pairs_table,
    start_jax,
    start_torch,
    user_faults,
)
from sdm.commands.family_options import DEFAULT, FamilyCommand, make_family
from sdm.commands.options import (
    Context,
    FamilyName,
    Json,
    Overwrite,
    Resume,
    Seed,
    check_own_family,
    given,
)
from sdm.commands.progress import progress_bars
from sdm.commands.source_fields import config_fields

if TYPE_CHECKING:
    from rich.table import Table

# Options that several fields of `FeedbackConfig` have as lists, or that are its parts.
LISTS = ("family", "reward", "uses", "weights", "lookaheads")
JUDGES = ["synthetic:1"]
WEIGHTS, LOOKAHEADS, USES = [0.05, 0.2, 1.0], [0], ["potential", "added"]


class FeedbackCommand(FamilyCommand):
    """Command with the options of the study, of the rewards and of the family."""

    @property
    def configs(self) -> dict[str, OptionGroup]:
        """Return the options of the study and of the rewards."""
        study = config_fields("feedback/config.py", "FeedbackConfig", without=LISTS)
        reward = config_fields("feedback/reward_model.py", "RewardConfig")
        return {"config": group_of(study), "reward": group_of(reward)}


def feedback(
    context: Context,
    family: FamilyName = DEFAULT,
    judge: Annotated[
        list[str],
        typer.Option(help="Judge, `synthetic:ACCURACY` or `model:BASE`; repeatable."),
    ] = JUDGES,
    use: Annotated[
        list[str],
        typer.Option(
            help="Use of the reward in the planner, `potential`, `added` or `alone`; "
            "repeatable."
        ),
    ] = USES,
    weight: Annotated[
        list[float],
        typer.Option(
            min=0.0,
            help="Factor of the reward; 1 stretches the scores of a task's states over "
            "the range of its rewards; repeatable.",
        ),
    ] = WEIGHTS,
    lookahead: Annotated[
        list[int],
        typer.Option(
            min=0,
            help="Decisions that the planner sees at each stage, 0 for all; "
            "repeatable.",
        ),
    ] = LOOKAHEADS,
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of seeds, from `--seed` upwards.")
    ] = 3,
    policy: Annotated[
        list[str],
        typer.Option(
            help="Policy that acts in the same tasks, as in `sdm eval`; repeatable."
        ),
    ] = [],  # noqa: B006
    data: Annotated[
        Path | None,
        typer.Option(
            help="Dataset to write instead, for `sdm finetune`: episodes of the plan "
            "for the reward in training tasks."
        ),
    ] = None,
    trajectories: Annotated[
        int, typer.Option(min=1, help="Episodes per task in `--data`.")
    ] = 15,
    out: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Learn rewards from a judge's preferences, and measure what plans for them lose.

    A judge compares pairs of states or of trajectory segments. A Bradley–Terry model of
    its preferences gives each state a score, which a planner uses as a reward.

    Example: `sdm feedback --judge synthetic:0.7 --judge synthetic:0.9 --out feedback`
    """
    if resume and out is None and data is None:
        fail("`--resume` needs `--out`: only a written folder can be continued")
    if data is not None and (out is not None or policy or len(judge) > 1):
        fail("`--data` is of one judge: remove `--out`, `--policy` or other judges")
    with user_faults(), progress_bars() as bar:
        posed = make_family(family, given(context, "family").merged(None))
        start_jax()
        check_own_family(posed, "mdp")
        from sdm.feedback.config import FeedbackConfig
        from sdm.feedback.judge import parse_judge
        from sdm.feedback.reward_model import RewardConfig
        from sdm.feedback.run import run_feedback
        from sdm.policies.spec import parse_policy

        default = posed.defaults
        sizes = {
            "horizon": default.horizon,
            "tasks": default.test_tasks or posed.available("test") or 1,
        }
        config = FeedbackConfig(
            family=posed,
            reward=RewardConfig(**given(context, "reward").merged(None)),
            uses=tuple(dict.fromkeys(use)),
            weights=tuple(dict.fromkeys(weight)),
            lookaheads=tuple(dict.fromkeys(lookahead)),
            **(sizes | given(context, "config").merged(None)),
        )
        judges = [parse_judge(text) for text in judge]
        names = tuple(dict.fromkeys(policy))
        of_policies = (parse_policy(name).needs_torch for name in names)
        if any(each.needs_torch for each in judges) or any(of_policies):
            start_torch()
        if data is not None:
            from sdm.feedback.dataset import write_plan_dataset

            written = write_plan_dataset(
                judges[0],
                config,
                data,
                trajectories=trajectories,
                seed=seed,
                resume=resume,
                overwrite=overwrite,
                progress=partial(bar, f"judge {judges[0].name}"),
            )
            written["out"] = str(data)
            emit(written, as_json, lambda: pairs_table(written))
            return
        report = run_feedback(
            judges,
            config,
            seeds=range(seed, seed + seeds),
            policies=names,
            out=out,
            resume=resume,
            overwrite=overwrite,
            progress=bar,
        )
    report["out"] = str(out) if out else None
    emit(report, as_json, lambda: _table(report))


def _table(report: dict[str, Any]) -> "Table":
    """Return a table with a row for each judge, use, weight and lookahead."""
    from sdm.evaluation.fitting_table import FittingTable

    table = FittingTable(
        spare=("lookahead", "rank corr.", "correct, %", "weight", "use"),
        caption="Gaps in %, with 95 % intervals over seeds and tasks.",
    )
    for name in ("judge", "correct, %", "rank corr.", "use", "weight", "lookahead"):
        table.add_column(name)
    table.add_column("gap, %", justify="right")
    table.add_column("interval")
    for name, found in report["judges"].items():
        correct, rank = found["judge_accuracy"], found["rank_correlation"]
        for row in found["gaps"]:
            ends = (row["ci_low"], row["ci_high"])
            table.add_row(
                name,
                "" if correct is None else f"{100 * correct:.1f}",
                "" if rank is None else f"{rank:.3f}",
                row["use"],
                f"{row['weight']:g}",
                str(row["lookahead"] or "all"),
                _percent(row["gap_percent"]),
                "" if None in ends else " … ".join(map(_percent, ends)),
            )
    for name, row in report["policies"].items():
        ends = (row["ci_low"], row["ci_high"])
        shown = "" if None in ends else " … ".join(map(_percent, ends))
        table.add_row(name, *[""] * 5, _percent(row["gap_percent"]), shown)
    return table


def _percent(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"  # adding zero turns -0.0 to 0.0
