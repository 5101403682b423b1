"""Checks of options. This module imports nothing heavy."""

from collections.abc import Iterable
from math import isfinite
from numbers import Integral, Real


def check_count(name: str, value: object, least: int, most: int = 2**31 - 1) -> None:
    """Raise `ValueError` unless `value` is an integer from `least` to `most`."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not least <= value <= most:  # type: ignore[operator]
        raise ValueError(
            f"{name} = {value!r}: must be a whole number from {least} to {most}"
        )


def check_horizon(horizon: object) -> None:
    """Raise `ValueError` unless `horizon` is an integer from 1 to 10^6."""
    check_count("horizon", horizon, 1, 10**6)


def check_tolerance(name: str, value: object) -> None:
    """Raise `ValueError` unless a tolerance is a number, 0 or more."""
    if not _is_number(value) or not value >= 0:  # type: ignore[operator]
        raise ValueError(f"{name} = {value!r}: must be 0 or more")


def check_positive(name: str, value: object) -> None:
    """Raise `ValueError` unless `value` is a number above 0."""
    if not _is_number(value) or not value > 0:  # type: ignore[operator]
        raise ValueError(f"{name} = {value!r}: must be above 0")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def check_finite(name: str, value: object) -> None:
    """Raise `ValueError` unless `value` is a finite number."""
    if not _is_number(value) or not isfinite(value):  # type: ignore[arg-type]
        raise ValueError(f"{name} = {value!r}: must be a finite number")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise `ValueError` unless `value` is one of the choices."""
    known = tuple(choices)
    if value not in known:
        raise ValueError(f"{name} = {value!r}: must be one of {', '.join(known)}")
