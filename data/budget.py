"""Memory to solve a task, and beliefs per stage, by the class of its models."""

from functools import cache, singledispatch
from typing import Any

import jax

from sdm.tasks.family import SET_KEY, Kind, TaskFamily
from sdm.tasks.models import APOMDP, MDP, POMDP
from sdm.tasks.momdp import MOMDP
from sdm.tasks.rewards import observe_rewards
from sdm.tasks.transitions import chances

LARGER = 4  # arrays of the size of the beliefs that a point-based solver holds


@cache
def shapes_of_task(family: Any, kind: Kind) -> Any:
    """Return the model of one task, with shapes and types in place of arrays."""
    return jax.eval_shape(lambda: _one_task(family, kind))


def _one_task(family: TaskFamily, kind: Kind) -> Any:
    drawn = dict(family.parameters(jax.random.key(0), 1, split="train"))
    if kind == "apomdp":
        drawn[SET_KEY] = jax.random.split(jax.random.key(0), 1)
    return family.model(drawn, kind)


@singledispatch
def default_points(model: Any) -> int:
    """Return the beliefs per stage that a dataset's solver uses by default."""
    return 0


@singledispatch
def numbers_to_solve(
    model: Any, horizon: int, points: int, *, states: int | None
) -> int:
    """Estimate how many numbers the solver of one task holds.

    Args:
        model: shapes of a batch of one task.
        horizon: number of decisions T.
        points: beliefs per stage, or per stage and visible value.
        states: number of states of the task that is solved, if it is a larger one.

    Raises:
        TypeError: if it is unknown for this class of models.

    """
    raise TypeError(f"datasets: not available for {type(model).__name__} models")


@numbers_to_solve.register
def _(model: MDP, horizon: int, points: int, *, states: int | None) -> int:
    moves = chances(model.transition)
    return int(moves.size + horizon * model.reward.size)


@default_points.register
def _(model: POMDP) -> int:
    return 512


@default_points.register
def _(model: APOMDP) -> int:
    return 64


@numbers_to_solve.register(POMDP)
@numbers_to_solve.register(APOMDP)
def _(model: POMDP | APOMDP, horizon: int, points: int, *, states: int | None) -> int:
    size = states or model.reward.shape[-2]
    models = model.transition.shape[1] if len(model.transition.shape) == 5 else 1
    return LARGER * horizon * (points + size) * models * size


@default_points.register
def _(model: MOMDP) -> int:
    return 16


@numbers_to_solve.register
def _(model: MOMDP, horizon: int, points: int, *, states: int | None) -> int:
    visible, hidden, _, _ = model.sizes
    moves = model.transition.size
    if model.hidden_transition is not None:
        moves = model.hidden_transition.size
    # Points, plans, and the first action of each; and the model, also as lists.
    return int(horizon * visible * (points + hidden) * (2 * hidden + 1) + 3 * moves)


@cache
def states_with_rewards(family: Any, kind: Kind) -> int | None:
    """Estimate the states of the larger task that is solved if rewards are observed.

    The number is that of one sampled task; other tasks may have other rewards. It is
    None if the solver of this class of models needs no larger task.
    """
    return _larger(_one_task(family, kind))


@singledispatch
def _larger(model: Any) -> int | None:
    return None


@_larger.register(POMDP)
@_larger.register(APOMDP)
def _(model: POMDP | APOMDP) -> int:
    return len(observe_rewards(model).state)
