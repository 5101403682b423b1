"""Families whose parameters are uniform on ranges, which are options."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from sdm.tasks.family import Family, Params, Split, WeightedParams

Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class UniformFamily(Family):
    """A family whose parameters are independent, each uniform on a range.

    A subclass has fields `NAME_min` and `NAME_max` for each parameter, and must define
    `spaces` and `model`.

    Attributes:
        drawn: names of the parameters.
        cells: number of cells into which the prior divides each range.

    """

    drawn: ClassVar[tuple[str, ...]]
    cells: ClassVar[tuple[int, ...]]

    @property
    def ranges(self) -> Ranges:
        """Smallest and largest value of each parameter.

        Raises:
            ValueError: if a smallest value is larger than the largest.

        """
        found = {
            x: (getattr(self, f"{x}_min"), getattr(self, f"{x}_max"))
            for x in self.drawn
        }
        for name, (low, high) in found.items():
            if not low <= high:
                raise ValueError(
                    f"{name}_min = {low:g} is larger than {name}_max = {high:g}"
                )
        return found

    def parameters(
        self,
        key: Key[Array, ""],
        n: int,
        *,
        split: Split,
        first: int | Int[Array, ""] = 0,
    ) -> Params:
        """Sample the parameters of each task; see `TaskFamily.parameters`."""

        def one(index: Array) -> dict[str, Array]:
            keys = jax.random.split(jax.random.fold_in(key, index), len(self.drawn))
            return {
                name: jax.random.uniform(own, minval=low, maxval=high)
                for own, (name, (low, high)) in zip(
                    keys, self.ranges.items(), strict=True
                )
            }

        return jax.vmap(one)(first + jnp.arange(n, dtype=jnp.int32))

    def prior(self) -> WeightedParams:
        """Return the centres of a grid's cells with equal weights."""
        axes = [
            low + (high - low) * (np.arange(cells) + 0.5) / cells
            for (low, high), cells in zip(self.ranges.values(), self.cells, strict=True)
        ]
        grid = np.meshgrid(*axes, indexing="ij")
        kind, points = jnp.result_type(float), grid[0].size
        params = {
            x: jnp.asarray(y.ravel(), kind)
            for x, y in zip(self.drawn, grid, strict=True)
        }
        return WeightedParams(params, jnp.full(points, 1 / points, kind))

    def check_ranges(self, names: Iterable[str], *, most: float = 1.0) -> None:
        """Raise `ValueError` unless these ranges are ordered and in [0, `most`]."""
        for name in names:
            check_between(self, (f"{name}_min", f"{name}_max"), most=most)
        _ = self.ranges  # checks the order


def check_between(config: object, names: Iterable[str], *, most: float = 1.0) -> None:
    """Raise `ValueError` unless these fields are finite and in [0, `most`]."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value <= most or value == np.inf:
            what = "be 0 or more, and finite"
            if most < np.inf:
                what = f"lie between 0 and {most:g}"
            raise ValueError(f"{name} = {value:g}: must {what}")
