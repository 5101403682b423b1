"""Realised regret in hindsight, for families that define a best choice in hindsight.

A definition is a function from a family and episodes [B, N, T] to what each episode was
paid less than the best fixed choice, by the rewards that the agent saw, or None for
other families. The files in `measures` register the definitions.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from sdm.evaluation.measure import measures
from sdm.tasks.family import TaskFamily
from sdm.tasks.rollout import Trajectory

Hindsight = Callable[[TaskFamily, Trajectory], Float[np.ndarray, "B N"] | None]
_registered: list[Hindsight] = []


def register_hindsight(define: Hindsight) -> Hindsight:
    """Register a definition; use it as a decorator."""
    _registered.append(define)
    return define


def lost_in_hindsight(
    family: TaskFamily, played: Trajectory
) -> Float[np.ndarray, "B N"] | None:
    """Return the realised regret of every episode; None if the family defines none."""
    measures()  # imports the files that register the definitions
    for define in _registered:
        if (found := define(family, played)) is not None:
            return found
    return None
