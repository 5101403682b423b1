"""Learned policies by name: `NAME:RUN`, with the name of a learner and a folder."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdm.data.benchmark import Benchmark, EvaluationConfig
from sdm.data.request import family_header, family_of
from sdm.policies.learner import learners
from sdm.policies.policy_runs import ABOUT, LearnedRun, load_policy_run
from sdm.policies.prepared import Prepared
from sdm.policies.spec import ActingOptions, register_parser
from sdm.storage.files import StorageError
from sdm.tasks.family import HIDDEN


@dataclass(frozen=True)
class Learned:
    """The policy in a folder.

    Attributes:
        text: its name on the command line.

    """

    text: str
    needs_torch: bool = False

    @property
    def like(self) -> str:
        """The paper has some of these, by the learners' names."""
        return self.text.partition(":")[0]

    @property
    def folder(self) -> Path:
        """Where it is."""
        return Path(self.text.partition(":")[2])

    def check(self, config: EvaluationConfig, options: ActingOptions) -> None:
        """Raise `StorageError` unless the folder has a policy that fits a benchmark."""
        self.load(config)

    def fingerprint(self) -> str | None:
        """Hash what its folder says of its training."""
        file = self.folder / ABOUT
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None

    def build(self, bed: Benchmark, options: ActingOptions) -> Prepared:
        """Make the policy for a benchmark."""
        return learners()[self.like].prepare(self.load(bed.config), bed)

    def load(self, config: EvaluationConfig) -> LearnedRun:
        """Load the policy, if it fits a benchmark.

        Raises:
            StorageError: if the folder has no such policy, or one for other tasks.

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
                    f"`{self.text}`: {name} of its training is {tasks[name]}, of this "
                    f"benchmark {played[name]}",
                    "evaluate it on such tasks, or train another",
                )
        self._check_family(tasks, config)
        shown = learners()[self.like].demonstrations(run, config.kind in HIDDEN)
        if shown is not None and config.support not in shown:
            some = f"{shown[0]} to {shown[-1]}" if len(shown) > 1 else f"{shown[0]}"
            raise StorageError(
                f"`{self.text}` reads {some} demonstrations, found {config.support}",
                f"pass `--support {shown[-1]}`",
            )
        return run

    def _check_family(self, tasks: dict[str, Any], config: EvaluationConfig) -> None:
        """Raise `StorageError` for other spaces, or for test tasks that it has met."""
        trained = family_of(tasks)
        if trained.spaces != config.family.spaces:
            changed = {
                name: value
                for name, value in tasks["family_config"].items()
                if config.family.config().get(name) != value
            }
            raise StorageError(
                f"`{self.text}` was trained for other states or actions: {changed}",
                "evaluate it on such tasks, or train another",
            )
        if (shared := config.family.covers(trained)) is not None:
            raise StorageError(f"`{self.text}`: {shared}")


@register_parser
def learned(text: str) -> Learned | None:
    """Read `NAME:RUN`."""
    name, colon, folder = text.partition(":")
    return Learned(text) if colon and folder and name in learners() else None
