"""`selftrain`: the model of one iteration of self-training, whose run cells share.

`iteration` in a cell's `learn` selects the model, and `acting_temperature` is that of
its actions in the test, in place of the run's. All other options determine the run:
those of `SelfTrainConfig`, such as a horizon that differs from the test's, and those of
fine-tuning. `start_family` holds options in which the start's family differs.
"""

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

from sdm.experiments.artifacts import Artifacts
from sdm.experiments.cell_configs import DATA, evaluation_of, training_family
from sdm.experiments.learned import ACTING_TEMPERATURE
from sdm.experiments.origin import ReadyPolicy, register_origin
from sdm.experiments.spec import Cell, ExperimentError, Grid, Options, key_of
from sdm.llm.self_training.config import SelfTrainConfig
from sdm.policies.spec import ActingOptions

# Each row evaluates its model itself, in the cell's test.
OWN_TEST = {"test_tasks": 10, "test_trajectories": 5}
LOOP = {field.name for field in dataclasses.fields(SelfTrainConfig)}


def self_training_of(cell: Cell) -> SelfTrainConfig:
    """Return the configuration of a cell's run.

    Raises:
        ValueError: if an option is unknown or its value is invalid.

    """
    test, data = evaluation_of(cell), cell.data
    learn = {"horizon": test.horizon, **OWN_TEST, **cell.learn}
    if start := learn.pop("start_family", None):
        learn["start_family"] = training_family(cell.test, {**data, **start})
    iteration = learn.pop("iteration", None)
    learn.pop(ACTING_TEMPERATURE, None)
    loop = {name: x for name, x in learn.items() if name in LOOP}
    try:
        config = SelfTrainConfig(
            family=training_family(cell.test, data),
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


@register_origin
class SelfTrained:
    """A language model that is trained on its own episodes."""

    name = "selftrain"
    trains = True
    language_model = True

    def options(
        self, learn: Options, data: Options, grid: Grid
    ) -> tuple[Options, Options]:
        """Return all options, of a dataset only the family and its options."""
        own = {k: x for k, x in data.items() if k == "family" or k not in DATA}
        return learn, own

    def folder(self, cell: Cell, artifacts: Artifacts) -> Path:
        """Return the folder of the run, which all its iterations share."""
        key = key_of(self_training_of(cell).describe())
        return artifacts.folder / f"{self.name}-{key}"

    def policy(self, cell: Cell, artifacts: Artifacts) -> ReadyPolicy:
        """Return the model of an iteration; train all iterations if there are none.

        The seconds are those of play and training up to this iteration.
        """
        config, out = self_training_of(cell), self.folder(cell, artifacts)
        artifacts.make(out, partial(_train, config, out, artifacts))
        report = json.loads((out / "results.json").read_text("utf-8"))
        iteration = int(cell.learn["iteration"])
        rows = report["iterations"][: iteration + 1]
        parts = ("play", "train")
        training: dict[str, Any] = {
            **report["environment"],
            "config": config.describe(),
            "seconds": sum(row["seconds"][part] for row in rows for part in parts),
            "selection": rows[-1]["selection"],
        }
        run = out / (f"iteration-{iteration}" if iteration else "start") / "run"
        name = str(run) if run.is_dir() else f"icl:{config.base}"
        temperature = cell.learn.get(ACTING_TEMPERATURE, config.test_temperature)
        acting = ActingOptions(temperature=float(temperature))
        return ReadyPolicy(name, training, acting)


def _train(
    config: SelfTrainConfig, out: Path, artifacts: Artifacts, **how: bool
) -> None:
    """Write the folder of a run; see `self_train`."""
    from sdm.llm.self_training.iterations import self_train

    steps = 3 * config.iterations  # play, training and test
    names: list[str] = []

    def step(name: str, done: int, total: int) -> None:
        if name not in names:
            names.append(name)
        share = len(names) - 1 + done / max(1, total)
        artifacts.training(min(steps, round(share)), steps)

    self_train(config, out, progress=step, **how)
