"""Origins of policies: how a cell's policy comes to be.

A file in `origins` registers an origin; its name is the `learner` of a profile. Every
registered learner is one, too. Another package registers its own in a
module that calls `register_origin` and is listed in the entry-point group
`sdm.origins`.
"""

import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from sdm.experiments.spec import Cell, ExperimentError, Grid, Options
from sdm.policies.spec import ActingOptions
from sdm.storage.plugins import load_plugins

if TYPE_CHECKING:
    from sdm.experiments.artifacts import Artifacts

GROUP = "sdm.origins"
DEFAULT = ActingOptions()


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


@runtime_checkable
class Origin(Protocol):
    """A way in which policies come to be.

    Attributes:
        name: `learner` of a profile's learner, and of rows.
        trains: whether it trains policies.
        language_model: whether its policies are language models, which act for minutes.

    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def trains(self) -> bool: ...  # noqa: D102
    @property
    def language_model(self) -> bool: ...  # noqa: D102

    def options(
        self, learn: Options, data: Options, grid: Grid
    ) -> tuple[Options, Options]:
        """Return the options in `learn` and `data` that affect a policy.

        Args:
            learn: options of the profile's learner and of a cell of the grid.
            data: options of the training dataset.
            grid: grid of the cell.

        """

    def folder(self, cell: Cell, artifacts: "Artifacts") -> Path | None:
        """Return the folder of a trained policy, whether or not it exists, else None.

        Raises:
            ValueError: if an option is unknown or its value is invalid.

        """

    def policy(self, cell: Cell, artifacts: "Artifacts") -> ReadyPolicy:
        """Return the policy of a cell; train it if it is not trained yet.

        Raises:
            ValueError, RuntimeError, OSError: if the training fails.

        """


_Class = TypeVar("_Class", bound=type)
_registered: dict[str, Origin] = {}


def register_origin(origin: _Class) -> _Class:
    """Register a class of which an instance without arguments is an origin."""
    add_origin(origin())
    return origin


def add_origin(origin: Origin) -> None:
    """Register an origin under its name."""
    _registered[origin.name] = origin


@cache
def origins() -> Mapping[str, Origin]:
    """Return every origin by name."""
    load_plugins("sdm.experiments.origins", group=GROUP, what="origin of policies")
    return dict(_registered)


def origin_of(cell: Cell) -> Origin:
    """Return the origin of a cell's policy.

    Raises:
        ExperimentError: if the cell's learner is unknown.

    """
    return origin_named(cell.learner)


def origin_named(name: str) -> Origin:
    """Return an origin by its name.

    Raises:
        ExperimentError: if the name is unknown.

    """
    if name not in origins():
        raise ExperimentError(
            f"unknown learner `{name}`", f"learners are {', '.join(origins())}"
        )
    return origins()[name]


def trains(cell: Cell) -> bool:
    """Return whether a cell trains a policy."""
    return not cell.study and origin_of(cell).trains


def is_trained(cell: Cell, artifacts: "Artifacts") -> bool:
    """Return whether a cell's policy has been trained."""
    if cell.study:
        return False
    try:
        folder = origin_of(cell).folder(cell, artifacts)
    except (ValueError, ImportError):  # raised again when the cell runs
        return False
    return folder is not None and folder.is_dir()


def by_language_model(cell: Cell) -> bool:
    """Return whether a cell's policy is a language model, which acts for minutes."""
    return not cell.study and origin_of(cell).language_model
