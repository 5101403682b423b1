"""Solve a batch by point-based rounds, and add points until each task converges.

Tasks are solved in small batches on all local devices; converged tasks skip the next
round. JAX compiles a round once for each number of points.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.belief_model import BeliefModel
from sdm.solvers_jax.chunks import of_first
from sdm.solvers_jax.point_based import Bounds, expand, root_values, start
from sdm.tasks.models import check_count

TASKS_PER_DEVICE = 16  # most tasks per call, a power of two: their bounds fit in memory


@partial(jax.jit, static_argnames=("new", "convex", "horizon"))
def _round(
    model: BeliefModel,
    bounds: Bounds | None,
    counts: Int[Array, " D"],
    *,
    new: int,
    convex: bool,
    horizon: int,
) -> tuple[Bounds, Float[Array, " B"], Float[Array, " B"]]:
    """Add points to the tasks of a batch, or start with new ones without `bounds`.

    `counts` has the number of tasks of each device, which are the first of its share.
    """

    def one(task: tuple[BeliefModel, Bounds | None]) -> tuple[Bounds, Array, Array]:
        model, bounds = task
        known = bounds or start(model, horizon=horizon, convex=convex)
        fresh = bounds is None
        grown = expand(model, known, new=new, convex=convex, fresh=fresh)
        return grown, *root_values(model, grown, convex=convex)

    spread = jax.shard_map(
        lambda task, counts: of_first(one, task, counts[0]),
        mesh=jax.sharding.Mesh(np.array(jax.local_devices()), ("task",)),
        in_specs=jax.P("task"),
        out_specs=jax.P("task"),
        check_vma=False,  # there is no communication between devices
    )
    return spread((model, bounds), counts)


class Refined(NamedTuple):
    """Result of the refinement, as host arrays with tasks on axis 0.

    Attributes:
        bounds: the fields of `Bounds` by name.
        tried: points per stage in each round, with the initial beliefs.
        lower: value of the roots from the α-vectors, after each round.
        upper: upper bound on the value of the roots, after each round.
        used: index of the last round of each task.

    """

    bounds: Mapping[str, np.ndarray]
    tried: tuple[int, ...]
    lower: Float[np.ndarray, "R B"]
    upper: Float[np.ndarray, "R B"]
    used: Int[np.ndarray, " B"]


def refine(
    model: BeliefModel,
    *,
    horizon: int,
    points: Sequence[int],
    convex: bool,
    enough: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> Refined:
    """Add points to each task until `enough` accepts its bounds.

    Args:
        model: a batch of B tasks.
        horizon: number of decisions T.
        points: increasing numbers of points per stage, one per round.
        convex: whether upper bounds exist.
        enough: function of indices of tasks [b], their lower and their upper values
            that returns which of them have converged.

    """
    tasks, models, symbols = model.root_mass.shape
    states, parts = model.reward.shape[-2], 1 if convex else models
    shape = (tasks, horizon - 1, symbols + points[-1])
    kind = np.dtype(model.reward.dtype)
    room: dict[str, np.ndarray] = {
        "point": np.zeros((*shape, states), kind),
        "weight": np.zeros(shape, kind),
        "vector": np.zeros((*shape, parts, states), kind),
        "choice": np.zeros(shape, np.int32),
        "upper": np.zeros(shape, kind),
        "corner": np.zeros((tasks, horizon - 1, states), kind),
    }
    lower, upper = np.full((2, len(points), tasks), np.nan, kind)
    used, left = np.zeros(tasks, int), np.arange(tasks)
    together = _tasks_together(tasks)
    for number, count in enumerate(points):
        before = points[number - 1] if number else 0
        for first in range(0, len(left), together):
            chosen = left[first : first + together]
            place, counts = _shares(len(chosen), together)
            index = np.full(together, chosen[0])  # equal shapes, to compile once
            index[place] = chosen
            task = jax.tree.map(lambda x: x[index], model)  # noqa: B023
            old = None
            if number:
                held = slice(symbols + before)
                so_far = {
                    name: x[index] if name == "corner" else x[index][:, :, held]
                    for name, x in room.items()
                }
                old = Bounds(**{n: jnp.asarray(x) for n, x in so_far.items()})
            grown, low, high = jax.device_get(
                _round(
                    task,
                    old,
                    jnp.asarray(counts),
                    new=count - before,
                    convex=convex,
                    horizon=horizon,
                )
            )
            for name, x in room.items():
                new = getattr(grown, name)[place]
                x[chosen, :, : new.shape[2]] = new
                # Pad with copies of the last point, which have no effect.
                x[chosen, :, new.shape[2] :] = new[:, :, -1:]
            lower[number, chosen], upper[number, chosen] = low[place], high[place]
        used[left] = number
        left = left[~enough(left, lower[number, left], upper[number, left])]
        if not len(left):
            break
    tried = tuple(symbols + count for count in points[: int(used.max()) + 1])
    return Refined(room, tried, lower[: len(tried)], upper[: len(tried)], used)


def _tasks_together(tasks: int) -> int:
    """Return the places per call: an equal number for each device."""
    devices = jax.local_device_count()
    each = -(-tasks // devices)
    # A power of two limits the number of shapes and so of compilations.
    return devices * min(TASKS_PER_DEVICE, 1 << (each - 1).bit_length())


def _shares(
    tasks: int, together: int
) -> tuple[Int[np.ndarray, " B"], Int[np.ndarray, " D"]]:
    """Return places of tasks in a batch of equal shares, and the tasks of each share.

    Args:
        tasks: number of tasks.
        together: places in the batch, the same number for each device.

    """
    devices = jax.local_device_count()
    slot, device = np.divmod(np.arange(tasks), devices)
    return device * (together // devices) + slot, np.bincount(device, minlength=devices)


def resolutions(points: int, *, coarsest: int) -> tuple[int, ...]:
    """Return the points per stage of each round, doubling from `coarsest` to `points`.

    Raises:
        ValueError: if `points` is not a whole number, 1 or more.

    """
    check_count("points", points, 1)
    sizes = [points]
    while sizes[0] // 2 >= coarsest:
        sizes.insert(0, sizes[0] // 2)
    return tuple(sizes)
