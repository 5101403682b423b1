"""`sdm selftrain`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdm.commands.config_command import OptionGroup, group_of
from sdm.commands.config_options import OptionField
from sdm.commands.console import (
    emit,
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
    check_setting,
    given,
    warn_of_idle_options,
)
from sdm.commands.progress import progress_bars
from sdm.commands.source_fields import config_fields

if TYPE_CHECKING:
    from rich.table import Table

    from sdm.llm.self_training.config import SelfTrainConfig
    from sdm.tasks.family import TaskFamily

# Options of `FinetuneConfig` that self-training sets itself.
SET = (
    *("data", "base", "support", "tasks", "start", "seed"),
    *("demonstrations", "queries", "from_scratch", "eval_gap"),
)


def _training_fields() -> list[OptionField]:
    """Return the options of the fine-tuning; the base's recipe has their defaults."""
    return config_fields("llm/recipes.py", "FinetuneConfig", without=SET)


class SelfTrainCommand(FamilyCommand):
    """Command with the options of `SelfTrainConfig`, of fine-tuning and the family."""

    other = "start"

    @property
    def configs(self) -> Mapping[str, OptionGroup]:
        """Return the options of the loop, then those of each training."""
        own = ("family", "kind", "start_family", "seed", "training")
        fields = config_fields(
            "llm/self_training/config.py", "SelfTrainConfig", without=own
        )
        loop, training = (
            group_of(fields),
            group_of(_training_fields(), show_default=False),
        )
        both = OptionGroup(
            [*loop.fields, *training.fields], [*loop.parameters, *training.parameters]
        )
        return {"config": both}


def selftrain(
    context: Context,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    family: FamilyName = DEFAULT,
    setting: Annotated[
        str, typer.Option(help="Kind of model: mdp, pomdp or apomdp (default mdp).")
    ] = "mdp",
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file with options of the loop and the training."),
    ] = None,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a language model on the best of its own episodes, without an oracle.

    In each iteration, the model plays several episodes in each of many training tasks,
    the best are kept, and the model is fine-tuned on them. The oracle serves for the
    test of each iteration in unseen tasks, and for `--select pseudo-regret`.
    `--start-OPTION` sets an option of the family in the random play of the start.

    Examples: `sdm selftrain --horizon 5 --out selftrained`,
    `sdm selftrain --family bandit --separation 0 --horizon 25 --epochs 4
    --start-mean-concentration 0.1 --start-scenarios 6000 --out bandit`
    """
    with user_faults(), progress_bars() as bar:
        from sdm.storage.ownership import check_new_folder

        check_new_folder(out, resume=resume, overwrite=overwrite)
        options = given(context, "family").merged(None)
        posed = make_family(family, options)
        first = _start_family(context, family, options)
        kind = check_setting(setting, posed)
        warn_of_idle_options(context, kind, posed)
        start_jax(every_core=kind != "mdp")
        check_own_family(posed, kind)
        values = given(context, "config").merged(config) | {"start_family": first}
        if "base" in values:
            _check_base(values["base"])
        chosen = _config(posed, values, kind, seed)
        start_torch()
        from sdm.llm.self_training.iterations import self_train

        report = self_train(
            chosen, out, resume=resume, overwrite=overwrite, progress=bar
        )
        report = {"out": str(out), **report}
    emit(report, as_json, lambda: _table(report))


def _start_family(
    context: Context, family: str, options: Mapping[str, Any]
) -> "TaskFamily | None":
    """Return the family of the start's tasks if they have options of their own.

    Raises:
        FamilyError: if they conflict with those of the training tasks.

    """
    changed = given(context, "start").merged(None)
    if not changed:
        return None
    try:
        return make_family(family, {**options, **changed})
    except ValueError as error:
        from sdm.tasks.registry import FamilyError

        raise FamilyError(
            f"start: {error}",
            "the start has the options of the training tasks, except where "
            "`--start-OPTION` changes them",
        ) from error


def _config(
    family: "TaskFamily", values: dict[str, Any], kind: Any, seed: int
) -> "SelfTrainConfig":
    """Return the configuration; the family's defaults precede those of the class."""
    from sdm.llm.self_training.config import SelfTrainConfig

    default = family.defaults
    sizes = {
        "horizon": default.horizon,
        "support": default.support,
        "test_tasks": default.test_tasks or family.available("test") or 1,
        "test_trajectories": default.test_trajectories,
    }
    names = {field.name for field in _training_fields()}
    training = {name: x for name, x in values.items() if name in names}
    loop = {name: x for name, x in values.items() if name not in names}
    return SelfTrainConfig(
        family, kind=kind, seed=seed, training=training, **(sizes | loop)
    )


def _check_base(base: str) -> None:
    """Raise an error for a name that is neither a run folder nor a base."""
    from sdm.llm.base_names import check_base_name
    from sdm.llm.run_folder import is_run, read_run

    if is_run(Path(base)):
        read_run(Path(base))
    else:
        check_base_name(base)


def _table(report: Mapping[str, Any]) -> "Table":
    """Return a table with a row for each iteration."""
    from sdm.evaluation.fitting_table import FittingTable
    from sdm.evaluation.measure import measure_titles

    rows = report["iterations"]
    extra = {
        name: title
        for name, title in measure_titles().items()
        if name in rows[0] and name not in ("regret", "regret_exponent")
    }
    table = FittingTable(
        spare=("seconds", "dropped", "kept", "greedy gap, %", "exponent"),
        title=f"{report['family']} {report['setting']}: unseen tasks",
    )
    for title in (
        *("iteration", "kept", "dropped", "regret", "95 % interval"),
        *("gap, %", "95 % interval", "greedy gap, %", "exponent", "95 % interval"),
        *extra.values(),
        *(["closed, %"] if report["reference"] else []),
        "seconds",
    ):
        table.add_column(title, justify="right")
    for row in rows:
        played = row["selection"]
        table.add_row(
            str(row["iteration"] or "start"),
            str(played.get("kept", "")),
            str(played.get("dropped", "")),
            _number(row["regret"]),
            _ends(*row["ci"]),
            _number(row["gap_percent"]),
            _ends(row["ci_low"], row["ci_high"]),
            _number(row["greedy_gap_percent"]),
            _number(row["exponent"]),
            _ends(*row["exponent_ci"]),
            *(_number(row[name]) for name in extra),
            *([_number(row["closed_percent"])] if report["reference"] else []),
            f"{sum(row['seconds'].values()):.0f}",
        )
    return table


def _number(x: float | None) -> str:
    return "" if x is None else f"{x:.4g}"


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4g} … {high:.4g}"
