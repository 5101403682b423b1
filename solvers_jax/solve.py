"""`solve`: validate a model, then solve it with a method for its class."""

from typing import Any, TypeVar, overload

from sdm.solvers_jax.apomdp import APOMDPSolution
from sdm.solvers_jax.attitude import Attitude
from sdm.solvers_jax.backward_induction import MDPSolution
from sdm.solvers_jax.depth_first import Progress
from sdm.solvers_jax.interval_pomdp import IntervalSolution
from sdm.solvers_jax.methods import (
    Method,
    make_method,
    method_class,
    method_without_horizon,
    methods_for,
)
from sdm.solvers_jax.momdp import MOMDPSolution
from sdm.solvers_jax.pomdp import POMDPSolution
from sdm.solvers_jax.rectangular_mdp import RectangularSolution
from sdm.solvers_jax.search_solution import SearchSolution
from sdm.tasks.admissible import with_mask
from sdm.tasks.host_checks import is_traced
from sdm.tasks.models import (
    APOMDP,
    MDP,
    POMDP,
    RobustMDP,
    check_horizon,
    check_model,
)
from sdm.tasks.momdp import MOMDP
from sdm.tasks.rectangular import IntervalPOMDP, RectangularMDP
from sdm.tasks.stages import check_stages, check_stationary

M = TypeVar("M")
S = TypeVar("S")


@overload
def solve(model: M, *, horizon: int | None, method: Method[M, S]) -> S: ...
@overload
def solve(
    model: MDP | RobustMDP, *, horizon: int, method: str | None = ...
) -> MDPSolution: ...
@overload
def solve(
    model: POMDP,
    *,
    horizon: int,
    method: str | None = ...,
    gap: float = ...,
    points: int = ...,
    atol: float = ...,
) -> POMDPSolution: ...
@overload
def solve(
    model: POMDP,
    *,
    horizon: None,
    method: str | None = ...,
    gap: float = ...,
    atol: float = ...,
    seconds: float | None = ...,
    progress: Progress | None = ...,
) -> SearchSolution: ...
@overload
def solve(
    model: APOMDP,
    *,
    horizon: int,
    method: str | None = ...,
    points: int | None = ...,
) -> APOMDPSolution: ...
@overload
def solve(
    model: MOMDP,
    *,
    horizon: int,
    method: str | None = ...,
    gap: float = ...,
    points: int = ...,
    atol: float = ...,
) -> MOMDPSolution: ...


@overload
def solve(
    model: RectangularMDP,
    *,
    horizon: int,
    method: str | None = ...,
    attitude: Attitude = ...,
) -> RectangularSolution: ...
@overload
def solve(
    model: IntervalPOMDP,
    *,
    horizon: int,
    method: str | None = ...,
    gap: float = ...,
    points: int = ...,
    atol: float = ...,
    replies: int = ...,
    attitude: Attitude = ...,
) -> IntervalSolution: ...


def solve(
    model: Any,
    *,
    horizon: int | None,
    method: Method[Any, Any] | str | None = None,
    **options: Any,
) -> Any:
    """Return value and policy of every task in a batch.

    Args:
        model: an `MDP`, `RobustMDP`, `POMDP`, `APOMDP`, `MOMDP`, `IntervalMDP`,
            `L1MDP`, `KLMDP` or `IntervalPOMDP`, single or with leading batch axes.
        horizon: number of decisions T, at least 1; None for a discounted task without
            end, with a method that can do without a horizon.
        method: solution method, such as `PointBased(gap=0.01)`, or its name; None for
            the default of this class of model.
        **options: options of the method, which are the fields of its class; only if
            `method` is a name or None.

    Returns:
        A `Solution`: `value`, its bounds or its error, and `action(t, x)`.

    Raises:
        ValueError: if the model is invalid (naming the field, index and number), the
            method is unknown for it, or the value of an option is invalid.
        TypeError: if no method solves this class of model, an option is unknown, a
            field of the model is not an array, or JAX traces the model.

    Example:
        >>> import jax
        >>> from sdm.solvers_jax import EnergyFamily, solve
        >>> tasks = EnergyFamily().sample(jax.random.key(0), 1000)
        >>> solution = solve(tasks, horizon=10)
        >>> solution.value.shape, solution.policy.shape
        ((1000,), (1000, 10, 10))

    """
    kind = type(model)
    if horizon is not None:
        check_horizon(horizon)
    elif method is None or isinstance(method, str):
        named = None if method is None else method_class(kind, method)
        method = method_without_horizon(kind, named).name
    else:
        method_without_horizon(kind, method)
    if method is None or isinstance(method, str):
        method = make_method(kind, method, options)
    elif options:
        raise TypeError(
            f"unknown option {next(iter(options))!r}: set the options of a method "
            f"object as its fields, found {method!r}"
        )
    elif isinstance(method, type) or not isinstance(method, Method):
        raise TypeError(
            f"method = {method!r}: must be a method such as `PointBased(gap=0.01)`, or "
            "its name"
        )
    elif not issubclass(kind, method.handles):
        able = ", ".join(each.__name__ for each in method.handles)
        raise ValueError(
            f"method = {method!r}: it solves {able} models; methods of "
            f"{kind.__name__} models are {', '.join(methods_for(kind)) or 'none'}"
        )
    if is_traced(model):
        raise TypeError(
            "model is traced, as inside `jax.jit` or `jax.vmap`: `solve` checks its "
            "values; call `solve` outside, or `method.solve` inside if the method is "
            "`BackwardInduction` or `RobustBackwardInduction`"
        )
    check_model(model)
    check_stages(model, horizon)
    if not getattr(method, "by_stage", False):
        check_stationary(model, f"the method {method.name!r}")
    model = with_mask(model)
    return method.solve(model, horizon=horizon)  # type: ignore[arg-type]
