"""Inputs of cells: benchmarks, datasets and trained policies, each created once.

The name of a dataset or run folder is a hash of its full configuration, so that
experiments share folders and an interrupted run reuses them.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

from filelock import FileLock

from sdm.data.benchmark import Benchmark, EvaluationConfig, make_benchmark
from sdm.data.generation import describe, write_oracle_dataset
from sdm.data.request import OracleConfig
from sdm.experiments.spec import key_of
from sdm.storage.files import StorageError, partial_folder

Progress = Callable[[str, int, int], None]  # name of a step, work done, total work


@lru_cache(maxsize=2)
def benchmark_of(config: EvaluationConfig) -> Benchmark:
    """Return a benchmark; the last two are cached, since cells are sorted by test."""
    return make_benchmark(config)


class Artifacts:
    """Creates the inputs of cells in one folder.

    Attributes:
        folder: folder of datasets and runs.

    """

    def __init__(self, folder: Path, progress: Progress = lambda *_: None) -> None:
        """Use a folder, which is created on the first write."""
        self.folder, self._progress = folder.resolve(), progress

    def training(self, done: int, steps: int) -> None:
        """Report the progress of a training."""
        self._progress("training", done, steps)

    def dataset(self, config: OracleConfig) -> Path:
        """Return the folder of an oracle dataset; generate it if it does not exist."""
        out = self.dataset_folder(config)

        def progress(done: int) -> None:
            self._progress("data", done, config.tasks)

        self.make(out, partial(write_oracle_dataset, config, out, progress=progress))
        return out

    def dataset_folder(self, config: OracleConfig) -> Path:
        """Return the folder of an oracle dataset, whether or not it exists."""
        spec = {k: x for k, x in describe(config).items() if k != "versions"}
        return self.folder / f"data-{key_of(spec)}"

    def make(self, out: Path, write: Callable[..., object]) -> None:
        """Write a folder unless it exists, or continue an unfinished one.

        Other processes wait; the lock of a terminated one is free.

        Args:
            out: the folder.
            write: writes it, with `resume=True` or `overwrite=True`.

        """
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(out.with_suffix(".lock")):
            if out.is_dir():
                return
            try:
                write(resume=True)
            except StorageError:
                if not partial_folder(out).exists():
                    raise
                write(overwrite=True)  # the unfinished folder is from another version
