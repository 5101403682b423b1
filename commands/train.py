"""`sdm train NAME`: train a baseline policy, with one command per learner."""

from pathlib import Path
from typing import Annotated

import typer

from sdm.commands.config_command import command_with, group_of
from sdm.commands.config_options import fields_of
from sdm.commands.console import (
    emit,
    fail,
    pairs_table,
    start_jax,
    start_optional,
    user_faults,
)
from sdm.commands.options import Context, Json, Overwrite, Seed, given
from sdm.commands.progress import progress_bars
from sdm.policies.learner import Learner, learners

train = typer.Typer(
    no_args_is_help=True, help="Train baseline policies for comparison."
)


def _add(learner: Learner) -> None:
    """Add the command of a learner."""
    resumption = typer.Option(
        help="Continue an unfinished run.", hidden=not learner.resumable
    )

    def run(
        context: Context,
        out: Annotated[Path, typer.Option(help="Folder to write.")],
        config: Annotated[
            Path | None,
            typer.Option(help="YAML file with training options."),
        ] = None,
        seed: Seed = 0,
        resume: Annotated[bool, resumption] = False,
        overwrite: Overwrite = False,
        as_json: Json = False,
    ) -> None:
        if resume and not learner.resumable:
            fail(f"`--resume`: not supported by `sdm train {learner.name}`")
        with user_faults(), progress_bars() as bar:
            values = given(context, "config").merged(config)
            if "data" not in values:
                fail("Missing option '--data'.", f"sdm train {learner.name} --help")
            start_jax()
            start_optional(learner.package, learner.extra)
            done = learner.train(
                learner.config(seed=seed, **values),
                out,
                resume=resume,
                overwrite=overwrite,
                progress=lambda step, steps: bar(
                    f"training {learner.name}", step, steps
                ),
            )
        policy = f"{learner.name}:{out}"
        report = {"out": str(out), "policy": policy, **done.about.report}
        emit(report, as_json, lambda: pairs_table(report))

    options = group_of(fields_of(learner.config, without=("seed",)))
    example = f"`sdm train {learner.name} --data oracle --out run`, then"
    train.command(
        learner.name,
        cls=command_with(lambda: options),
        help=f"{_first_part(learner.config)}\n\nExample: {example}\n"
        f"`sdm eval --policy {learner.name}:run`",
    )(run)


def _first_part(config: type) -> str:
    """Return a config's docstring without its sections."""
    return (config.__doc__ or "").partition("Attributes:")[0].strip()


for _learner in learners().values():
    _add(_learner)
