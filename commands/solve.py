"""`sdm solve`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from sdm.commands.console import (
    emit,
    fail,
    pairs_table,
    progress_bars,
    start_jax,
    start_plotting,
    user_faults,
)
from sdm.commands.options import (
    Alpha,
    Believe,
    Context,
    Discount,
    GoalReward,
    Json,
    Method,
    Models,
    Overwrite,
    Pays,
    PMax,
    PMin,
    Resume,
    Seed,
    SeeingChance,
    Setting,
    Size,
    Split,
    given_options,
    of_setting,
    task_family,
    warn_of_idle_options,
)
from sdm.commands.solve_model import solve_model

# Options that speak of a model in a file, too; the others are of sampled tasks.
OF_A_MODEL = {"model", "horizon", "gap", "method", "points", "plot", "overwrite"}
OF_A_MODEL |= {"seed", "as_json"}


def solve(
    context: Context,
    setting: Setting = "mdp",
    model: Annotated[
        Path | None,
        typer.Option(help="Solve this model instead: a `.POMDP` or `.npz` file."),
    ] = None,
    tasks: Annotated[
        int | None,
        typer.Option(help="Number of tasks: 3200 (darkroom: every goal to train on)."),
    ] = None,
    horizon: Annotated[
        int | None,
        typer.Option(
            help="Decisions per episode, T: 10 (darkroom: 100), or for a discounted "
            "`--model` so many that γ^T ≤ 0.001."
        ),
    ] = None,
    discount: Discount = None,
    p_min: PMin = 0.2,
    p_max: PMax = 0.9,
    q: SeeingChance = 0.8,
    models: Models = 5,
    alpha: Alpha = 0.5,
    believe: Believe = "0",
    gap: Annotated[
        float,
        typer.Option(help="Certified gap to reach, relative to the value (pomdp)."),
    ] = 0.01,
    method: Annotated[
        Method, typer.Option(help="`exact` is for a small `--model` (pomdp).")
    ] = Method.points,
    points: Annotated[
        int | None,
        typer.Option(
            help="Beliefs per stage (pomdp: 512, apomdp: 64, a small `--model`: 256)."
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Tasks solved together, and the share that one of several processes "
            "takes at a time; by memory if not given."
        ),
    ] = None,
    trajectories: Annotated[
        int | None,
        typer.Option(
            help="Optimal episodes per task, where `--out` is given: 15 (darkroom: 10)."
        ),
    ] = None,
    random_trajectories: Annotated[
        int | None,
        typer.Option(
            help="Episodes of random actions per task besides: 0 (darkroom: 100) "
            "(mdp, darkroom)."
        ),
    ] = None,
    size: Size = 10,
    pays: Pays = GoalReward.stay,
    split: Split = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the oracle dataset.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Picture of the solution (of task 0): .png, .pdf or .svg."),
    ] = None,
    distributed: Annotated[
        bool,
        typer.Option(
            help="One of several processes that fill `--out`: known to Slurm, Open MPI "
            "and Kubernetes, elsewhere by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES "
            "and JAX_PROCESS_ID."
        ),
    ] = False,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Sample tasks and solve them; with `--out`, write the oracle's episodes.

    Examples: `sdm solve --setting apomdp --K 5 --alpha 0.5 --tasks 100`,
    `sdm solve --model tiger.POMDP --horizon 10 --plot tiger.png`
    """
    if plot is not None:
        start_plotting()
    given = given_options(context)
    if model is not None:
        for name in given.keys() - OF_A_MODEL:
            fail(f"`{given[name]}` is for sampled tasks: a `--model` is only solved")
        with user_faults(), progress_bars() as bar:
            _check_plot(plot, overwrite=overwrite)
            bar(f"solving {model.name}", 0, 1)
            own = solve_model(
                model,
                horizon,
                gap=gap,
                points=points,
                method=method.value,
                plot=plot,
                given=given,
            )
            bar(f"solving {model.name}", 1, 1)
        emit(own, as_json, lambda: pairs_table(own))
        return
    if method is not Method.points:
        fail("`--method exact` is for a `--model`: sampled tasks are too large")
    if out is None:
        if distributed:
            fail("`--distributed` needs `--out`: processes meet in what they write")
        if resume:
            fail("`--resume` needs `--out`: nothing else is left to go on with")
    warn_of_idle_options(context, setting)
    with user_faults(), progress_bars() as bar:
        family = task_family(
            setting,
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
        start_jax(every_core=setting in ("pomdp", "apomdp"), several=distributed)
        import jax

        from sdm.data.generation import (
            OracleConfig,
            solve_tasks,
            write_oracle_dataset,
        )
        from sdm.storage.processes import is_first
        from sdm.tasks.families import DarkroomFamily

        goals = 0
        if isinstance(family, DarkroomFamily):
            goals = len(family.goals(held_out=False))
        config = OracleConfig(
            family,
            of_setting(setting, horizon, 10, 100),
            of_setting(setting, tasks, 3200, goals),
            of_setting(setting, trajectories, 15, 10),
            seed,
            batch=batch_size,
            setting=setting,
            gap=gap,
            points=points,
            believe=int(believe) if believe.isdecimal() else believe,
            random_trajectories=of_setting(setting, random_trajectories, 0, 100),
        )
        _check_plot(plot, overwrite=overwrite)

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
            from sdm.data.solved_tasks import sample_tasks, solve_sampled
            from sdm.solvers_jax.plot import save_picture

            first = sample_tasks(0, config=config, size=1)
            found, _ = solve_sampled(first.model, config)
            shown = f"p = {float(first.p[0]):.3f}"
            if setting == "darkroom":
                shown = f"goal {int(first.goal[0])}"
            save_picture(
                jax.tree.map(lambda x: x[0], found),
                plot,
                title=f"{setting}, task 0 ({shown})",
            )
    report = {
        "setting": setting,
        "tasks": config.tasks,
        "horizon": config.horizon,
        **dataclasses.asdict(summary),
        "tasks_per_second": config.tasks / max(summary.seconds, 1e-9),
        "device": str(jax.devices()[0].device_kind),
        "processes": jax.process_count(),
        "out": str(out) if out else None,
    }
    if plot is not None:
        report["plot"] = str(plot)
    emit(report, as_json, lambda: pairs_table(report))


def _check_plot(path: Path | None, *, overwrite: bool) -> None:
    """Refuse a picture that could not be written, before the work that it shows."""
    if path is not None:
        from sdm.solvers_jax.plot import check_picture
        from sdm.storage.files import check_output_file

        check_picture(path)
        check_output_file(path, overwrite=overwrite)
