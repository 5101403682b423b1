"""`sdm train dpt` and `sdm train cql`: learned policies to compare with."""

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdm.commands.console import (
    emit,
    pairs_table,
    progress_bars,
    start_d3rlpy,
    start_jax,
    user_faults,
)
from sdm.commands.options import Json, Overwrite, Resume, Seed

if TYPE_CHECKING:
    from sdm.policies.policy_runs import LearnedRun

train = typer.Typer(
    no_args_is_help=True, help="Train policies to compare language models with."
)

Data = Annotated[Path, typer.Option(help="Oracle dataset, from `sdm solve --out`.")]
Out = Annotated[Path, typer.Option(help="Folder to write.")]


class Contexts(enum.StrEnum):
    """What a decision-pretrained transformer is shown in training."""

    trajectories = "trajectories"
    transitions = "transitions"


@train.command()
def dpt(
    data: Data,
    out: Out,
    contexts: Annotated[
        Contexts,
        typer.Option(
            help="The oracle's `trajectories`, or `transitions` of random actions."
        ),
    ] = Contexts.trajectories,
    support: Annotated[
        int, typer.Option(help="Demonstrations, or as many transitions.")
    ] = 2,
    steps: Annotated[int, typer.Option(help="Of the optimiser.")] = 20_000,
    batch_size: Annotated[int, typer.Option(help="Samples per step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="At the beginning.")] = 1e-3,
    layers: Annotated[int, typer.Option(help="Transformer blocks.")] = 4,
    width: Annotated[int, typer.Option(help="Of the network.")] = 32,
    heads: Annotated[int, typer.Option(help="Of attention.")] = 1,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a decision-pretrained transformer (Lee et al., 2023).

    Example: `sdm train dpt --data data --out runs/dpt`, then
    `sdm eval --policy dpt:runs/dpt`
    """
    with user_faults(), progress_bars() as bar:
        start_jax()
        from sdm.policies.dpt_samples import DPTConfig
        from sdm.policies.dpt_training import train_dpt

        config = DPTConfig(
            data=str(data),
            contexts=contexts.value,
            support=support,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            layers=layers,
            width=width,
            heads=heads,
            seed=seed,
        )
        run = train_dpt(
            config,
            out,
            resume=resume,
            overwrite=overwrite,
            progress=lambda step, steps: bar("training DPT", step, steps),
        )
    _report(run, out, as_json)


@train.command()
def cql(
    data: Data,
    out: Out,
    steps: Annotated[int, typer.Option(help="Of the optimiser.")] = 20_000,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train conservative Q-learning on all episodes of a dataset, by d3rlpy.

    It knows no task from another: what it learns is one policy for all. Example:
    `sdm train cql --data data --out runs/cql`, then `sdm eval --policy cql:runs/cql`
    """
    with user_faults(), progress_bars() as bar:
        start_jax()
        start_d3rlpy()
        from sdm.policies.cql import CQLConfig, train_cql

        config = CQLConfig(data=str(data), steps=steps, seed=seed)
        run = train_cql(
            config,
            out,
            overwrite=overwrite,
            progress=lambda step, steps: bar("training CQL", step, steps),
        )
    _report(run, out, as_json)


def _report(run: "LearnedRun", out: Path, as_json: bool) -> None:
    report = {"out": str(out), "policy": f"{run.kind}:{out}", **run.about.report}
    emit(report, as_json, lambda: pairs_table(report))
