"""Judges, which say which of two items they prefer, and their registry.

`--judge NAME` or `NAME:ARGUMENT` names a judge. Each file in `judges` registers one;
another package registers its own in a module that calls `register_judge` and is listed
in the entry-point group `sdm.judges`. A judge that a server hosts is such a class, too.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from sdm.storage.plugins import load_plugins

GROUP = "sdm.judges"
# Answers to a comparison. Every other number is an answer outside of the choices.
FIRST, TIE, SECOND, OUTSIDE = 1, 0, -1, -2
CHOICES = (FIRST, TIE, SECOND)


@dataclass(frozen=True)
class Items:
    """Items of one task that a judge compares.

    Attributes:
        captions: text of each item.
        value: exact quality of each item, in units of reward, which only a synthetic
            judge and measurements read.
        goal: what the agent wants, in words.
        demonstrations: texts of episodes of the task, which a judge may read.

    """

    captions: Sequence[str]
    value: Float[np.ndarray, " N"]
    goal: str = ""
    demonstrations: Sequence[str] = ()


@runtime_checkable
class Judge(Protocol):
    """What compares items.

    Attributes:
        name: name on the command line, with its argument.
        reads_task: whether answers depend on more than goal and captions, so that every
            task is judged; otherwise the answers in one task hold for all.
        needs_torch: whether PyTorch computes it.
        together: comparisons that are stored together, so that an interrupted run
            resumes after them.

    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def reads_task(self) -> bool: ...  # noqa: D102
    @property
    def needs_torch(self) -> bool: ...  # noqa: D102
    @property
    def together(self) -> int: ...  # noqa: D102

    def compare(
        self, items: Items, pairs: Int[np.ndarray, "C 2"], *, seed: Sequence[int]
    ) -> Int[np.ndarray, " C"]:
        """Return `FIRST`, `SECOND`, `TIE` or `OUTSIDE` for each pair of items.

        Args:
            items: the items.
            pairs: indices of the first and the second item of each comparison.
            seed: entropy of the answers of a random judge, for NumPy's generator.

        """
        ...

    def is_new(
        self,
        caption: str,
        history: Sequence[str],
        *,
        seed: Sequence[int],
    ) -> bool:
        """Return whether an observation is new, given those before it.

        Args:
            caption: text of the observation.
            history: texts of the observations before it, in order.
            seed: entropy of the answer of a random judge.

        """
        ...


class JudgeError(ValueError):
    """A judge that is unknown or cannot judge."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Set the message, and a hint on how to fix the problem."""
        super().__init__(message)
        self.hint = hint


Make = Callable[[str], Judge]
_Made = TypeVar("_Made", bound=Make)
_registered: dict[str, Make] = {}


def register_judge(name: str) -> Callable[[_Made], _Made]:
    """Return a decorator that registers what makes a judge of its argument's text."""

    def add(make: _Made) -> _Made:
        _registered[name] = make
        return make

    return add


@cache
def judges() -> Mapping[str, Make]:
    """Return what makes each registered judge, by name."""
    load_plugins("sdm.feedback.judges", group=GROUP, what="judge")
    return dict(_registered)


def parse_judge(text: str) -> Judge:
    """Return the judge that `NAME` or `NAME:ARGUMENT` names.

    Raises:
        JudgeError: if it is unknown, or its argument is invalid.

    """
    name, _, argument = text.partition(":")
    if name not in judges():
        close = difflib.get_close_matches(name, judges(), n=1)
        raise JudgeError(
            f"judge: unknown, found `{text}`",
            (f"did you mean `{close[0]}`? " if close else "")
            + f"choose from {', '.join(judges())}",
        )
    return judges()[name](argument)
