"""Stage-dependent models: arrays with an axis of stages.

Probabilities and rewards that change with time have an axis of T stages right after the
batch axes, such as a reward [*B, T, S, A] in place of [*B, S, A]. Every array has this
axis or not, independently of the others. Entry t is for decision t: the reward and the
next state of decision t, and the symbol after it.

No flag says which arrays have the axis: their number of axes does, relative to an array
that never depends on the stage, such as `initial` [*B, S]. A class declares it first in
`axes_at_a_stage`, with the number of axes of every array at one stage, without those of
the batch:

    class MyModel(eqx.Module):
        axes_at_a_stage = axes(initial=1, transition=3, reward=2)

The arrays of a class without this declaration do not depend on the stage. `at_stage`
returns the model of one stage, in which all code outside of this module works.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from sdm.tasks.host_checks import check_stage, is_traced
from sdm.tasks.transitions import SparseTransition, by_task

M = TypeVar("M")


def axes(**numbers: int) -> Mapping[str, int]:
    """Declare the number of axes of each array at one stage; see the module."""
    return MappingProxyType(numbers)


def _declared(model: Any) -> Mapping[str, int]:
    found: Mapping[str, int] = getattr(model, "axes_at_a_stage", {})
    return found


def _axes(x: Any) -> int:
    return len(x.shape) if hasattr(x, "shape") else np.ndim(x)


def batch_axes(model: Any) -> int:
    """Return the number of leading batch axes of a model."""
    name, own = next(iter(_declared(model).items()), ("initial", 1))
    return _axes(getattr(model, name)) - own


def stage_lengths(model: Any) -> dict[str, int]:
    """Return the length of the axis of stages of every array that has one."""
    if not (declared := _declared(model)):
        return {}
    batch = batch_axes(model)
    arrays = ((name, getattr(model, name), axes) for name, axes in declared.items())
    return {
        name: x.shape[batch]
        for name, x, axes in arrays
        if hasattr(x, "shape") and _axes(x) == batch + axes + 1
    }


def stages_of(model: Any) -> int | None:
    """Return the number of stages of a model's arrays; None if none depends on it."""
    return next(iter(stage_lengths(model).values()), None)


def at_stage(model: M, t: int | Int[Array, ""]) -> M:
    """Return the model of stage `t`, whose arrays have no axis of stages.

    A model without such an axis is returned as it is, at no cost.

    Raises:
        ValueError: if `t` is not a stage of the model, unless JAX traces it.

    """
    lengths = stage_lengths(model)
    if not lengths:
        return model
    check_stage(t, min(lengths.values()))
    axis = batch_axes(model)

    def chosen(of: Any) -> list[Any]:
        return [getattr(of, name) for name in lengths]

    # Not `dataclasses.replace`, which would check the types of arrays again.
    entries = [entry(x, t, axis) for x in chosen(model)]
    made: M = eqx.tree_at(chosen, model, entries)
    return made


def stage_numbers(horizon: int, *, first: int = 0) -> Int[Array, " T"]:
    """Return the numbers of `horizon` stages from stage `first`, to scan over."""
    return jnp.arange(first, first + horizon, dtype=jnp.int32)


def entry(x: Any, t: int | Int[Array, ""], axis: int) -> Any:
    """Return entry `t` on an axis of an array or a `SparseTransition`.

    Arrays of NumPy stay so, unless JAX traces `t`.
    """
    if isinstance(x, SparseTransition):
        of = (lambda p: [p.probabilities]) if x.shared else jax.tree.leaves
        return eqx.tree_at(of, x, [entry(part, t, axis) for part in of(x)])
    place: tuple[Any, ...] = (slice(None),) * axis
    if isinstance(x, np.ndarray) and not is_traced(t):
        return x[(*place, int(t))]
    return jnp.asarray(x)[(*place, t)]


def equal_stages(model: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Return two arrays; if only one has an axis of stages, repeat the other on it."""
    axis = batch_axes(model)

    def like(a: Any, b: Any) -> Any:
        if not _declared(model) or _axes(a) != _axes(b) - 1:
            return a
        repeat = np.repeat if isinstance(a, np.ndarray) else jnp.repeat
        return repeat(a[(slice(None),) * axis + (None,)], b.shape[axis], axis)

    return like(x, y), like(y, x)


def models_as_tasks(model: Any, name: str) -> Any:
    """Return an array of K models of each task, with B K tasks on its first axis.

    Args:
        model: a model whose declared arrays have an axis K after that of stages.
        name: the array [*B, K, …] or [*B, T, K, …], or the `SparseTransition`.

    Returns:
        The array [B K, …] or [B K, T, …].

    """
    batch, staged = batch_axes(model), name in stage_lengths(model)

    def merged(x: Any) -> Any:
        x = jnp.moveaxis(x, batch + 1, batch) if staged else x
        return x.reshape(-1, *x.shape[batch + 1 :])

    x = getattr(model, name)
    if not isinstance(x, SparseTransition):
        return merged(x)
    arrays, rebuild = by_task(x)
    return rebuild(jax.tree.map(merged, arrays))


def shape_at_stage(model: Any, name: str) -> tuple[int, ...]:
    """Return the shape of an array of a model without its axis of stages."""
    shape = tuple(np.shape(getattr(model, name)))
    if name not in stage_lengths(model):
        return shape
    axis = batch_axes(model)
    return (*shape[:axis], *shape[axis + 1 :])


def lead_of(model: Any, name: str, batch: Sequence[int]) -> tuple[tuple[int, ...], str]:
    """Return the leading axes of an array, of the batch and of stages, and letters."""
    lengths = stage_lengths(model)
    if name in lengths:
        return (*batch, lengths[name]), "*B, T, "
    return tuple(batch), "*B, "


def check_stages(model: Any, horizon: int | None) -> None:
    """Raise `ValueError` unless every axis of stages has an entry for each decision.

    Args:
        model: the model.
        horizon: number of decisions T; None if there is no end.

    """
    for name, length in stage_lengths(model).items():
        axes = f"{name} has {length} entries on its axis of stages"
        if horizon is None:
            raise ValueError(
                f"{axes}: a model that depends on the stage needs a horizon, found "
                f"None; set horizon = {length}"
            )
        if length != horizon:
            initial, own = next(iter(_declared(model))), getattr(model, name)
            raise ValueError(
                f"{axes}: must have one for each decision, horizon = {horizon}. The "
                f"axis of stages is axis {batch_axes(model)} of {tuple(own.shape)}; if "
                f"it is meant as a batch axis, {initial} needs it, too"
            )


def check_equal_lengths(model: Any) -> None:
    """Raise `ValueError` unless all axes of stages have one length, 1 or more."""
    lengths = stage_lengths(model)
    for name, length in lengths.items():
        first, most = next(iter(lengths.items()))
        if length != most:
            raise ValueError(
                f"{name} has {length} entries on its axis of stages and {first} has "
                f"{most}: must be equal, one for each decision"
            )
        if not length:
            raise ValueError(f"{name} has an axis of stages without an entry")


def check_stationary(model: Any, user: str) -> None:
    """Raise `ValueError` if an array depends on the stage, which `user` cannot use."""
    for name, length in stage_lengths(model).items():
        raise ValueError(
            f"{name} has an axis of {length} stages: {user} needs a model that does "
            "not depend on the stage"
        )
