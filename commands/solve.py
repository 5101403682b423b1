"""`sdm solve`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdm.commands.config_command import OptionGroup, group_of
from sdm.commands.console import (
    emit,
    fail,
    pairs_table,
    say,
    start_jax,
    start_plotting,
    user_faults,
)
from sdm.commands.family_options import DEFAULT, FamilyCommand, make_family
from sdm.commands.options import (
    Context,
    FamilyName,
    Json,
    Seed,
    check_own_family,
    check_setting,
    given,
    given_options,
    warn_of_idle_options,
)
from sdm.commands.progress import doing, progress_bars
from sdm.commands.solve_gap import bounds_lines, report_gap
from sdm.commands.solve_model import Wanted, check_plot, draw, solve_model
from sdm.commands.solve_options import (
    PANELS,
    AttitudeName,
    Distributed,
    MethodName,
    ModelFile,
    Out,
    OverwriteOutput,
    Plot,
    RequireGap,
    ResumeDataset,
    Seconds,
    Setting,
    Simulate,
)
from sdm.commands.source_fields import config_fields
from sdm.storage.ownership import check_new_folder

if TYPE_CHECKING:
    from sdm.data.request import OracleConfig
    from sdm.tasks.family import TaskFamily

# Options that also apply to `--model`; all others apply to sampled tasks only.
OF_A_MODEL = {"model", "horizon", "gap", "method", "points", "plot", "overwrite"}
SUMMARY_TASKS = 100  # default without `--out`
OF_A_METHOD = {"gap", "atol", "points", "attitude", "seconds"}
OF_A_MODEL |= {"seed", "as_json", "out", "simulate", "require_gap", *OF_A_METHOD}


class SolveCommand(FamilyCommand):
    """Command with the options of `OracleConfig` and of the task family."""

    @property
    def configs(self) -> dict[str, OptionGroup]:
        """Return the options of the dataset."""
        own = ("family", "kind", "seed")
        fields = config_fields("data/request.py", "OracleConfig", without=own)
        fields.sort(
            key=lambda field: (
                [*PANELS].index(field.name) if field.name in PANELS else -1
            )
        )
        return {"config": group_of(fields, panels=PANELS)}


def solve(
    context: Context,
    family: FamilyName = DEFAULT,
    setting: Setting = "",
    out: Out = None,
    plot: Plot = None,
    resume: ResumeDataset = False,
    overwrite: OverwriteOutput = False,
    distributed: Distributed = False,
    model: ModelFile = None,
    method: MethodName = None,
    simulate: Simulate = None,
    attitude: AttitudeName = None,
    seconds: Seconds = None,
    require_gap: RequireGap = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Sample tasks and solve them; with `--out`, write a dataset of oracle episodes.

    `--family NAME --help` shows the options of another family.

    Examples: `sdm solve --setting apomdp --K 5 --alpha 0.5 --tasks 100`,
    `sdm solve --family inventory --out oracle`,
    `sdm solve --model tiger.POMDP --horizon 10 --out solution --simulate 1000`
    """
    if plot is not None:
        start_plotting()
    if model is not None:
        wanted = Wanted(plot, out, simulate, seed, overwrite)
        chosen = {"attitude": attitude, "seconds": seconds}
        report = _solve_file(context, model, method, chosen, wanted)
        emit(report, as_json, lambda: pairs_table(report))
        report_gap(report, report.get("gap_target"), required=require_gap)
        return
    if simulate is not None:
        fail("`--simulate` needs `--model`: sampled tasks are played for `--out`")
    if seconds is not None:
        fail(f"`--seconds {seconds:g}` needs `--model` and `--method search`")
    if attitude is not None:
        fail(f"`--attitude {attitude}` needs `--model`, with sets of probabilities")
    _check_call(method, out, distributed=distributed, resume=resume)
    with user_faults(), progress_bars() as bar:
        if out is not None and not distributed:
            check_new_folder(out, resume=resume, overwrite=overwrite)
        posed = make_family(family, given(context, "family").merged(None))
        kind = check_setting(setting or _first_kind(posed), posed)
        warn_of_idle_options(context, kind, posed)
        start_jax(every_core=kind != "mdp", several=distributed)
        check_own_family(posed, kind)
        from sdm.data.generation import solve_tasks, write_oracle_dataset
        from sdm.data.request import OracleConfig
        from sdm.storage.processes import is_first

        chosen = given(context, "config").merged(None)
        values = _defaults(posed, kind) | chosen
        if out is None:  # a summary needs fewer tasks than a dataset
            values["tasks"] = chosen.get("tasks", min(values["tasks"], SUMMARY_TASKS))
        config = OracleConfig(family=posed, kind=kind, seed=seed, **values)
        check_plot(plot, overwrite=overwrite)
        bar("solving", 0, config.tasks)

        def progress(done: int) -> None:
            bar("solving", done, config.tasks)

        if out is None:
            summary = solve_tasks(config, progress=progress)
        else:
            summary = write_oracle_dataset(
                config, out, resume=resume, overwrite=overwrite, progress=progress
            )
        if not is_first():  # one of several processes reports
            return
        if plot is not None:
            doing("drawing")
            _draw_first(config, plot)
    report = _report(config, dataclasses.asdict(summary), out, plot)
    emit(report, as_json, lambda: pairs_table(report))
    report_gap(report, config.gap, required=require_gap)


def _solve_file(
    context: Context,
    model: Path,
    method: str | None,
    chosen: dict[str, Any],
    wanted: Wanted,
) -> dict[str, Any]:
    """Solve a model in a file."""
    named = given_options(context)
    for name in named.keys() - OF_A_MODEL:
        fail(f"`{named[name]}` is for sampled tasks: remove it, or `--model`")
    values = dict(given(context, "config").values)
    values |= {name: x for name, x in chosen.items() if x is not None}
    with user_faults(), progress_bars() as bar:
        check_plot(wanted.plot, overwrite=wanted.overwrite)
        bar(f"solving {model.name}", 0, 1)
        report = solve_model(
            model,
            values.get("horizon"),
            method=method,
            options={n: x for n, x in values.items() if n in OF_A_METHOD},
            wanted=wanted,
            progress=bounds_lines(),
        )
        bar(f"solving {model.name}", 1, 1)
    if "require_gap" in named and "converged" not in report:
        say("warning: `--require-gap` has no effect for this kind of model", "yellow")
    return report


def _check_call(
    method: str | None, out: Path | None, *, distributed: bool, resume: bool
) -> None:
    """Reject options whose required companion option is missing."""
    if method is not None:
        fail(f"`--method {method}` needs `--model`: sampled tasks use a fixed method")
    if out is None and distributed:
        fail("`--distributed` needs `--out`: processes share their results there")
    if out is None and resume:
        fail("`--resume` needs `--out`: only a written dataset can be continued")


def _first_kind(family: "TaskFamily") -> str:
    """Return the first kind of model that the family supports, in order of `KINDS`."""
    from sdm.tasks.family import KINDS

    return next((kind for kind in KINDS if kind in family.kinds), "mdp")


def _defaults(family: "TaskFamily", kind: str) -> dict[str, Any]:
    """Return the family's defaults for a dataset."""
    default = family.defaults
    return {
        "horizon": default.horizon,
        "tasks": default.tasks or family.available("train") or 1,
        "trajectories": default.trajectories,
        "random_trajectories": default.random_trajectories if kind == "mdp" else 0,
    }


def _draw_first(config: "OracleConfig", plot: Path) -> None:
    """Draw the solution of task 0."""
    import jax
    import numpy as np

    from sdm.data.request import plain_params
    from sdm.data.solved_tasks import sample_tasks, solve_sampled

    first = sample_tasks(0, config=config, size=1)
    found, _ = solve_sampled(first.model, config)
    shown = ", ".join(
        f"{name} = {value.item():.4g}"
        for name, value in plain_params(first.params).items()
        if np.size(value) == 1
    )
    draw(
        jax.tree.map(lambda x: x[0], found),
        plot,
        title=f"{config.family.name}, {config.kind}, task 0"
        + f" ({shown})" * bool(shown),
        actions=config.family.spaces.actions,
    )


def _report(
    config: "OracleConfig",
    summary: dict[str, Any],
    out: Path | None,
    plot: Path | None,
) -> dict[str, Any]:
    """Return the report: the tasks, their values, the time and the device."""
    import jax

    report = {
        "family": config.family.name,
        "setting": config.kind,
        "tasks": config.tasks,
        "horizon": config.horizon,
        "observes_reward": config.rewards_seen,
        **summary,
        "tasks_per_second": config.tasks / max(summary["seconds"], 1e-9),
        "device": str(jax.devices()[0].device_kind),
        "processes": jax.process_count(),
        "out": str(out) if out else None,
    }
    return report if plot is None else {**report, "plot": str(plot)}
