"""Checks of concrete arguments on the host; traced values pass unchecked.

Inside `jit`, `vmap` and `scan`, values are not known, and JAX clamps or drops an index
that is out of range. Outside, these checks find it before it returns a wrong result.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def is_traced(tree: Any) -> bool:
    """Return whether `jax.jit` or another transformation traces a leaf of a pytree."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def check_indices(name: str, value: Any, count: int, things: str) -> None:
    """Raise `ValueError` unless concrete indices lie between 0 and `count - 1`.

    Args:
        name: name of the argument, for the message.
        value: an integer or an array of integers; traced values are not checked.
        count: number of things.
        things: what the indices number, such as "actions", for the message.

    """
    if is_traced(value):
        return
    index = np.asarray(value)
    if index.dtype.kind not in "iu":
        raise ValueError(
            f"{name} has dtype {index.dtype}: must be whole numbers, indices of "
            f"{things}"
        )
    wrong = (index < 0) | (index >= count)
    if not wrong.any():
        return
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    where, more = "", ""
    if index.ndim:
        where = f"[{', '.join(map(str, place))}]"
        more = f" ({int(wrong.sum())} of {wrong.size} entries are wrong)"
    raise ValueError(
        f"{name}{where} = {int(index[place])}: must be from 0 to {count - 1}, an index "
        f"of one of {count} {things}{more}"
    )


def check_stage(t: Any, horizon: int) -> None:
    """Raise `ValueError` unless a concrete stage lies between 0 and `horizon - 1`."""
    if is_traced(t):
        return
    if np.ndim(t) or np.asarray(t).dtype.kind not in "iu":
        raise ValueError(f"t = {t!r}: must be a stage, a whole number")
    if not 0 <= int(t) < horizon:
        raise ValueError(f"t = {int(t)}: must be a stage from 0 to {horizon - 1}")


def beliefs_over(states: int, x: Any) -> Array:
    """Return the beliefs `x` [*B, N, S] as an array.

    Raises:
        ValueError: if they are not over S states or, unless JAX traces them, an entry
            is no probability.

    """
    if np.ndim(x) < 2 or np.shape(x)[-1] != states:
        raise ValueError(
            f"x has shape {np.shape(x)}: must be [*B, N, S] with S = {states}, "
            "beliefs over states"
        )
    check_beliefs("x", x)
    return jnp.asarray(x)


def check_beliefs(name: str, value: Any) -> None:
    """Raise `ValueError` unless concrete beliefs are finite and not negative."""
    if is_traced(value):
        return
    belief = np.asarray(value)
    wrong = ~(np.isfinite(belief) & (belief >= 0))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{name}[{', '.join(map(str, place))}] = {belief[place]:g}: must be a "
            "probability"
        )


def check_arrays(tree: Any, names: tuple[str, ...]) -> None:
    """Raise `TypeError` unless fields of a model are arrays, modules or None."""
    for name in names:
        value = getattr(tree, name, None)
        if value is not None and not isinstance(
            value, np.ndarray | jax.Array | eqx.Module
        ):
            raise TypeError(
                f"{name} is a {type(value).__name__}: must be an array; convert it "
                f"with `jnp.asarray`"
            )
