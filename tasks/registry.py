"""Families by name: those in `tasks/families`, and those that other packages register.

A reference names a family on the command line and in every file that is written:

    NAME             a registered family
    NAME:ARGUMENT    the same, with a value for its first option
    MODULE:OBJECT    a class, an instance or a function in an importable module
    FOLDER           a folder of `.POMDP` or `.npz` files, one task a file

Another package registers a family through the entry-point group `sdm.families`.
"""

import dataclasses
import difflib
import importlib
import importlib.metadata
import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

# First, since `sdm.tasks` then binds this name to the function `families`.
import sdm.tasks.families  # noqa: F401
from sdm.tasks.family import TaskFamily

PACKAGE = "sdm.tasks.families"
GROUP = "sdm.families"
FOLDER = "folder"  # the family that a folder's path stands for
FamilyFactory = Callable[..., TaskFamily]
_registered: dict[str, FamilyFactory] = {}
_Class = TypeVar("_Class", bound=type)


class FamilyError(ValueError):
    """A family that cannot be found, made or used."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep what is wrong and what to do about it apart."""
        super().__init__(message)
        self.hint = hint


def register(family: _Class) -> _Class:
    """Register a family's class under its `name`; use it as a decorator."""
    _registered[family.name] = family  # type: ignore[attr-defined]
    return family


@cache
def families() -> Mapping[str, FamilyFactory]:
    """Return every registered family's class by name.

    Raises:
        FamilyError: if a package's entry point cannot be loaded.

    """
    package = importlib.import_module(PACKAGE)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{PACKAGE}.{module.name}")
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            _registered.setdefault(point.name, point.load())
        except Exception as error:
            raise FamilyError(
                f"family `{point.name}`: its package cannot be loaded, found "
                f"`{point.value}`: {error}",
                "repair or uninstall that package",
            ) from error
    return dict(sorted(_registered.items()))


def load_family(reference: str, options: Mapping[str, Any] | None = None) -> TaskFamily:
    """Make the family that a reference names.

    Args:
        reference: as described above.
        options: values of its fields; the others keep their defaults.

    Raises:
        FamilyError: if there is no such family, or it does not take these options.
        ValueError: if an option's value is wrong.

    """
    factory, first = find_family(reference)
    given = {**first, **(options or {})}
    unknown = given.keys() - set(option_names(factory))
    if unknown:
        raise FamilyError(
            f"family `{reference}`: unknown option {sorted(unknown)[0]!r}",
            f"its options are {', '.join(option_names(factory)) or 'none'}",
        )
    if not callable(factory):
        made = dataclasses.replace(factory, **given) if given else factory
    else:
        try:
            made = factory(**given)
        except TypeError as error:
            raise FamilyError(f"family `{reference}`: {error}") from error
    missing = [name for name in REQUIRED if not hasattr(made, name)]
    if missing:
        raise FamilyError(
            f"family `{reference}`: `{missing[0]}` is missing, found a "
            f"{type(made).__name__}",
            "subclass `sdm.tasks.Family`, and give it `name`, `spaces`, `parameters` "
            "and `model`",
        )
    if not isinstance(made.name, str):
        raise FamilyError(f"family `{reference}`: `name` must be a string")
    if reference not in _registered:
        _references[made.name] = reference
    return made


REQUIRED = (
    *("name", "kinds", "defaults", "spaces", "parameters", "model", "prior"),
    *("divergence", "available", "covers", "config"),
)
_references: dict[str, str] = {}


def reference_of(family: TaskFamily) -> str:
    """Return a reference under which `load_family` finds a family's class again."""
    kind = type(family)
    if families().get(family.name) is kind:
        return family.name
    if family.name in _references:
        return _references[family.name]
    return f"{kind.__module__}:{kind.__qualname__}"


def find_family(reference: str) -> tuple[Any, dict[str, Any]]:
    """Return what makes a family, and the options that the reference gives.

    Raises:
        FamilyError: if nothing is found.

    """
    if reference in families():
        return families()[reference], {}
    name, colon, rest = reference.partition(":")
    if colon and name in families():
        fields = option_names(families()[name])
        if not fields:
            raise FamilyError(f"family `{name}` takes no argument, found `{rest}`")
        return families()[name], {fields[0]: rest}
    if Path(reference).is_dir():
        return families()[FOLDER], {"path": reference}
    if colon and name and rest:
        return _import(name, rest), {}
    close = difflib.get_close_matches(reference, families(), n=1)
    raise FamilyError(
        f"unknown family `{reference}`",
        (f"did you mean `{close[0]}`? " if close else "")
        + f"families are {', '.join(families())}; or name MODULE:OBJECT, or a folder "
        "of models",
    )


def _import(module: str, name: str) -> Any:
    """Import an object, also from the working folder."""
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        why = str(error) or type(error).__name__
        raise FamilyError(
            f"family `{module}:{name}`: cannot be imported: {why}",
            "name MODULE:OBJECT with a module in this folder or an installed one",
        ) from error
    finally:
        if added:
            sys.path.remove(here)
    return found


def option_names(factory: Any) -> tuple[str, ...]:
    """Return the options of a family: its dataclass fields, or its parameters."""
    if dataclasses.is_dataclass(factory):
        return tuple(each.name for each in dataclasses.fields(factory) if each.init)
    if callable(factory):
        return tuple(inspect.signature(factory).parameters)
    return ()
