"""Learned policies by name: `NAME:RUN`, the name of a learner and a policy's folder."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdm.data.benchmark import Benchmark, EvaluationConfig
from sdm.data.request import family_header, family_of
from sdm.policies.learner import learners
from sdm.policies.policy_runs import ABOUT, LearnedRun, load_policy_run
from sdm.policies.prepared import Prepared
from sdm.policies.spec import ActingOptions, register_parser
from sdm.policies.trained_on import warn_of_other_tasks
from sdm.storage.files import StorageError
from sdm.tasks.family import HIDDEN


@dataclass(frozen=True)
class Learned:
    """A learned policy in a folder.

    Attributes:
        text: name of the policy on the command line.
        needs_torch: whether PyTorch computes it.

    """

    text: str
    needs_torch: bool = False

    @property
    def like(self) -> str:
        """Return the learner's name, which is also that of the paper's policy."""
        return self.text.partition(":")[0]

    @property
    def folder(self) -> Path:
        """Return the folder of the policy."""
        return Path(self.text.partition(":")[2])

    def check(self, config: EvaluationConfig, options: ActingOptions) -> None:
        """Raise `StorageError` unless the folder's policy fits a benchmark."""
        self.load(config)

    def fingerprint(self) -> str | None:
        """Return a hash of what the folder records of the training; None if nothing."""
        file = self.folder / ABOUT
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None

    def build(self, bed: Benchmark, options: ActingOptions) -> Prepared:
        """Return the policy for a benchmark."""
        run = self.load(bed.config)
        warn_of_other_tasks(self.text, run.about.tasks, bed.config)
        return learners()[self.like].prepare(run, bed)

    def trained_on(self) -> Mapping[str, Any]:
        """Return the description of the training tasks."""
        return load_policy_run(self.folder, self.like).about.tasks

    def load(self, config: EvaluationConfig) -> LearnedRun:
        """Load the policy if it fits a benchmark.

        Raises:
            StorageError: if the folder has no such policy, or a policy for other tasks.

        """
        run = load_policy_run(self.folder, self.like)
        tasks = run.about.tasks
        played = {
            **family_header(config.family, config.kind),
            "horizon": config.horizon,
            "observes_reward": config.rewards_seen,
        }
        for name in ("family", "kind", "horizon", "observes_reward"):
            if tasks[name] != played[name]:
                raise StorageError(
                    f"`{self.text}`: {name} must be that of its training, "
                    f"{tasks[name]}, found {played[name]}",
                    "evaluate it on tasks like those of its training, or train another",
                )
        self._check_family(tasks, config)
        shown = learners()[self.like].demonstrations(run, config.kind in HIDDEN)
        if shown is not None and config.support not in shown:
            some = f"{shown[0]} to {shown[-1]}" if len(shown) > 1 else f"{shown[0]}"
            raise StorageError(
                f"`{self.text}`: reads {some} demonstrations, found {config.support}",
                f"pass `--support {shown[-1]}`",
            )
        return run

    def _check_family(self, tasks: dict[str, Any], config: EvaluationConfig) -> None:
        """Raise `StorageError` for other spaces, or for test tasks used in training."""
        trained = family_of(tasks)
        if trained.spaces != config.family.spaces:
            changed = {
                name: value
                for name, value in tasks["family_config"].items()
                if config.family.config().get(name) != value
            }
            raise StorageError(
                f"`{self.text}`: trained for other states or actions: {changed}",
                "evaluate it on tasks like those of its training, or train another",
            )
        if (shared := config.family.covers(trained)) is not None:
            raise StorageError(f"`{self.text}`: {shared}")


@register_parser
def learned(text: str) -> Learned | None:
    """Parse `NAME:RUN`; return None for other names."""
    name, colon, folder = text.partition(":")
    return Learned(text) if colon and folder and name in learners() else None
