"""Estimators: the protocol, what they return, and their registry.

An estimator is a frozen dataclass in one module of `sdm.data.estimation.estimators`:

    @register_estimator
    @dataclass(frozen=True)
    class MyEstimator:
        name: ClassVar[str] = "mine"
        def estimate(self, logs, config, *, held_out, seed, progress) -> Estimate: ...

Its fields are options of `sdm estimate --estimator mine`. Another package registers one
in a module that the entry-point group `sdm.estimators` lists.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from sdm.data.estimation.config import EstimationConfig
from sdm.data.logs import Logs
from sdm.storage.plugins import NamedClasses

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Estimate:
    """Estimated models of the tasks of logs.

    Attributes:
        models: one model for each task, of one class and one shape.
        states: name of each state; () if states are hidden.
        actions: name of each action.
        observations: name of each observation, if states are hidden; else ().
        horizon: decisions of the longest logged episode in these models.
        unvisited: number of unvisited pairs of state and action of each task.
        pairs: number of pairs in which decisions are possible.
        score: mean log probability of what follows a decision in held-out episodes, in
            nats; None if none is held out.
        radius: radius of each visited row of each task; None without such sets.
        notes: what the sets cover and what the estimator assumed.
        measured: further results, as values that JSON can represent.

    """

    models: tuple[Any, ...]
    states: tuple[str, ...]
    actions: tuple[str, ...]
    observations: tuple[str, ...]
    horizon: int
    unvisited: tuple[int, ...]
    pairs: int
    score: float | None
    radius: tuple[Any, ...] | None = None
    notes: tuple[str, ...] = ()
    measured: Mapping[str, Any] | None = None


@runtime_checkable
class Estimator(Protocol):
    """Interface of an estimator.

    Attributes:
        name: name on the command line.

    """

    @property
    def name(self) -> str: ...  # noqa: D102

    def estimate(
        self,
        logs: Logs,
        config: EstimationConfig,
        *,
        held_out: Bool[np.ndarray, " N"],
        seed: int,
        progress: Progress,
    ) -> Estimate:
        """Return a model of each task of the logs, estimated from all episodes.

        Args:
            logs: the episodes.
            config: what the estimate assumes.
            held_out: the episodes in which an estimate from the others is scored.
            seed: random seed of what is drawn.
            progress: called with the name of a step, work done and all work.

        Raises:
            LogsError: if the logs do not suffice.
            ValueError: if the estimator does not support an option.

        """
        ...


_estimators = NamedClasses(
    "sdm.data.estimation.estimators", group="sdm.estimators", what="estimator"
)
register_estimator = _estimators.add
estimators = _estimators.all
estimator_class = _estimators.find
