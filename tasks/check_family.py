"""Checks of a user-defined task family, before its first use.

Each error is one line with the method, the problem and the value found; a hint says
how to fix it.
"""

import inspect
import json
from typing import Any

import jax.numpy as jnp

from sdm.tasks.check_answers import Subject, short
from sdm.tasks.check_tasks import check_tasks
from sdm.tasks.family import KINDS, Component, Defaults, Kind, Spaces, poses
from sdm.tasks.registry import REQUIRED, load_family, reference_of

METHODS = (
    "parameters",
    "model",
    "prior",
    "divergence",
    "available",
    "covers",
    "config",
)


def check_family(family: Any, kind: Kind) -> None:
    """Raise `FamilyError` unless a family's tasks of a kind are valid.

    Args:
        family: any object that should implement `TaskFamily`.
        kind: kind of model to check.

    Raises:
        FamilyError: naming the method, the value found and the expected one.
        ValueError: if the family does not support the kind.

    """
    subject = Subject(family, kind)
    _check_answers(subject)
    poses(family, kind)
    _check_hash(subject)
    if (family, kind, str(jnp.result_type(float))) in _checked:
        return
    _check_spaces(subject)
    _check_actions(subject)
    _check_config(subject)
    check_tasks(subject)
    common = subject.ask("covers", lambda: family.covers(family))
    if common is not None:
        subject.wrong(
            "covers",
            f"must return None for the family itself, found {short(common)}",
            "make test tasks and training tasks disjoint",
        )
    _checked.add((family, kind, str(jnp.result_type(float))))


_checked: set[tuple[Any, Kind, str]] = set()


def _check_answers(subject: Subject) -> None:
    """Check that the family has all required attributes and methods."""
    family = subject.family
    for name in REQUIRED:
        # `hasattr` would hide the exception that a property raises.
        if inspect.getattr_static(family, name, None) is None:
            subject.wrong(name, "is missing", "subclass `sdm.tasks.Family`")
        if name in METHODS and not callable(getattr(family, name)):
            found = getattr(family, name)
            subject.wrong(name, f"must be a method, found {short(found)}")
    if not isinstance(family.name, str) or not family.name:
        subject.wrong("name", f"must be a string, found {short(family.name)}")
    kinds = subject.ask("kinds", lambda: family.kinds)
    if not isinstance(kinds, frozenset | set) or not kinds or kinds - set(KINDS):
        subject.wrong(
            "kinds", f"must be a set of {', '.join(KINDS)}, found {short(kinds)}"
        )


def _check_hash(subject: Subject) -> None:
    """Check that the family is hashable, as a static argument of `jax.jit` must be."""
    try:
        hash(subject.family)
    except TypeError as error:
        subject.wrong(
            "__hash__",
            f"must return a number, found {error}",
            "define a frozen dataclass whose fields are numbers, strings or tuples",
        )


def _check_spaces(subject: Subject) -> None:
    """Check the types of `spaces` and `defaults`."""
    spaces = subject.ask("spaces", lambda: subject.family.spaces)
    if not isinstance(spaces, Spaces):
        subject.wrong("spaces", f"must be `sdm.tasks.Spaces`, found {short(spaces)}")
    for part in ("state", "symbol"):
        found = getattr(spaces, part)
        proper = isinstance(found, tuple)
        if not proper or not all(isinstance(each, Component) for each in found):
            subject.wrong(
                f"spaces.{part}",
                f"must be a tuple of `sdm.tasks.Component`, found {short(found)}",
            )
    if not spaces.state:
        subject.wrong("spaces.state", "must have a component, found none")
    defaults = subject.ask("defaults", lambda: subject.family.defaults)
    if not isinstance(defaults, Defaults):
        subject.wrong(
            "defaults", f"must be `sdm.tasks.Defaults`, found {short(defaults)}"
        )


def _check_actions(subject: Subject) -> None:
    """Check the names of actions and the groups of duplicates."""
    spaces = subject.family.spaces
    names, groups = spaces.actions, spaces.duplicates
    proper = isinstance(names, tuple) and all(isinstance(n, str) for n in names)
    if not proper or not names or len(set(names)) < len(names):
        subject.wrong(
            "spaces.actions",
            f"must be a tuple of distinct names, found {short(names)}",
        )
    copies = [action for group in groups for action in group]
    if len(set(copies)) < len(copies) or not set(copies) <= set(range(len(names))):
        subject.wrong(
            "spaces.duplicates",
            f"must be groups of distinct actions from 0 to {len(names) - 1}, found "
            f"{short(groups)}",
        )


def _check_config(subject: Subject) -> None:
    """Check that `config` and the reference reconstruct the family."""
    family = subject.family
    config = subject.ask("config", family.config)
    try:
        written = json.loads(json.dumps(config))
    except (TypeError, ValueError) as error:
        subject.wrong("config", f"must be serializable as JSON: {error}")
    reference = reference_of(family)
    if "<locals>" in reference:
        subject.wrong(
            type(family).__name__,
            f"must not be defined inside a function, found `{reference}`",
            "define it at the top level of its module",
        )
    again = subject.ask("config", lambda: load_family(reference, written))
    if type(again).__qualname__ != type(family).__qualname__ or (
        again.config() != config
    ):
        subject.wrong(
            "config",
            f"must reconstruct the same family, found {short(again.config())} instead "
            f"of {short(config)}",
        )
