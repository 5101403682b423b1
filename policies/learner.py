"""Learners: what `sdm train NAME` trains, and how its result plays.

Each file in `learners` registers one. Another package registers a learner through the
entry-point group `sdm.learners`, in a module that calls `register_learner`. These
modules import nothing heavy before they are used: they are read to show the help.
"""

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import sdm.policies.learners

if TYPE_CHECKING:
    from sdm.data.benchmark import Benchmark
    from sdm.policies.policy_runs import LearnedRun
    from sdm.policies.prepared import Prepared

GROUP = "sdm.learners"
Progress = Callable[[int, int], None]


@runtime_checkable
class Learner(Protocol):
    """A way to learn a policy from an oracle dataset.

    Attributes:
        name: what the command line calls it; its policies are `NAME:RUN`.
        config: dataclass of its options; the first one is `data`.
        resumable: whether an interrupted training can be continued.
        extra: the optional dependency that it needs; "" for none.
        package: the package to look for; "" for none.

    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def config(self) -> type: ...  # noqa: D102
    @property
    def resumable(self) -> bool: ...  # noqa: D102
    @property
    def extra(self) -> str: ...  # noqa: D102
    @property
    def package(self) -> str: ...  # noqa: D102

    def train(
        self,
        config: Any,
        out: Path,
        *,
        resume: bool,
        overwrite: bool,
        progress: Progress,
    ) -> "LearnedRun":
        """Train on a dataset and write the folder of the policy."""
        ...

    def demonstrations(self, run: "LearnedRun", hidden: bool) -> range | None:
        """Return how many demonstrations it reads; None where it reads none."""
        ...

    def prepare(self, run: "LearnedRun", bed: "Benchmark") -> "Prepared":
        """Make the policy of a folder for the tasks of a benchmark."""
        ...


_learners: dict[str, Learner] = {}


def register_learner(learner: Learner) -> None:
    """Register a learner under its name."""
    _learners[learner.name] = learner


@cache
def learners() -> Mapping[str, Learner]:
    """Return every registered learner by name."""
    package = sdm.policies.learners
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    for point in importlib.metadata.entry_points(group=GROUP):
        point.load()
    return dict(_learners)
