"""Solver methods as values, and the registry that finds them by name and kind of model.

A method is a frozen dataclass whose fields are its options:

    @register_method
    @dataclass(frozen=True)
    class MyMethod:
        name: ClassVar[str] = "mine"
        handles: ClassVar[tuple[type, ...]] = (POMDP,)
        points: int = 100

        def solve(self, model: POMDP, *, horizon: int) -> POMDPSolution: ...

`solve(model, horizon=T, method=MyMethod(points=50))` takes it as it stands; registered,
it is also found as `method="mine"`. Every module of this package may register methods,
and so may another package, in a module that it names in the entry-point group
`sdm.methods`.
"""

import dataclasses
import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar, Protocol, TypeVar, overload, runtime_checkable

from jaxtyping import Array, Float, Int

PACKAGE = "sdm.solvers_jax"
GROUP = "sdm.methods"


@runtime_checkable
class Solution(Protocol):
    """What every method returns: values of a batch of tasks, and how to act."""

    @property
    def value(self) -> Float[Array, "*B"]:
        """Expected discounted return from the initial distribution."""
        ...

    @property
    def lower(self) -> Float[Array, "*B"] | None:
        """Certified lower bound on the optimal value; None where there is none."""
        ...

    @property
    def upper(self) -> Float[Array, "*B"] | None:
        """Certified upper bound on the optimal value; None where there is none."""
        ...

    def action(self, t: int | Int[Array, ""], x: Any) -> Int[Array, "*B N"]:
        """Return actions at stage `t` in N states or beliefs of every task."""
        ...


ModelT = TypeVar("ModelT", contravariant=True)
SolutionT = TypeVar("SolutionT", covariant=True)


@runtime_checkable
class Method(Protocol[ModelT, SolutionT]):
    """A way to solve models; a frozen dataclass whose fields are its options.

    Attributes:
        name: what the command line and `solve(method=…)` call it.
        handles: types of model that it solves.

    """

    name: ClassVar[str]
    handles: ClassVar[tuple[type, ...]]

    def solve(self, model: ModelT, *, horizon: int) -> SolutionT:
        """Solve a checked model, single or with leading batch axes."""
        ...


_Class = TypeVar("_Class", bound=type)
_defaults: list[Any] = []  # classes of methods; the first for a type of model counts
_others: list[Any] = []


@overload
def register_method(method: _Class) -> _Class: ...
@overload
def register_method(*, default: bool) -> Callable[[_Class], _Class]: ...
def register_method(method: type | None = None, *, default: bool = False) -> Any:
    """Register a method's class; use it as a decorator.

    Args:
        method: the class.
        default: whether `solve` uses it where no method is named.

    """

    def add(method: type) -> type:
        (_defaults if default else _others).append(method)
        return method

    return add if method is None else add(method)


@cache
def _load_all() -> None:
    """Import every module that may register methods.

    Raises:
        ValueError: if a package's entry point cannot be loaded.

    """
    package = importlib.import_module(PACKAGE)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{PACKAGE}.{module.name}")
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            raise ValueError(
                f"method `{point.name}`: its package cannot be loaded, found "
                f"`{point.value}`: {error}"
            ) from error


def methods_for(model: type) -> Mapping[str, Any]:
    """Return the classes of methods for a type of model by name, the default first."""
    _load_all()
    found: dict[str, Any] = {}
    for method in (*_defaults, *_others):
        if issubclass(model, method.handles):
            found.setdefault(method.name, method)
    return found


def method_class(model: type, name: str | None = None) -> Any:
    """Return a method's class, by default the default one.

    Raises:
        TypeError: if there is no method for this type of model.
        ValueError: if there is none of this name.

    """
    found = methods_for(model)
    if not found:
        kinds = {kind.__name__ for each in _defaults for kind in each.handles}
        raise TypeError(
            f"no method solves {model.__name__} models: there are methods for "
            f"{', '.join(sorted(kinds))}"
        )
    if name is None:
        return next(iter(found.values()))
    if name not in found:
        raise ValueError(
            f"method = {name!r}: unknown method for {model.__name__} models, whose "
            f"methods are {', '.join(found)}"
        )
    return found[name]


def option_names(method: type) -> tuple[str, ...]:
    """Return the options of a method: its dataclass fields."""
    return tuple(each.name for each in dataclasses.fields(method) if each.init)


def make_method(
    model: type, name: str | None = None, options: Mapping[str, Any] | None = None
) -> Method[Any, Any]:
    """Make a method for a type of model.

    Args:
        model: `MDP`, `POMDP`, …
        name: of the method; None for the default.
        options: values of its fields; the others keep their defaults.

    Raises:
        TypeError: if no method solves such models, or it has no such option.
        ValueError: if there is no method of this name, or a value is wrong.

    """
    method, given = method_class(model, name), dict(options or {})
    known = option_names(method)
    for option in given:
        if option not in known:
            raise TypeError(
                f"unknown option {option!r} of method {method.name!r} for "
                f"{model.__name__} models: its options are {', '.join(known) or 'none'}"
            )
    made: Method[Any, Any] = method(**given)
    return made
