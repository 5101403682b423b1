"""Choose the calibration constant C of Proposition 2 by simulation."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sdm.theory.covariances import Number
from sdm.theory.sample_size import (
    MOST_SIMULATED,
    Achieved,
    SampleSizes,
    achieved,
    sample_sizes,
)


class CalibratedSizes(NamedTuple):
    """Sample sizes and their simulation.

    Attributes:
        calibration: C that the sizes assume.
        sizes: sufficient sample sizes for this C.
        achieved: simulated results with these sizes; None if they are too large to
            simulate.

    """

    calibration: Number
    sizes: SampleSizes
    achieved: Achieved | None


def calibrated_sample_sizes(
    delta: Number,
    covariance: Float[np.ndarray, "d d"],
    *,
    horizon: int,
    discount: Number,
    calibration: Number | None,
    actions: int,
    tasks: int,
    seed: int,
) -> CalibratedSizes:
    """Return the sample sizes of Proposition 2, simulated.

    Args:
        delta: δ, the loss allowed, in units of the return.
        covariance: Λ, [d, d].
        horizon: T.
        discount: γ.
        calibration: C; None to increase it until it is at least the simulated one.
        actions: A, candidates at each step.
        tasks: number of simulated tasks.
        seed: random seed of the simulation.

    Raises:
        ValueError: if an argument is out of range.

    """

    def enough(c: Number) -> SampleSizes:
        return sample_sizes(
            delta, covariance, horizon=horizon, discount=discount, calibration=c
        )

    def confirm(sizes: SampleSizes) -> Achieved:
        return achieved(
            sizes,
            covariance,
            horizon=horizon,
            discount=discount,
            actions=actions,
            tasks=tasks,
            seed=seed,
        )

    assumed = 1.0 if calibration is None else calibration
    sizes = enough(assumed)
    if sizes.support > MOST_SIMULATED:
        return CalibratedSizes(assumed, sizes, None)
    found = confirm(sizes)
    while calibration is None and found.calibration > assumed:
        # C depends on the sizes and is estimated: add a margin of 10 %.
        assumed = 1.1 * found.calibration
        sizes = enough(assumed)
        found = confirm(sizes)
    return CalibratedSizes(assumed, sizes, found)
