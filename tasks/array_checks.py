"""Checks of arrays, with messages that name the entry and the value found."""

from collections.abc import Callable
from numbers import Real
from typing import Any

import jax
import numpy as np

# Rows with six printed digits, or summed in float32, differ from 1 by about this much.
ROW_SUM_TOLERANCE = 1e-5
LONG_ROW = 1000  # entries


def check_shape(name: str, value: Any, expected: tuple[int, ...], axes: str) -> None:
    """Raise `ValueError` unless `value` has the shape that agrees with `reward`."""
    if np.shape(value) != expected:
        raise ValueError(
            f"{name} has shape {np.shape(value)}: must be {axes} = {expected}, "
            "to agree with the shape of reward"
        )


def check_unit_interval(name: str, value: Any) -> None:
    """Raise `ValueError` unless `value` is one number from 0 to 1."""
    if np.ndim(value) or not isinstance(value, Real | np.ndarray | jax.Array):
        raise ValueError(f"{name} = {value!r}: must be one number from 0 to 1")
    if not 0 <= float(value) <= 1:
        raise ValueError(f"{name} = {float(value):g}: must lie between 0 and 1")


def raise_first(
    name: str, bad: np.ndarray, describe: Callable[[tuple[int, ...]], str], things: str
) -> None:
    """Raise `ValueError` for the first true entry of `bad`, with their number."""
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        where = f"[{', '.join(map(str, index))}]" if index else ""
        raise ValueError(
            f"{name}{where}{describe(index)} ({int(bad.sum())} of {bad.size} "
            f"{things} are wrong)"
        )


def check_finite(name: str, value: object) -> None:
    """Raise `ValueError` for the first entry that is not finite."""
    array = np.asarray(value)
    if not np.isfinite(array).all():
        raise_first(
            name,
            ~np.isfinite(array),
            lambda i: f" = {array[i]}: must be finite",
            "entries",
        )


def check_rows(name: str, value: object) -> None:
    """Raise `ValueError` unless every last-axis row is a probability distribution."""
    array = np.asarray(value)
    check_finite(name, array)
    if array.size and array.min() < 0:
        raise_first(
            name,
            array < 0,
            lambda i: f" = {array[i]:g}: probabilities cannot be negative",
            "entries",
        )
    if array.shape[-1] > LONG_ROW:  # whose sum in float32 is not exact enough
        sums = array.sum(-1, dtype=np.float64)
    else:  # several times faster than `sum` over a short last axis
        sums = np.asarray(array @ np.ones(array.shape[-1], array.dtype))
    if not (np.abs(sums - 1) <= ROW_SUM_TOLERANCE).all():
        raise_first(
            name,
            np.asarray(np.abs(sums - 1) > ROW_SUM_TOLERANCE),
            lambda i: f": probabilities sum to {sums[i]:.6g}, not 1",
            "rows",
        )
