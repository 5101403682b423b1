"""Cells of self-training: the model of one iteration of a shared run.

`iteration` in a cell's `learn` selects the model. All other options determine the run,
which the cells of its iterations share: those of `SelfTrainConfig`, and those of
fine-tuning.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdm.experiments.cell_configs import evaluation_of, training_family
from sdm.experiments.spec import Cell, ExperimentError, key_of
from sdm.llm.self_training.config import SelfTrainConfig

LEARNER = "selftrain"
# Each row evaluates its model itself, in the cell's test.
OWN_TEST = {"test_tasks": 10, "test_trajectories": 5}
LOOP = {field.name for field in dataclasses.fields(SelfTrainConfig)}
Progress = Callable[[str, int, int], None]


def self_training_of(cell: Cell) -> SelfTrainConfig:
    """Return the configuration of a cell's run.

    Raises:
        ValueError: if an option is unknown or its value is invalid.

    """
    test = evaluation_of(cell)
    learn = {**OWN_TEST, **cell.learn}
    iteration = learn.pop("iteration", None)
    loop = {name: x for name, x in learn.items() if name in LOOP}
    try:
        config = SelfTrainConfig(
            family=training_family(cell.test, cell.data),
            horizon=test.horizon,
            support=test.support,
            kind=test.kind,
            observes_reward=test.observes_reward,
            seed=cell.seed,
            training={name: x for name, x in learn.items() if name not in LOOP},
            **loop,
        )
    except TypeError as error:
        raise ExperimentError(f"learn, policy `{cell.policy}`: {error}") from error
    if not isinstance(iteration, int) or not 0 <= iteration <= config.iterations:
        raise ExperimentError(
            f"learn, policy `{cell.policy}`: iteration must be from 0 to iterations = "
            f"{config.iterations}, found {iteration!r}"
        )
    return config


def self_training_folder(cell: Cell, folder: Path) -> Path:
    """Return the folder of a cell's run, whether or not it exists."""
    return folder / f"{LEARNER}-{key_of(self_training_of(cell).describe())}"


def run_self_training(cell: Cell, out: Path, progress: Progress, **how: bool) -> None:
    """Write the folder of a cell's run; see `self_train`."""
    from sdm.llm.self_training.iterations import self_train

    config = self_training_of(cell)
    steps = 3 * config.iterations  # play, training and test
    names: list[str] = []

    def step(name: str, done: int, total: int) -> None:
        if name not in names:
            names.append(name)
        share = len(names) - 1 + done / max(1, total)
        progress("training", min(steps, round(share)), steps)

    self_train(config, out, progress=step, **how)


def self_trained(cell: Cell, out: Path) -> tuple[str, dict[str, Any]]:
    """Return the policy of a cell's iteration, and the record of its training.

    The seconds are those of play and training up to this iteration.
    """
    config, iteration = self_training_of(cell), int(cell.learn["iteration"])
    report = json.loads((out / "results.json").read_text("utf-8"))
    rows = report["iterations"][: iteration + 1]
    seconds = sum(row["seconds"][part] for row in rows for part in ("play", "train"))
    run = out / (f"iteration-{iteration}" if iteration else "start") / "run"
    name = str(run) if run.is_dir() else f"icl:{config.base}"
    record = {
        **report["environment"],
        "config": config.describe(),
        "seconds": seconds,
        "selection": rows[-1]["selection"],
    }
    return name, record
