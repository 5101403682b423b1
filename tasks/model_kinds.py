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
from functools import cache
from typing import Any, TypeVar

PACKAGE = "sdm.tasks"

_Class = TypeVar("_Class", bound=type)
_kinds: dict[str, Any] = {}


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
