"""Attitude to ambiguity: whether nature minimises or maximises the value."""

from typing import Literal

Attitude = Literal["pessimistic", "optimistic"]
SIGNS: dict[str, float] = {"pessimistic": 1.0, "optimistic": -1.0}


def attitude_sign(attitude: str) -> float:
    """Return 1 if nature minimises the value, and -1 if it maximises it.

    Raises:
        ValueError: if the attitude is unknown.

    """
    if attitude not in SIGNS:
        raise ValueError(f"attitude = {attitude!r}: must be one of {', '.join(SIGNS)}")
    return SIGNS[attitude]
