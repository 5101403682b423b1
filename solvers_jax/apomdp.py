"""Solve ambiguous POMDPs: α-maxmin expected utility (α-MEU) on discretised beliefs.

    V_t(b) = max_a [ α min_k H_k(b,a) + (1 - α) max_k H_k(b,a) ]

α and K determine whether the value is certified (see `docs/solvers/apomdp.md`):

- K = 1 is a POMDP, and α = 0 keeps V convex: α-vectors bound V from below and the
  sawtooth bounds it from above, as for POMDPs.
- Otherwise V need not be convex, and no set of α-vectors bounds it. The method
  interpolates V between plans made at points and estimates the error from three
  resolutions; the estimate is not a bound.

`belief_tree` computes the exact value of small tasks.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float

from sdm.solvers_jax.belief_model import (
    BeliefModel,
    belief_model,
    equal_actions,
    restrict,
    rounding,
    standardise,
)
from sdm.solvers_jax.belief_solution import (
    BeliefSolution,
    flattened,
    in_rewards,
    plans_and_rounds,
    shaped,
)
from sdm.solvers_jax.methods import register_method
from sdm.solvers_jax.refinement import refine, resolutions
from sdm.tasks.models import APOMDP, batch_shape, check_count

# Smallest error estimate, relative to the range of returns. Errors up to this size
# occur if three resolutions agree by chance (tests/test_apomdp.py).
LEAST_ERROR = 1e-3
# Default points per stage: more if K A O S is at most SMALL, so that a point is cheap.
SMALL, POINTS_IF_SMALL, POINTS = 200, 256, 64


class APOMDPSolution(BeliefSolution):
    """A policy, its α-MEU and the error of that value.

    Attributes:
        value: α-MEU of the initial distribution, in units of reward. Unless K = 1, it
            is not the expected discounted return of any single model.
        error: estimated discretisation error of `value`, or `upper - lower` if bounds
            exist.
        lower: certified lower bound if V is convex (K = 1 or α = 0), else None.
        upper: certified upper bound in the same cases, else None.

    """

    value: Float[Array, "*B"]
    error: Float[Array, "*B"]
    lower: Float[Array, "*B"] | None
    upper: Float[Array, "*B"] | None


@register_method(default=True)
@dataclass(frozen=True)
class DiscretisedBeliefs:
    """Plans on discretised beliefs, with an error estimated from three resolutions.

    Attributes:
        points: beliefs per stage, in addition to initial beliefs; 256 if
            K A O S ≤ 200, else 64, by default. The error estimate also uses a quarter
            and half of them.

    """

    points: int | None = None

    name: ClassVar[str] = "points"
    handles: ClassVar[tuple[type, ...]] = (APOMDP,)

    def __post_init__(self) -> None:
        """Raise `ValueError` unless there are at least 4 points."""
        if self.points is not None:
            check_count("points", self.points, 4)

    def solve(self, model: APOMDP, *, horizon: int) -> APOMDPSolution:
        """Solve every APOMDP of the batch.

        Args:
            model: a task or a batch of tasks; validated by `solve`.
            horizon: number of decisions T.

        """
        size = math.prod(model.observation.shape[-4:])
        points = self.points or (POINTS_IF_SMALL if size <= SMALL else POINTS)
        batch, equal = batch_shape(model), equal_actions(model)
        actions = tuple(sorted(set(equal)))
        task, units = standardise(restrict(belief_model(model), actions))
        flat, own = flattened((task, units), len(batch))
        convex = flat.transition.shape[1] == 1 or float(model.alpha) == 0
        found = refine(
            flat,
            horizon=horizon,
            points=resolutions(points, coarsest=points // 4),
            convex=convex,
            enough=lambda tasks, lower, upper: np.zeros(len(tasks), bool),
        )
        found = in_rewards(found, flat, own, horizon)
        value, slack = found.lower[-1], rounding(flat, own, horizon)
        lower = upper = None
        if convex:
            lower, upper = value - slack, found.upper[-1] + slack
            value, error = lower, upper - lower
        else:
            last, before = np.abs(np.diff(found.lower[-3:], axis=0))[::-1]
            least = LEAST_ERROR * returns_range(flat, horizon) * np.asarray(own.scale)
            error = last + before / 2 + least + slack
        plans, choice, rounds = plans_and_rounds(found, batch, actions)
        return APOMDPSolution(
            plans=plans,
            choice=choice,
            model=task,
            rounds=rounds,
            units=units,
            equal=equal,
            value=shaped(value, batch),
            error=shaped(error, batch),
            lower=None if lower is None else shaped(lower, batch),
            upper=None if upper is None else shaped(upper, batch),
        )


def returns_range(model: BeliefModel, horizon: int) -> Float[np.ndarray, " B"]:
    """Return an upper bound on the range of discounted returns of each task."""
    reward = np.asarray(model.reward)
    stages = np.asarray(model.discount)[:, None] ** np.arange(horizon)
    return stages.sum(1) * np.ptp(reward, axis=(-2, -1))
