"""Solve finite-horizon POMDPs with certified bounds on the optimal value.

Point-based backups compute α-vectors, which are a lower bound that the policy attains;
sawtooth interpolation gives an upper bound from the same points. The method adds points
where the gap is widest until the bounds are close enough. See `point_based` for the
method and its sources.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Array, Bool, Float

from sdm.solvers_jax.belief_model import (
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
from sdm.solvers_jax.certificate import certificate, close
from sdm.solvers_jax.methods import register_method
from sdm.solvers_jax.refinement import refine, resolutions
from sdm.storage.checks import check_tolerance
from sdm.tasks.models import POMDP, batch_shape, check_count

COARSEST = 32  # beliefs per stage in the first round, in addition to initial beliefs


class POMDPSolution(BeliefSolution):
    """A policy with certified bounds on the optimal value.

    Attributes:
        value: certified lower bound on the policy's expected discounted return from the
            initial distribution, and so on the optimal value.
        lower: the same as `value`.
        upper: certified upper bound on the optimal value.
        converged: whether `upper - lower`, with rounding, reached the requested gap
            within the budget of points.

    """

    value: Float[Array, "*B"]
    lower: Float[Array, "*B"]
    upper: Float[Array, "*B"]
    converged: Bool[Array, "*B"]


@register_method(default=True)
@dataclass(frozen=True)
class PointBased:
    """Point-based method with certified bounds, refined until they are close enough.

    Attributes:
        gap: certified gap to reach, relative to the larger bound in absolute value.
        points: largest number of beliefs per stage, in addition to initial beliefs.
        atol: certified gap that is always enough, in units of reward; it decides where
            the optimal value is 0 or nearly so.

    """

    gap: float = 0.01
    points: int = 512
    atol: float = 1e-9

    name: ClassVar[str] = "points"
    handles: ClassVar[tuple[type, ...]] = (POMDP,)
    by_stage: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raise `ValueError` for an invalid gap or number of points."""
        for name in ("gap", "atol"):
            check_tolerance(name, getattr(self, name))
        check_count("points", self.points, 1)

    def solve(self, model: POMDP, *, horizon: int) -> POMDPSolution:
        """Solve every POMDP of the batch until its certified gap is small enough.

        Args:
            model: a task or a batch of tasks; validated by `solve`.
            horizon: number of decisions T.

        """
        batch, equal = batch_shape(model), equal_actions(model)
        actions = tuple(sorted(set(equal)))
        task, units = standardise(restrict(belief_model(model), actions), horizon)
        flat, own = flattened((task, units), len(batch))
        proof = certificate(flat, own, horizon)

        def enough(tasks: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> Any:
            bounds = proof.bounds(lower, upper, tasks)
            # More points do not narrow a width that is only rounding.
            rounded = proof.scale[tasks] * (upper - lower) <= bounds.slack
            return rounded | close(bounds.lower, bounds.upper, self.gap, self.atol)

        sizes = resolutions(self.points, coarsest=COARSEST)
        found = refine(flat, horizon=horizon, points=sizes, convex=True, enough=enough)
        tasks = np.arange(len(found.used))
        last = (found.lower[found.used, tasks], found.upper[found.used, tasks])
        lower, upper, _ = proof.bounds(*last)
        plans, choice, rounds = plans_and_rounds(
            in_rewards(found, flat, own, horizon), batch, actions
        )
        return POMDPSolution(
            plans=plans,
            choice=choice,
            model=task,
            rounds=rounds,
            units=units,
            equal=equal,
            value=shaped(lower, batch),
            lower=shaped(lower, batch),
            upper=shaped(upper, batch),
            converged=shaped(close(lower, upper, self.gap, self.atol), batch),
        )
