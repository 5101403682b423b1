"""Policies that learn from a dataset of solved tasks: the cell's own."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdm.experiments.artifacts import Artifacts
from sdm.experiments.cell_configs import dataset_of, evaluation_of
from sdm.experiments.origin import ReadyPolicy
from sdm.experiments.spec import Cell, ExperimentError, Grid, Options, key_of
from sdm.policies.learner import learners
from sdm.policies.spec import ActingOptions

# Option in `learn` of a language model's actions in the test, not of its training.
ACTING_TEMPERATURE = "acting_temperature"


class Learned:
    """The policies of a registered learner, trained on the dataset of a cell.

    Attributes:
        name: name of the learner.

    """

    trains = True
    language_model = False

    def __init__(self, name: str) -> None:
        """Set the name."""
        self.name = name

    def options(
        self, learn: Options, data: Options, grid: Grid
    ) -> tuple[Options, Options]:
        """Return all options."""
        return learn, data

    def folder(self, cell: Cell, artifacts: Artifacts) -> Path:
        """Return the folder that the dataset and the full configuration name."""
        return artifacts.folder / f"{self.name}-{key_of(self.spec(cell, artifacts))}"

    def policy(self, cell: Cell, artifacts: Artifacts) -> ReadyPolicy:
        """Return the policy of a cell; train it if it is not trained yet."""
        data = self.dataset(cell, artifacts)
        config, out = self.config(cell, str(data)), self.folder(cell, artifacts)

        def make(**how: bool) -> None:
            self.train(cell, artifacts, config, out, **how)

        artifacts.make(out, make)
        training = {**_record(out), "config": without_data(config)}
        temperature = float(cell.learn.get(ACTING_TEMPERATURE, 0.0))
        return ReadyPolicy(
            self.policy_name(out), training, ActingOptions(temperature=temperature)
        )

    def dataset(self, cell: Cell, artifacts: Artifacts) -> Path:
        """Return the folder of the dataset; write it if it does not exist."""
        return artifacts.dataset(dataset_of(cell))

    def dataset_folder(self, cell: Cell, artifacts: Artifacts) -> Path:
        """Return the folder of the dataset, whether or not it exists."""
        return artifacts.dataset_folder(dataset_of(cell))

    def policy_name(self, out: Path) -> str:
        """Return the specification of the policy in a folder."""
        return f"{self.name}:{out}"

    def spec(self, cell: Cell, artifacts: Artifacts) -> Options:
        """Return what determines a training, as JSON values."""
        data = self.dataset_folder(cell, artifacts)
        config = self.config(cell, str(data))
        return {"data": data.name, "config": without_data(config)}

    def config(self, cell: Cell, data: str) -> Any:
        """Return the configuration of a training on a dataset.

        Raises:
            ValueError: if an option is unknown or its value is invalid.

        """
        made = learners()[self.name].config
        learn = training_options(cell)
        if "support" not in {each.name for each in dataclasses.fields(made)}:
            learn.pop("support")  # the learner uses no demonstrations
        with invalid_options(cell):
            return made(data=data, seed=cell.seed, **learn)

    def train(
        self, cell: Cell, artifacts: Artifacts, config: Any, out: Path, **how: bool
    ) -> None:
        """Train the policy, or resume its training.

        Args:
            cell: the cell.
            artifacts: inputs of cells.
            config: configuration of the training.
            out: folder of the policy.
            how: `resume` or `overwrite`.

        """
        learner = learners()[self.name]
        how = {"resume": False, "overwrite": False, **how}
        if not learner.resumable:
            how = {"resume": False, "overwrite": True}
        learner.train(config, out, progress=artifacts.training, **how)


def training_options(cell: Cell) -> Options:
    """Return the options of a cell's training, without those of its test."""
    learn = {"support": evaluation_of(cell).support, **cell.learn}
    learn.pop(ACTING_TEMPERATURE, None)
    return learn


@contextmanager
def invalid_options(cell: Cell) -> Iterator[None]:
    """Name the policy of a cell in the error on options that do not exist."""
    try:
        yield
    except (TypeError, KeyError) as error:
        raise ExperimentError(f"learn, policy `{cell.policy}`: {error}") from error


def without_data(config: Any) -> dict[str, Any]:
    """Return a configuration without its dataset's path, which affects no result.

    `start` is left out unless it is set, so that earlier runs keep their folders.
    """
    values = {k: x for k, x in dataclasses.asdict(config).items() if k != "data"}
    return {k: x for k, x in values.items() if k != "start" or x is not None}


def _record(out: Path) -> dict[str, Any]:
    """Return the record of a finished folder's training, with its code and versions."""
    try:
        if (out / "policy.json").is_file():
            about = json.loads((out / "policy.json").read_text("utf-8"))
            report, made = about["report"], about["environment"]
        else:
            report = json.loads((out / "report.json").read_text("utf-8"))
            made = json.loads((out / "env.json").read_text("utf-8"))
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise ExperimentError(
            f"`{out}`: record of the training missing or invalid: {error}",
            "remove the folder",
        ) from error
    if "tokens_per_second" in report:
        report["tokens"] = round(report["tokens_per_second"] * report["seconds"])
    return {**report, **made}
