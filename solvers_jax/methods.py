"""Solution methods, and their registry by name and class of model.

A method is a frozen dataclass whose fields are its options:

    @register_method
    @dataclass(frozen=True)
    class MyMethod:
        name: ClassVar[str] = "mine"
        handles: ClassVar[tuple[type, ...]] = (POMDP,)
        points: int = 100

        def solve(self, model: POMDP, *, horizon: int) -> POMDPSolution: ...

`solve(model, horizon=T, method=MyMethod(points=50))` accepts any method; the decorator
also makes it available as `method="mine"`. A method that can solve a task without a
horizon sets `endless: ClassVar[bool] = True`; one that can solve models whose arrays
depend on the stage (see `tasks.stages`) sets `by_stage: ClassVar[bool] = True`. A
static method `suits(model)` that is true makes a method the default of the command line
for that model. Every module of this package can register methods. Another package can
do so in a module in its entry-point group `sdm.methods`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar, Protocol, TypeVar, overload, runtime_checkable

from jaxtyping import Array, Float, Int

from sdm.storage.plugins import load_plugins

PACKAGE = "sdm.solvers_jax"
GROUP = "sdm.methods"


@runtime_checkable
class Solution(Protocol):
    """Interface of a solution: values of a batch of tasks, and a policy."""

    @property
    def value(self) -> Float[Array, "*B"]:
        """Expected discounted return from the initial distribution."""
        ...

    @property
    def lower(self) -> Float[Array, "*B"] | None:
        """Certified lower bound on the optimal value; None if there is none."""
        ...

    @property
    def upper(self) -> Float[Array, "*B"] | None:
        """Certified upper bound on the optimal value; None if there is none."""
        ...

    def action(self, t: int | Int[Array, ""], x: Any) -> Int[Array, "*B N"]:
        """Return the actions at stage `t` for N states or beliefs of every task."""
        ...


ModelT = TypeVar("ModelT", contravariant=True)
SolutionT = TypeVar("SolutionT", covariant=True)


@runtime_checkable
class Method(Protocol[ModelT, SolutionT]):
    """Solution method: a frozen dataclass whose fields are its options.

    Attributes:
        name: name on the command line and in `solve(method=…)`.
        handles: classes of model that it solves.

    """

    name: ClassVar[str]
    handles: ClassVar[tuple[type, ...]]

    def solve(self, model: ModelT, *, horizon: int) -> SolutionT:
        """Solve a checked model, single or with leading batch axes."""
        ...


_Class = TypeVar("_Class", bound=type)
_defaults: list[Any] = []  # classes of methods; the first for a model is its default
_others: list[Any] = []


@overload
def register_method(method: _Class) -> _Class: ...
@overload
def register_method(*, default: bool) -> Callable[[_Class], _Class]: ...
def register_method(method: type | None = None, *, default: bool = False) -> Any:
    """Register a method's class; use it as a decorator.

    Args:
        method: the class.
        default: whether `solve` uses it if no method is given.

    """

    def add(method: type) -> type:
        (_defaults if default else _others).append(method)
        return method

    return add if method is None else add(method)


@cache
def _load_all() -> None:
    """Import every module that can register methods.

    Raises:
        ValueError: if a package's entry point cannot be loaded.

    """
    load_plugins(PACKAGE, group=GROUP, what="method")


def methods_for(model: type) -> Mapping[str, Any]:
    """Return the methods for a class of model by name, with the default first."""
    _load_all()
    found: dict[str, Any] = {}
    for method in (*_defaults, *_others):
        if issubclass(model, method.handles):
            found.setdefault(method.name, method)
    return found


def method_class(model: type, name: str | None = None) -> Any:
    """Return the class of a method, or of the default method without a name.

    Raises:
        TypeError: if no method solves this class of model.
        ValueError: if the name is unknown.

    """
    found = methods_for(model)
    if not found:
        kinds = {kind.__name__ for each in _defaults for kind in each.handles}
        raise TypeError(
            f"no method solves {model.__name__} models: methods exist for "
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


def _elsewhere(option: str) -> str:
    """Name the models whose methods have an option, for a message."""
    kinds = {
        kind.__name__
        for each in (*_defaults, *_others)
        if option in option_names(each)
        for kind in each.handles
    }
    return f"; {option!r} is for {', '.join(sorted(kinds))} models" if kinds else ""


def method_without_horizon(model: type, method: Any = None) -> Any:
    """Return the method, or the first method, that can do without a horizon.

    Args:
        model: `MDP`, `POMDP`, …
        method: a method or a class of methods; None for the first.

    Raises:
        TypeError: if no method solves this class of model.
        ValueError: if the method needs a horizon, or all methods do.

    """
    if method is None:
        method_class(model)
        every = methods_for(model).values()
        method = next((x for x in every if getattr(x, "endless", False)), None)
    if not getattr(method, "endless", False):
        able = [n for n, x in methods_for(model).items() if getattr(x, "endless", 0)]
        hint = f", or use the method {' or '.join(able)}" if able else ""
        raise ValueError(f"horizon = None: set the number of decisions{hint}")
    return method


def make_method(
    model: type, name: str | None = None, options: Mapping[str, Any] | None = None
) -> Method[Any, Any]:
    """Create a method for a class of model.

    Args:
        model: `MDP`, `POMDP`, …
        name: name of the method; None for the default.
        options: values of its fields; the others keep their defaults.

    Raises:
        TypeError: if no method solves this class of model, or an option is unknown.
        ValueError: if the name is unknown or the value of an option is invalid.

    """
    method, given = method_class(model, name), dict(options or {})
    known = option_names(method)
    for option in given:
        if option not in known:
            raise TypeError(
                f"unknown option {option!r} of method {method.name!r} for "
                f"{model.__name__} models: its options are {', '.join(known) or 'none'}"
                f"{_elsewhere(option)}"
            )
    made: Method[Any, Any] = method(**given)
    return made
