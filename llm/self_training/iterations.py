r"""Iterations of self-training: play, select, fine-tune, test.

In each iteration, the current model plays L episodes in each of many scenarios. It
samples from its action probabilities. The k best episodes of each scenario are kept,
and the model is fine-tuned on them, from its own weights (Park, Chen, Ozdaglar, Zhang,
2025, iterative regret-minimising fine-tuning). Training needs no oracle; the test does,
and so does the selection by pseudo-regret.

    OUT/start/          random play; data/ and run/ only if the base is trained on it
    OUT/iteration-1/    data/, run/, results.json
    OUT/results.json    all results, and how they were made

The folder is `OUT.partial` until all iterations are complete. Every part of it is
written under a temporary name and then renamed, and an iteration is complete once it
has its `results.json`, so that an interrupted run continues with the first part that is
missing, and a complete one with more iterations.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from sdm.data.benchmark import Benchmark, make_benchmark
from sdm.data.shards import read_manifest
from sdm.evaluation.evaluate import check_policy, evaluate
from sdm.evaluation.result import PolicyResult
from sdm.llm.base_names import ICL
from sdm.llm.finetune import finetune
from sdm.llm.run_folder import is_run, read_run
from sdm.llm.schema import make_schema
from sdm.llm.self_training.config import SelfTrainConfig
from sdm.llm.self_training.dataset import write_dataset
from sdm.llm.self_training.kept import selected
from sdm.llm.self_training.play import random_play, self_play
from sdm.llm.self_training.results import Row, iteration_row, report_of, tested_row
from sdm.policies.spec import ActingOptions
from sdm.storage.files import folder_in_progress, partial_folder, write_atomically

RESULTS = "results.json"
Progress = Callable[[str, int, int], None]  # name of a step, work done, total work


def self_train(
    config: SelfTrainConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda step, done, total: None,
) -> dict[str, Any]:
    """Train a model on the best of its own episodes, and write the folder `out`.

    Args:
        config: configuration of the self-training.
        out: the folder to write; see above.
        resume: continue an unfinished folder of the same configuration, or a complete
            one of fewer iterations.
        overwrite: replace `out`, or an unfinished folder.
        progress: called with the name of a step, the work done and the total work.

    Returns:
        The report, as `results.json` has it: `iterations` has a row for the start and
        one for each iteration.

    Raises:
        StorageError: if the folder cannot be created, or `config.base` is a damaged
            run.
        BaseModelError: if the base is unavailable.
        NothingToLearnError: if no episode can be selected, or the model no longer
            emits valid actions. What is complete by then remains.
        ValueError: if the schema cannot write the tasks, the reference cannot act in
            them, or the score is not defined for them.
        FloatingPointError: if a training diverges.

    """
    _check(config)
    options = config.describe()
    del options["iterations"]  # the first ones are the same, however many follow
    last = f"iteration-{config.iterations}"
    with folder_in_progress(
        out,
        {"selftrain": options},
        inputs=(Path(config.base),),
        resume=resume,
        overwrite=overwrite,
        is_damaged=lambda folder: not (folder / last / RESULTS).is_file(),
    ) as folder:
        steps = _Steps(config, folder.resolve(), progress)
        rows = [steps.start()]
        for iteration in range(1, config.iterations + 1):
            rows.append(steps.iteration(iteration))
        report = report_of(config, rows, steps.reference())
        write_atomically(folder / RESULTS, json.dumps(report, indent=2) + "\n")
        _rename_paths(folder, out)
    return report


def _check(config: SelfTrainConfig) -> None:
    """Raise `ValueError` for what would fail only after hours of training."""
    if config.reference is not None:
        check_policy(config.reference, config.test)
    given = Path(config.base)
    run = read_run(given).config if is_run(given) else None
    name = (run or config.finetuning("data", config.base)).schema
    test = config.test
    make_schema(name, test.family.spaces, test.kind, rewards=test.rewards_seen)


@dataclass(frozen=True)
class _Steps:
    """The parts of a folder in progress; parts that are complete are not made again."""

    config: SelfTrainConfig
    folder: Path
    progress: Progress

    @cached_property
    def bed(self) -> Benchmark:
        """The test, which is solved only if an iteration is still to be tested."""
        return make_benchmark(self.config.test)

    @property
    def trains_start(self) -> bool:
        """Whether the base learns from random play first."""
        return self.config.random_scenarios > 0

    @property
    def base(self) -> str:
        """Name of the base of all runs."""
        given = Path(self.config.base)
        return read_run(given).config.base if is_run(given) else self.config.base

    def place(self, iteration: int) -> Path:
        """Return the folder of an iteration; 0 is the start."""
        return self.folder / (f"iteration-{iteration}" if iteration else "start")

    def policy(self, iteration: int) -> str:
        """Return the run folder, or the base, that an iteration has made."""
        if iteration or self.trains_start:
            return str(self.place(iteration) / "run")
        return self.config.base

    def start(self) -> Row:
        """Return the results of the model before the first iteration."""
        place = self.place(0)
        if (found := _read(place / RESULTS)) is not None:
            return found
        place.mkdir(exist_ok=True)
        if self.trains_start:
            if not (place / "data").is_dir():
                play = random_play(self.config)
                every = np.ones(play.played.action.shape[:2], bool)
                about = {"kept": int(every.sum()), "scenarios": len(every)}
                write_dataset(place / "data", self.config, play, every, about)
            self._train(0)
        return self._tested(0)

    def iteration(self, iteration: int) -> Row:
        """Play, select, train and test; return the results."""
        place = self.place(iteration)
        if (found := _read(place / RESULTS)) is not None:
            return found
        place.mkdir(exist_ok=True)
        if not (place / "data").is_dir():
            self._select(iteration)
        shutil.rmtree(place / "played", ignore_errors=True)
        self._train(iteration)
        return self._tested(iteration)

    def reference(self) -> Row | None:
        """Return the results of the policy to compare with; None if there is none."""
        if self.config.reference is None:
            return None
        path = self.folder / "reference.json"
        if (found := _read(path)) is None:
            found = self._test(self.config.reference, self.folder / "reference")
            write_atomically(path, json.dumps(found, indent=2) + "\n")
        return found

    def _select(self, iteration: int) -> None:
        """Play an iteration's scenarios, and write the dataset of the best episodes."""
        config, place = self.config, self.place(iteration)
        (place / "played").mkdir(exist_ok=True)
        play = self_play(
            config,
            iteration,
            self.policy(iteration - 1),
            kept=place / "played" / "group",
            progress=partial(self.progress, f"iteration {iteration}: playing"),
        )
        kept, about = selected(config, iteration, play)
        write_dataset(place / "data", config, play, kept, about)

    def _train(self, iteration: int) -> None:
        """Fine-tune the last iteration's model on an iteration's dataset."""
        place = self.place(iteration)
        if (place / "run").is_dir():
            return
        before = self.policy(iteration - 1) if iteration else self.config.base
        start = before if is_run(Path(before)) else None
        finetune(
            self.config.finetuning(
                str(place / "data"), self.base, start, iteration=iteration
            ),
            place / "run",
            resume=partial_folder(place / "run").exists(),
            progress=partial(
                self.progress, f"{place.name.replace('-', ' ')}: training"
            ),
        )

    def _tested(self, iteration: int) -> Row:
        """Test an iteration's model, and write and return its results."""
        place = self.place(iteration)
        row = iteration_row(
            iteration,
            self._test(self.policy(iteration), place),
            _selection(place / "data"),
            _read(place / "run" / "report.json"),
        )
        write_atomically(place / RESULTS, json.dumps(row, indent=2) + "\n")
        return row

    def _test(self, policy: str, kept: Path) -> Row:
        """Evaluate a policy in the unseen tasks, sampling and with the best actions."""
        name = policy if policy != self.config.base else self._untrained
        title = kept.name.replace("-", " ")

        def play(temperature: float, how: str) -> PolicyResult:
            place = kept.with_name(f"{kept.name}-{how}")
            (result,) = evaluate(
                [name],
                self.bed,
                ActingOptions(temperature=temperature),
                kept=place,
                progress=lambda _, done, tasks: self.progress(
                    f"{title}: testing, {how}", done, tasks
                ),
            )
            shutil.rmtree(place, ignore_errors=True)
            return result

        sampled = play(self.config.test_temperature, "sampled")
        return tested_row(sampled, play(0.0, "greedy"))

    @property
    def _untrained(self) -> str:
        """Name of the policy that the base is before any training."""
        given = self.config.base
        return given if is_run(Path(given)) else f"{ICL}{given}"


def _selection(data: Path) -> dict[str, Any]:
    """Return what a dataset records of its selection; nothing if there is none."""
    return dict(read_manifest(data)["self_training"]) if data.is_dir() else {}


def _read(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file; None if it does not exist."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def _rename_paths(folder: Path, out: Path) -> None:
    """Replace the partial folder's path in the files of its runs by the final one."""
    before, after = str(folder.resolve()), str(out.resolve())
    for run in folder.glob("*/run"):
        for path in (*run.glob("*.yaml"), *run.glob("*.md"), *run.glob("*.json")):
            text = path.read_text("utf-8")
            if (named := re.sub(re.escape(before) + r"(?=/)", after, text)) != text:
                write_atomically(path, named)
