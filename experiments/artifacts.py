"""Inputs of cells: benchmarks, datasets and trained policies, each created once.

The name of a dataset or run folder is a hash of its full configuration, so that
experiments share folders and an interrupted run reuses them.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from sdm.data.benchmark import Benchmark, EvaluationConfig, make_benchmark
from sdm.data.generation import describe, write_oracle_dataset
from sdm.data.request import OracleConfig
from sdm.experiments.cell_configs import (
    ACTING_TEMPERATURE,
    dataset_of,
    first_stage,
    training_of,
)
from sdm.experiments.self_trained import (
    LEARNER,
    run_self_training,
    self_trained,
    self_training_folder,
    self_training_of,
)
from sdm.experiments.spec import Cell, ExperimentError, key_of
from sdm.policies.learner import learners
from sdm.policies.spec import ActingOptions
from sdm.storage.files import StorageError, partial_folder

DEFAULT = ActingOptions()
Progress = Callable[[str, int, int], None]  # name of a step, work done, total work


@lru_cache(maxsize=2)
def benchmark_of(config: EvaluationConfig) -> Benchmark:
    """Return a benchmark; the last two are cached, since cells are sorted by test."""
    return make_benchmark(config)


@dataclasses.dataclass(frozen=True)
class ReadyPolicy:
    """A policy that is ready to be evaluated.

    Attributes:
        name: policy specification, see `sdm.policies.spec`.
        training: record of the training, its configuration and its code; None for a
            policy without training.
        options: options of a language model's inference.

    """

    name: str
    training: dict[str, Any] | None = None
    options: ActingOptions = DEFAULT


class Artifacts:
    """Creates the inputs of cells in one folder.

    Attributes:
        folder: folder of datasets and runs.

    """

    def __init__(self, folder: Path, progress: Progress = lambda *_: None) -> None:
        """Use a folder, which is created on the first write."""
        self.folder, self._progress = folder.resolve(), progress

    def policy(self, cell: Cell) -> ReadyPolicy:
        """Return the policy of a cell; train it if it is not trained yet.

        Raises:
            ValueError, RuntimeError, OSError: if the training fails.

        """
        if cell.learner == "untrained":
            return ReadyPolicy(cell.learn["name"])
        if cell.learner == "icl":
            options = {k: x for k, x in cell.learn.items() if k != "base"}
            name = f"icl:{cell.learn['base']}"
            return ReadyPolicy(name, options=ActingOptions(**options))
        if cell.learner == LEARNER:
            return self._self_trained(cell)
        stage = first_stage(cell)
        first = None if stage is None else self.policy(stage)
        data = self.dataset(dataset_of(cell))
        out, config = self.run_folder(cell), training_of(cell, str(data))

        def make(**how: bool) -> None:
            learned = _continued(config, first)
            _train(cell.learner, learned, out, self._progress, **how)

        with _alone(out):
            if not out.is_dir():
                _resume(out, make)
        training = {**_record(out), "config": _without_data(config)}
        if first is not None and first.training is not None:
            for name in ("seconds", "tokens"):  # sum over both stages
                training[name] += first.training[name]
            training["first"] = first.training
        name = str(out) if cell.learner == "finetune" else f"{cell.learner}:{out}"
        temperature = float(cell.learn.get(ACTING_TEMPERATURE, 0.0))
        return ReadyPolicy(name, training, ActingOptions(temperature=temperature))

    def _self_trained(self, cell: Cell) -> ReadyPolicy:
        """Return the model of an iteration; train all iterations if there are none."""
        out = self.run_folder(cell)
        with _alone(out):
            if not out.is_dir():
                _resume(out, partial(run_self_training, cell, out, self._progress))
        acting = ActingOptions(temperature=self_training_of(cell).test_temperature)
        return ReadyPolicy(*self_trained(cell, out), options=acting)

    def dataset(self, config: OracleConfig) -> Path:
        """Return the folder of an oracle dataset; generate it if it does not exist."""
        out = self._dataset_folder(config)

        def make(**how: bool) -> None:
            def progress(done: int) -> None:
                self._progress("data", done, config.tasks)

            write_oracle_dataset(config, out, progress=progress, **how)

        with _alone(out):
            if not out.is_dir():
                _resume(out, make)
        return out

    def is_trained(self, cell: Cell) -> bool:
        """Return whether the policy of a cell has been trained."""
        if not cell.trains:
            return False
        try:
            return self.run_folder(cell).is_dir()
        except (ValueError, ImportError):  # raised again when the cell runs
            return False

    def run_folder(self, cell: Cell) -> Path:
        """Return the folder of a cell's trained policy, whether or not it exists."""
        if cell.learner == LEARNER:
            return self_training_folder(cell, self.folder)
        data = self._dataset_folder(dataset_of(cell))
        spec: dict[str, Any] = {
            "data": data.name,
            "config": _without_data(training_of(cell, str(data))),
        }
        if stage := first_stage(cell):
            spec["first"] = self.run_folder(stage).name
        return self.folder / f"{cell.learner}-{key_of(spec)}"

    def _dataset_folder(self, config: OracleConfig) -> Path:
        spec = {k: x for k, x in describe(config).items() if k != "versions"}
        return self.folder / f"data-{key_of(spec)}"


def _continued(config: Any, first: ReadyPolicy | None) -> Any:
    """Return a fine-tuning configuration that starts from the first stage's weights."""
    if first is None:
        return config
    from sdm.llm.runs import weights_folder

    base = weights_folder(Path(first.name), config.lora_rank)
    return dataclasses.replace(config, base=str(base))


def _train(
    learner: str, config: Any, out: Path, progress: Progress, **how: bool
) -> None:
    """Train a policy, or resume its training."""
    how = {"resume": False, "overwrite": False, **how}

    def step(done: int, steps: int) -> None:
        progress("training", done, steps)

    if learner == "finetune":
        from sdm.llm.finetune import finetune

        finetune(config, out, progress=step, **how)
        return
    if not learners()[learner].resumable:
        how = {"resume": False, "overwrite": True}
    learners()[learner].train(config, out, progress=step, **how)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the lock of a folder; the lock of a terminated process is free."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(out.with_suffix(".lock")):
        yield


def _resume(out: Path, make: Callable[..., None]) -> None:
    """Create a folder, or continue an unfinished one with the same plan."""
    try:
        make(resume=True)
    except StorageError:
        if not partial_folder(out).exists():
            raise
        make(overwrite=True)  # the unfinished folder is from another version


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


def _without_data(config: Any) -> dict[str, Any]:
    """Return a configuration without its dataset's path, which affects no result.

    `start` is left out unless it is set, so that earlier runs keep their folders.
    """
    values = {k: x for k, x in dataclasses.asdict(config).items() if k != "data"}
    return {k: x for k, x in values.items() if k != "start" or x is not None}
