"""Parameters that are drawn uniformly from ranges, and a grid of candidates for them."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from sdm.tasks.family import Params, WeightedParams

Ranges = Mapping[str, tuple[float, float]]


def check_ranges(ranges: Ranges, *, most: float) -> None:
    """Raise `ValueError` unless every range lies between 0 and `most`, in order."""
    for name, (low, high) in ranges.items():
        for end, value in (("min", low), ("max", high)):
            if not 0 <= value <= most:
                raise ValueError(
                    f"{name}_{end} = {value:g}: must lie between 0 and {most:g}"
                )
        if low > high:
            raise ValueError(
                f"{name}_min = {low:g} is larger than {name}_max = {high:g}"
            )


def draw_uniform(
    key: Key[Array, ""], ranges: Ranges, n: int, *, first: int | Int[Array, ""] = 0
) -> Params:
    """Draw the parameters of tasks `first`, ..., `first + n - 1`; slices agree.

    Args:
        key: of the set of tasks.
        ranges: smallest and largest value of each parameter.
        n: number of tasks.
        first: index of the first task.

    """

    def one(index: Array) -> dict[str, Array]:
        own = jax.random.split(jax.random.fold_in(key, index), len(ranges))
        return {
            name: jax.random.uniform(each, minval=low, maxval=high)
            for each, (name, (low, high)) in zip(own, ranges.items(), strict=True)
        }

    return jax.vmap(one)(first + jnp.arange(n, dtype=jnp.int32))


def grid_prior(ranges: Ranges, points: Sequence[int]) -> WeightedParams:
    """Give the middles of a grid's cells equal weight.

    Args:
        ranges: smallest and largest value of each parameter.
        points: cells in which each range is cut.

    """
    axes = [
        low + (high - low) * (np.arange(cells) + 0.5) / cells
        for (low, high), cells in zip(ranges.values(), points, strict=True)
    ]
    kind = jnp.result_type(float)
    values = (jnp.asarray(x.ravel(), kind) for x in np.meshgrid(*axes, indexing="ij"))
    params = dict(zip(ranges, values, strict=True))
    total = int(np.prod(points))
    return WeightedParams(params, jnp.full(total, 1 / total, kind))
