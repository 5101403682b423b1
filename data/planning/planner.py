"""Planners: the protocol, what they return, and their registry.

A planner is a frozen dataclass in one module of `sdm.data.planning.planners`:

    @register_planner
    @dataclass(frozen=True)
    class MyPlanner:
        name: ClassVar[str] = "mine"
        def plan(self, evidence, *, horizon, seed) -> LogPlan: ...

Its fields are options of `sdm plan --planner mine`. Another package registers one in a
module that the entry-point group `sdm.planners` lists.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from sdm.data.planning.evidence import Evidence
from sdm.storage.plugins import NamedClasses


@dataclass(frozen=True)
class LogPlan:
    """A policy from logs.

    Attributes:
        probabilities: π_t(a | s) of each observation.
        value: what the planner claims for its policy: the expected return in its model
            or in its set of models, from the logged first observations.

    """

    probabilities: Float[np.ndarray, "T S A"]
    value: float


@runtime_checkable
class Planner(Protocol):
    """Interface of a planner.

    Attributes:
        name: name on the command line.

    """

    @property
    def name(self) -> str: ...  # noqa: D102

    def plan(self, evidence: Evidence, *, horizon: int, seed: int) -> LogPlan:
        """Return a policy for T decisions.

        Args:
            evidence: what the logs say.
            horizon: number of decisions T.
            seed: random seed of what is drawn.

        """
        ...


_planners = NamedClasses(
    "sdm.data.planning.planners", group="sdm.planners", what="planner"
)
register_planner = _planners.add
planners = _planners.all
planner_class = _planners.find


def parse_planner(text: str) -> Planner:
    """Return the planner that a text names, with its options.

    Args:
        text: a name and options, such as `support min_visits=20`.

    Raises:
        ValueError: if the name or an option is unknown, or a value is invalid.

    """
    name, *options = text.split()
    chosen = planner_class(name)
    known: dict[str, Any] = {
        each.name: type(each.default) for each in dataclasses.fields(chosen)
    }
    given = {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in known:
            raise ValueError(
                f"planner `{name}`: unknown option `{key}`, must be one of "
                f"{', '.join(known) or 'none'}"
            )
        try:
            given[key] = known[key](value)
        except ValueError as error:
            raise ValueError(
                f"planner `{name}`: {key} = {value!r}: must be a number"
            ) from error
    made: Planner = chosen(**given)
    return made
