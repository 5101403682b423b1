"""Checks of what every class of models has."""

from typing import Any

import numpy as np

from sdm.tasks.admissible import check_mask, with_mask
from sdm.tasks.array_checks import (
    check_finite,
    check_rows,
    check_shape,
    check_unit_interval,
    raise_first,
)
from sdm.tasks.host_checks import check_arrays
from sdm.tasks.stages import shape_at_stage
from sdm.tasks.transitions import chances

# The fields that are arrays, in the order of their checks.
ARRAYS = (
    "reward",
    "transition",
    "initial",
    "observation",
    "initial_observation",
    "admissible",
)


def check_task(model: Any, arrays: tuple[str, ...]) -> None:
    """Check what every class of models has: reward, initial distribution and discount.

    Args:
        model: the model.
        arrays: names of further arrays that must have the floating-point type of
            `reward`, if the model has them.

    Raises:
        TypeError: if a field is not an array, such as a list.
        ValueError: naming the field, the index and the invalid number.

    """
    check_arrays(model, ARRAYS)
    model = with_mask(model)
    check_mask(model)
    if np.ndim(model.reward) < 2:
        raise ValueError(
            f"reward has shape {np.shape(model.reward)}: must be [*B, S, A]"
        )
    *batch, states, actions = shape_at_stage(model, "reward")
    if 0 in (*batch, states, actions):
        raise ValueError(
            f"reward has shape {np.shape(model.reward)}: must have a task, a state and "
            "an action"
        )
    wanted = np.asarray(model.reward).dtype
    for name in ("reward", "initial", *arrays):
        kind = np.asarray(chances(getattr(model, name, model.reward))).dtype
        if kind.kind != "f":
            raise ValueError(f"{name} has dtype {kind}: must be floating-point")
        if kind != wanted:
            raise ValueError(f"{name} has dtype {kind}: must be {wanted}, as reward")
    check_shape("initial", model.initial, (*batch, states), "[*B, S]")
    check_unit_interval("discount", model.discount)
    check_finite("reward", model.reward)
    rewards = np.asarray(model.reward)
    most = float(np.sqrt(np.finfo(rewards.dtype).max))  # so that squares are finite
    if np.abs(rewards).max() > most:
        raise_first(
            "reward",
            np.abs(rewards) > most,
            lambda i: f" = {rewards[i]:g}: must be at most {most:.3g} in magnitude",
            "entries",
        )
    check_rows("initial", model.initial)
