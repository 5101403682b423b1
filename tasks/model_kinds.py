"""Registry of the classes of models, by which model files are read and written.

A class of models is an `eqx.Module` whose fields are arrays, or numbers. It has
`reward` [*B, S, A], `initial` [*B, S] and `discount`; fields with a default may be
missing in a file. If it has a method `check`, `check_model` calls it in place of its
own checks.

    @register_model
    class MyModel(eqx.Module):
        ...
        def check(self) -> None: ...
"""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache, singledispatch
from typing import Any, Protocol, TypeVar, runtime_checkable

PACKAGE = "sdm.tasks"

_Class = TypeVar("_Class", bound=type)
_kinds: dict[str, Any] = {}


@runtime_checkable
class Model(Protocol):
    """Interface of a model, or a batch of models, of any class.

    Attributes:
        reward: expected reward of each state and action.
        initial: distribution of the first state.
        discount: factor per stage, in [0, 1].

    """

    @property
    def reward(self) -> Any: ...  # noqa: D102
    @property
    def initial(self) -> Any: ...  # noqa: D102
    @property
    def discount(self) -> Any: ...  # noqa: D102


def register_model(kind: _Class) -> _Class:
    """Register a class of models by its name; use it as a decorator."""
    _kinds[kind.__name__] = kind
    return kind


@cache
def _load_all() -> None:
    """Import every module of the package that can register classes."""
    package = importlib.import_module(PACKAGE)
    for module in pkgutil.iter_modules(package.__path__):
        if not module.ispkg:
            importlib.import_module(f"{PACKAGE}.{module.name}")


def model_kinds() -> Mapping[str, Any]:
    """Return the registered classes of models by name."""
    _load_all()
    return _kinds


def optional_fields(kind: Any) -> frozenset[str]:
    """Return the fields of a class of models that have a default."""
    return frozenset(
        each.name
        for each in fields(kind)
        if each.default is not MISSING or each.default_factory is not MISSING
    )


@singledispatch
def states_observed(model: Any) -> Any:
    """Return the same tasks with their states fully observed, as an `MDP`.

    Each class of models whose states can be hidden registers its own.

    Raises:
        TypeError: if it is unknown for this class of models.

    """
    raise TypeError(f"observed states: not available for {type(model).__name__} models")
