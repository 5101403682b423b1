"""Learners, which `sdm train NAME` trains, and the policies that they learn.

Each file in `learners` registers one learner. Another package registers a learner in a
module that calls `register_learner` and is listed in the entry-point group
`sdm.learners`. The help loads these modules, so they import nothing heavy before use.
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sdm.storage.plugins import load_plugins

if TYPE_CHECKING:
    from sdm.data.benchmark import Shown
    from sdm.policies.policy_runs import LearnedRun
    from sdm.policies.prepared import Prepared

GROUP = "sdm.learners"
Progress = Callable[[int, int], None]


@runtime_checkable
class Learner(Protocol):
    """A way to learn a policy from an oracle dataset.

    Attributes:
        name: name on the command line; its policies are `NAME:RUN`.
        config: dataclass of its options; the first one is `data`.
        resumable: whether an interrupted training can be resumed.
        extra: the extra of this package that it needs; "" for none.
        package: the package that this extra installs; "" for none.

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
        """Return the numbers of demonstrations that it can read; None if it reads none.

        Args:
            run: the learned policy.
            hidden: whether states are hidden.

        """
        ...

    def prepare(self, run: "LearnedRun", bed: "Shown") -> "Prepared":
        """Return a learned policy for the tasks of a benchmark."""
        ...


_learners: dict[str, Learner] = {}


def register_learner(learner: Learner) -> None:
    """Register a learner under its name."""
    _learners[learner.name] = learner


@cache
def learners() -> Mapping[str, Learner]:
    """Return every registered learner by name."""
    load_plugins("sdm.policies.learners", group=GROUP, what="learner")
    return dict(_learners)
