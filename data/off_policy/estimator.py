"""Registry of estimators of a policy's value from logs.

An estimator is a class with the methods of `Estimator` in a module of `estimators`,
decorated with `register_estimator`, or in a module that another package lists in the
entry-point group `sdm.off_policy`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float

from sdm.data.off_policy.sample import Sample
from sdm.storage.plugins import load_plugins

# The order in tables; other estimators follow.
ORDER = ("wpdis", "pdis", "is", "fqe", "dr", "wdr", "model")


@dataclass(frozen=True)
class Values:
    """A policy's value, for each of R weightings of the episodes.

    Attributes:
        value: the estimate; NaN if no episode has weight.
        low: the estimate if unsupported actions have the smallest possible return.
        high: the estimate if they have the largest.

    """

    value: Float[np.ndarray, " R"]
    low: Float[np.ndarray, " R"]
    high: Float[np.ndarray, " R"]


Estimate = Callable[[Float[np.ndarray, "R N"]], Values]


@dataclass(frozen=True)
class Diagnosis:
    """How much the logs say about the policy.

    Attributes:
        effective: effective sample size, in episodes.
        unsupported: estimated probability that an episode of the policy takes an action
            without data.

    """

    effective: float
    unsupported: float


@runtime_checkable
class Estimator(Protocol):
    """An estimator of the expected discounted return of a policy.

    Attributes:
        name: name on the command line and in results.
        title: name in words.

    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def title(self) -> str: ...  # noqa: D102

    def refuse(self, sample: Sample) -> str | None:
        """Return why the estimator does not fit a policy; None if it does."""

    def prepare(self, sample: Sample) -> Estimate:
        """Return the function from weights of the episodes [R, N] to estimates [R].

        Weights are positive and need not sum to 1.
        """
        ...

    def diagnose(self, sample: Sample) -> Diagnosis:
        """Return how much the logs say about the policy."""
        ...


_Class = TypeVar("_Class", bound=type)
_estimators: dict[str, Estimator] = {}


def register_estimator(kind: _Class) -> _Class:
    """Register an instance of a class by its `name`; use it as a decorator."""
    made = kind()
    _estimators[made.name] = made
    return kind


@cache
def estimators() -> Mapping[str, Estimator]:
    """Return every registered estimator by name, in the order of tables."""
    load_plugins(f"{__package__}.estimators", group="sdm.off_policy", what="estimator")
    return {n: _estimators[n] for n in (*ORDER, *_estimators) if n in _estimators}
