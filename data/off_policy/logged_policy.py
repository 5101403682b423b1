"""Policies whose action probabilities along logged histories are known.

A name on the command line stands for such a policy. A parser for each form of names
returns the policy, or None for a name of another form. Parsers are registered by the
modules in `policies`, and by modules in the entry-point group `sdm.policies`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from sdm.data.logs import NOTHING, Logs
from sdm.storage.checks import check_count, check_tolerance
from sdm.storage.plugins import load_plugins
from sdm.tasks.family import Kind, TaskFamily

ROUNDING = 1e-5  # of probabilities that sum to 1, written in single precision


@runtime_checkable
class LoggedPolicy(Protocol):
    """A policy to evaluate, with or without memory.

    Attributes:
        table: π_t(a | s) [T, S, A] of a policy without memory, [1, S, A] if it does not
            depend on the stage; None for a policy with memory.

    """

    @property
    def table(self) -> Float[np.ndarray, "T S A"] | None: ...  # noqa: D102

    def probabilities_along(self, logs: Logs) -> Float[np.ndarray, "N T A"]:
        """Return the probability of each action at each logged decision.

        They are conditional on the logged history up to this decision, whatever action
        the policy would have taken before. Entries after the end of an episode have no
        meaning.
        """
        ...


@dataclass(frozen=True)
class TablePolicy:
    """A policy without memory.

    Attributes:
        table: π_t(a | s) for the observations and actions of the logs; the first axis
            has one entry if the policy does not depend on the stage.

    """

    table: Float[np.ndarray, "T S A"]

    def __post_init__(self) -> None:
        """Raise `ValueError` unless every row is a distribution."""
        wrong = (self.table < 0).any(-1) | ~(np.abs(self.table.sum(-1) - 1) <= ROUNDING)
        if wrong.any():
            t, s = (int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(
                f"policy: probabilities[{t}, {s}] = {self.table[t, s].tolist()}: must "
                f"be 0 or more and sum to 1 ({int(wrong.sum())} of {wrong.size} rows "
                "are wrong)"
            )

    def probabilities_along(self, logs: Logs) -> Float[np.ndarray, "N T A"]:
        """Return the rows of the table for the logged observations.

        Raises:
            ValueError: if the table has another number of observations or actions than
                the logs, or fewer stages.

        """
        stages, states, actions = self.table.shape
        for what, found, wanted in (
            ("observations", states, len(logs.observations)),
            ("actions", actions, len(logs.actions)),
        ):
            if found != wanted:
                raise ValueError(
                    f"policy: has {found} {what}, but the logs have {wanted}"
                )
        if 1 < stages < logs.horizon:
            raise ValueError(
                f"policy: has {stages} stages, but the logs have episodes of "
                f"{logs.horizon} decisions"
            )
        stage = np.minimum(np.arange(logs.horizon), stages - 1)
        seen = np.where(logs.action == NOTHING, 0, logs.observation[:, : logs.horizon])
        return self.table[stage, seen]


@dataclass(frozen=True)
class PolicyOptions:
    """Options of policies on logs.

    Attributes:
        temperature: at 0, language models take the most probable action; above, they
            sample actions with probabilities proportional to p^(1 / temperature).
        demonstrations: logged episodes of the same task that a policy is shown; as many
            as in its training if not given, 2 for `icl:`, and 0 for untrained policies.
        schema: text schema of `icl:` policies; by default, the base's with a family and
            `paper` without.
        family: family of the tasks, for untrained policies.
        kind: kind of the family's tasks.

    """

    temperature: float = 0.0
    demonstrations: int | None = None
    schema: str | None = None
    family: TaskFamily | None = None
    kind: Kind = "mdp"

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        check_tolerance("temperature", self.temperature)
        if self.demonstrations is not None:
            check_count("demonstrations", self.demonstrations, 0)


Parser = Callable[[str, Logs, PolicyOptions], LoggedPolicy | None]
_parsers: dict[str, Parser] = {}


def register_logged_policy(form: str) -> Callable[[Parser], Parser]:
    """Return a decorator that registers a parser of names.

    Args:
        form: how such names look, for the error about an unknown name.

    """

    def add(parser: Parser) -> Parser:
        _parsers[form] = parser
        return parser

    return add


@cache
def _load() -> None:
    load_plugins(f"{__package__}.policies", group="sdm.policies", what="policy")


def parse_logged_policy(
    text: str, logs: Logs, options: PolicyOptions | None = None
) -> LoggedPolicy:
    """Return the policy that a name stands for, for the actions of the logs.

    Raises:
        ValueError: if the name is unknown, or its policy does not fit the logs.

    """
    _load()
    for parser in _parsers.values():
        if (policy := parser(text, logs, options or PolicyOptions())) is not None:
            return policy
    *others, last = sorted(_parsers)  # names in quotes come first
    raise ValueError(f"unknown policy `{text}`: must be {', '.join(others)} or {last}")
