"""Solve ambiguous POMDPs: α-maxmin expected utility (α-MEU) on discretised beliefs.

    V_t(b) = max_a [ α min_k H_k(b,a) + (1 - α) max_k H_k(b,a) ]

α and K determine whether the value is certified (see `docs/solvers/apomdp.md`):

- K = 1 is a POMDP, and α = 0 keeps V convex: α-vectors bound V from below and the
  sawtooth bounds it from above, as for POMDPs.
- Otherwise V need not be convex, and no set of α-vectors bounds it. The method
  interpolates V between plans made at points and estimates the error from three
  resolutions and the spread of values; the estimate is not a bound.

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
    standardise,
)
from sdm.solvers_jax.belief_solution import (
    BeliefSolution,
    flattened,
    in_rewards,
    plans_and_rounds,
    shaped,
)
from sdm.solvers_jax.certificate import certificate
from sdm.solvers_jax.methods import register_method
from sdm.solvers_jax.refinement import Refined, refine, resolutions
from sdm.tasks.models import APOMDP, batch_shape, check_count

# Smallest error estimate, relative to the spread of values over reachable beliefs.
# Three resolutions can agree by chance: in 432 random tasks, the errors that they did
# not show were at most 0.35 % of the spread.
LEAST_ERROR = 1e-2
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
    by_stage: ClassVar[bool] = True

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
        task, units = standardise(restrict(belief_model(model), actions), horizon)
        flat, own = flattened((task, units), len(batch))
        convex = flat.root_mass.shape[1] == 1 or float(model.alpha) == 0
        found = refine(
            flat,
            horizon=horizon,
            points=resolutions(points, coarsest=points // 4),
            convex=convex,
            enough=lambda tasks, lower, upper: np.zeros(len(tasks), bool),
        )
        proof, last = certificate(flat, own, horizon), found.lower[-1]
        lower = upper = None
        if convex:
            lower, upper, _ = proof.bounds(last, found.upper[-1])
            value, error = lower, upper - lower
        else:
            newer, older = np.abs(np.diff(found.lower[-3:], axis=0))[::-1]
            least = LEAST_ERROR * spread_of_values(found, flat)
            value = proof.scale * last + proof.offset
            error = proof.scale * (newer + older / 2 + least)
            # Plans are chosen in single precision.
            error += proof.rounding(last) + proof.rounding(last, unit=np.float32)
        found = in_rewards(found, flat, own, horizon)
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


def spread_of_values(found: Refined, model: BeliefModel) -> Float[np.ndarray, " B"]:
    """Return the largest standard deviation of values over the beliefs of a stage.

    Beliefs count with the probability of reaching them, so that rewards which a good
    policy does not meet do not matter.

    Args:
        found: the plans of each task.
        model: the tasks.

    """
    count = found.tried[-1]
    point, vector, weight = (
        found.bounds[name][:, :, :count] for name in ("point", "vector", "weight")
    )
    each = (vector @ point[..., None])[..., 0]  # [B, U, N, K]
    alpha = np.asarray(model.alpha)[:, None, None]
    value = alpha * each.min(-1) + (1 - alpha) * each.max(-1)
    total = weight.sum(-1, keepdims=True)
    share = weight / np.where(total > 0, total, 1)
    mean = (share * value).sum(-1, keepdims=True)
    deviation = np.sqrt((share * (value - mean) ** 2).sum(-1))
    return np.asarray(deviation.max(-1, initial=0))
