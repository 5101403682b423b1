"""Registry of task families: built-in ones, and those that other packages register.

A reference identifies a family on the command line and in every file:

    NAME             a registered family
    NAME:ARGUMENT    a registered family, with a value for its first option
    MODULE:OBJECT    a class, an instance or a function in an importable module
    FOLDER           a folder of `.POMDP` or `.npz` files, one task per file

Another package registers a family through the entry-point group `sdm.families`.
"""

import dataclasses
import difflib
import importlib
import importlib.metadata
import inspect
import pkgutil
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

# Import this first, since `sdm.tasks` rebinds `families` to the function.
import sdm.tasks.families  # noqa: F401
from sdm.tasks.family import TaskFamily
from sdm.tasks.imported import FamilyError as FamilyError
from sdm.tasks.imported import import_object, reason

PACKAGE = "sdm.tasks.families"
GROUP = "sdm.families"
FOLDER = "folder"  # the family that loads models from a folder's path
REQUIRED = (
    *("name", "kinds", "defaults", "spaces", "parameters", "model", "prior"),
    *("divergence", "available", "covers", "config"),
)
FamilyFactory = Callable[..., TaskFamily]
_registered: dict[str, FamilyFactory] = {}
_Class = TypeVar("_Class", bound=type)


def register(family: _Class) -> _Class:
    """Register a family's class under its `name`; use it as a decorator.

    Raises:
        FamilyError: if another class has the same name.

    """
    name: str = family.name  # type: ignore[attr-defined]
    known = _registered.get(name)
    if known is not None and _address(known) != _address(family):
        raise FamilyError(
            f"family `{name}`: the name is taken, found `{_address(known)}`",
            f"give `{_address(family)}` another `name`",
        )
    _registered[name] = family
    return family


@cache
def families() -> Mapping[str, FamilyFactory]:
    """Return every registered family's class by name.

    A package that cannot be loaded is skipped with a warning.
    """
    package = importlib.import_module(PACKAGE)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{PACKAGE}.{module.name}")
    for name in _entry_points():
        try:
            _load_entry_point(name)
        except FamilyError as error:
            warnings.warn(f"{error}; it is skipped", stacklevel=2)
    return dict(sorted(_registered.items()))


@cache
def _entry_points() -> Mapping[str, importlib.metadata.EntryPoint]:
    """Return the families that other packages register, by name."""
    return {p.name: p for p in importlib.metadata.entry_points(group=GROUP)}


def _load_entry_point(name: str) -> None:
    """Register the family of an entry point.

    Raises:
        FamilyError: if it cannot be loaded or its name is taken.

    """
    point = _entry_points()[name]
    try:
        found = point.load()
    except Exception as error:
        raise FamilyError(
            f"family `{name}`: its package cannot be loaded, found `{point.value}`: "
            f"{reason(error)}",
            f"repair or uninstall that package{_distribution(point)}",
        ) from error
    if _registered.setdefault(name, found) is not found:
        raise FamilyError(
            f"family `{name}`: the name is taken, found `{point.value}`",
            f"rename the entry point of that package{_distribution(point)}",
        )


def _distribution(point: importlib.metadata.EntryPoint) -> str:
    return f", {point.dist.name}" if point.dist is not None else ""


def load_family(reference: str, options: Mapping[str, Any] | None = None) -> TaskFamily:
    """Create the family that a reference identifies.

    Args:
        reference: NAME, NAME:ARGUMENT, MODULE:OBJECT or FOLDER (see the module).
        options: values of its options; the others keep their defaults.

    Raises:
        FamilyError: if the family is unknown or does not accept these options.
        ValueError: if the value of an option is invalid.

    Example:
        >>> from sdm.tasks import load_family
        >>> load_family("inventory", {"penalty": 2.0}).name
        'inventory'

    """
    factory, first = find_family(reference)
    given = {name: _frozen(x) for name, x in {**first, **(options or {})}.items()}
    made = _make(factory, given, reference)
    # `hasattr` would evaluate properties, which may read files.
    missing = [n for n in REQUIRED if inspect.getattr_static(made, n, None) is None]
    if missing:
        raise FamilyError(
            f"family `{reference}`: `{missing[0]}` is missing, found an object of type "
            f"{type(made).__name__}",
            "subclass `sdm.tasks.Family` and define `name`, `spaces`, `parameters` "
            "and `model`",
        )
    if not isinstance(made.name, str):
        raise FamilyError(
            f"family `{reference}`: `name` must be a string, found {made.name!r}"
        )
    return made


def _frozen(value: Any) -> Any:
    """Convert lists from JSON to tuples, as a hashable dataclass needs."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _make(factory: Any, given: Mapping[str, Any], reference: str) -> Any:
    """Create a family with these options."""
    names = option_names(factory)
    unknown = [name for name in given if name not in names]
    if unknown and all(p.kind != p.VAR_KEYWORD for p in _signature(factory)):
        raise FamilyError(
            f"family `{reference}`: unknown option {unknown[0]!r}",
            f"its options are {', '.join(names) or 'none'}",
        )
    if not callable(factory) or _is_made(factory):
        return dataclasses.replace(factory, **given) if given else factory
    try:
        return factory(**given)
    except ValueError:  # its message names the invalid option
        raise
    except Exception as error:
        needed = (p.name for p in _signature(factory) if p.default is p.empty)
        lacking = [n for n in needed if n in names and n not in given]
        if lacking and isinstance(error, TypeError):
            given_so = reference in families() and lacking[0] == names[0]
            raise FamilyError(
                f"family `{reference}`: the option `{lacking[0]}` is missing",
                f"pass {reference}:{lacking[0].upper()}"
                if given_so
                else f"pass `--{lacking[0].replace('_', '-')}`",
            ) from error
        raise FamilyError(
            f"family `{reference}`: cannot be created: {reason(error)}",
            "set `SDM_DEBUG=1` to see the traceback",
        ) from error


def reference_of(family: TaskFamily) -> str:
    """Return the reference from which `load_family` loads a family's class."""
    kind = type(family)
    for name, factory in families().items():
        lasting = kind.__module__.startswith(f"{PACKAGE}.") or name in _entry_points()
        if factory is kind and lasting:
            return name
    return _address(kind)


def _address(kind: Any) -> str:
    """Return MODULE:OBJECT of an object, with a script's file name as its module."""
    module, name = kind.__module__, getattr(kind, "__qualname__", str(kind))
    script = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" and script is not None:
        module = Path(script).stem
    return f"{module}:{name}"


def find_family(reference: str) -> tuple[Any, dict[str, Any]]:
    """Return the factory of a family, and the options in the reference.

    Raises:
        FamilyError: if the family is unknown.

    """
    if reference in families():
        return families()[reference], {}
    if reference in _entry_points():
        _load_entry_point(reference)  # raises the reason why it was skipped
    name, colon, rest = reference.partition(":")
    if colon and name in families():
        return families()[name], _first_option(name, rest)
    if reference and Path(reference).is_dir():
        return families()[FOLDER], {"path": reference}
    if colon and name and rest:
        return import_object(name, rest), {}
    if Path(reference).is_file():
        raise FamilyError(
            f"unknown family `{reference}`: it is a file",
            "pass a folder of models, or solve one model with `sdm solve --model`",
        )
    close = difflib.get_close_matches(reference, families(), n=1)
    is_path = "/" in reference or len(Path(reference).parts) > 1
    no_folder = ": there is no such folder" * is_path
    raise FamilyError(
        f"unknown family `{reference}`{no_folder}",
        (f"did you mean `{close[0]}`? " if close and not is_path else "")
        + f"families are {', '.join(families())}; you can also pass MODULE:OBJECT or "
        "a folder of models",
    )


def _first_option(name: str, text: str) -> dict[str, Any]:
    """Parse the text after a registered name as the value of its first option."""
    factory = families()[name]
    fields = option_names(factory)
    if not fields:
        raise FamilyError(f"family `{name}` takes no argument, found `{text}`")
    if not text:
        raise FamilyError(
            f"family `{name}`: `{fields[0]}` is missing, found nothing after the colon"
        )
    try:
        hint = get_type_hints(factory).get(fields[0], str)
    except NameError:
        hint = str
    for kind in (int, float):
        if kind in (hint, *get_args(hint)):
            try:
                return {fields[0]: kind(text)}
            except ValueError as error:
                raise FamilyError(
                    f"family `{name}`: `{fields[0]}` must be a number, found `{text}`"
                ) from error
    return {fields[0]: text}


def option_names(factory: Any) -> tuple[str, ...]:
    """Return the options of a family: its dataclass fields, or its parameters."""
    if dataclasses.is_dataclass(factory):
        return tuple(each.name for each in dataclasses.fields(factory) if each.init)
    return tuple(p.name for p in _signature(factory) if p.kind not in _REST)


_REST = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def _signature(factory: Any) -> list[inspect.Parameter]:
    """Return the parameters of a factory; an instance has none."""
    if not callable(factory) or _is_made(factory):
        return []
    try:
        return list(inspect.signature(factory).parameters.values())
    except ValueError:  # classes written in C have no signature
        return []


def _is_made(found: Any) -> bool:
    """Return whether an object is a family instance rather than a factory."""
    static = inspect.getattr_static(found, "parameters", None)
    return static is not None and not isinstance(found, type)
