"""POMDPs over a finite horizon: a policy with certified bounds on the optimal value.

Point-based backups give α-vectors, a lower bound that the policy attains; the sawtooth
gives an upper bound from the same points. Points are added, where the gap is widest,
until the bounds are close enough. See `point_based` for the method and its sources.
"""

import numpy as np
from jaxtyping import Array, Bool, Float

from sdm.solvers_jax.belief_model import (
    annuities,
    belief_model,
    distinct_actions,
    restrict,
    rounding,
    standardise,
)
from sdm.solvers_jax.belief_solution import (
    BeliefSolution,
    Rounds,
    flattened,
    in_rewards,
    plans_and_rounds,
    relative_gap,
    shaped,
)
from sdm.solvers_jax.incremental_pruning import exact_vectors, pruning_loss
from sdm.solvers_jax.point_based import Plans
from sdm.solvers_jax.refinement import refine, resolutions
from sdm.tasks.models import POMDP, batch_shape

COARSEST = 32  # beliefs per stage, besides those a task starts with, in the first round


class POMDPSolution(BeliefSolution):
    """A policy and how far from optimal it can be.

    Attributes:
        value: certified lower bound on the value of the policy, and so on the optimal
            one; expected discounted return from the initial distribution.
        lower: the same.
        upper: certified upper bound on the optimal value.
        converged: whether `upper - lower`, rounding included, is as small as was asked;
            where not, the budget of points was spent.

    """

    value: Float[Array, "*B"]
    lower: Float[Array, "*B"]
    upper: Float[Array, "*B"]
    converged: Bool[Array, "*B"]


def solve_pomdp(
    model: POMDP,
    *,
    horizon: int,
    gap: float = 0.01,
    points: int = 512,
    method: str = "points",
) -> POMDPSolution:
    """Solve every POMDP of the batch until its certified gap is small enough.

    Args:
        model: a task or a batch of tasks; not checked here, `solve` is the door that
            does.
        horizon: number of decisions T.
        gap: stop where upper - lower is at most this share of the larger of the two in
            absolute value.
        points: budget, in beliefs per stage besides those a task starts with.
        method: `points`, or `exact` for incremental pruning, which takes neither `gap`
            nor `points` and is for small tasks.

    Raises:
        ValueError: if `gap` is negative, `points` is not a count, or `method` unknown.
        PruningError: if a task is too large to be solved exactly.

    """
    if method not in ("points", "exact"):
        raise ValueError(f"method = {method!r}: must be `points` or `exact`")
    if method == "exact":
        return _solve_exactly(model, horizon)
    if not gap >= 0:
        raise ValueError(f"gap = {gap}: must be 0 or more")
    batch, actions = batch_shape(model), distinct_actions(model)
    task, units = standardise(restrict(belief_model(model), actions))
    flat, own = flattened((task, units), len(batch))
    slack = rounding(flat, own, horizon)
    width = np.asarray(annuities(flat.discount, horizon)[:, -1])
    centre, scale = np.asarray(own.centre) * width, np.asarray(own.scale)

    def enough(tasks: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        lower, upper = (scale[tasks] * x + centre[tasks] for x in (lower, upper))
        return relative_gap(lower - slack[tasks], upper + slack[tasks]) <= gap

    sizes = resolutions(points, coarsest=COARSEST)
    found = refine(flat, horizon=horizon, points=sizes, convex=True, enough=enough)
    found = in_rewards(found, flat, own, horizon)
    tasks = np.arange(len(found.used))
    lower = found.lower[found.used, tasks] - slack
    upper = found.upper[found.used, tasks] + slack
    plans, choice, rounds = plans_and_rounds(found, batch, actions)
    return POMDPSolution(
        plans=plans,
        choice=choice,
        model=task,
        rounds=rounds,
        units=units,
        actions=actions,
        value=shaped(lower, batch),
        lower=shaped(lower, batch),
        upper=shaped(upper, batch),
        converged=shaped(relative_gap(lower, upper) <= gap, batch),
    )


def _solve_exactly(model: POMDP, horizon: int) -> POMDPSolution:
    """Incremental pruning, task by task; sets of α-vectors are padded to one size."""
    batch, actions = batch_shape(model), distinct_actions(model)
    task, units = standardise(restrict(belief_model(model), actions))
    flat, own = flattened((task, units), len(batch))
    transition, observation, reward = (
        np.asarray(x, np.float64)
        for x in (flat.transition[:, 0], flat.observation[:, 0], flat.reward)
    )
    found = [
        exact_vectors(p, z, r, float(discount), horizon=horizon)
        for p, z, r, discount in zip(
            transition, observation, reward, flat.discount, strict=True
        )
    ]
    widest = max(len(stage.action) for stages in found for stage in stages)

    def padded(x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((0, widest - len(x)), *[(0, 0)] * (x.ndim - 1)), mode="edge")

    nothing = np.zeros((widest, reward.shape[1]))
    vector = np.array(
        [[*(padded(s.vector) for s in stages[1:]), nothing] for stages in found]
    )
    choice = np.array([[padded(s.action) for s in stages[1:]] for stages in found])
    choice = choice.reshape(len(found), horizon - 1, widest).astype(np.int32)
    root, mass = (np.asarray(x, np.float64) for x in (flat.root, flat.root_mass[:, 0]))
    value = np.array(
        [
            (chance * (beliefs @ stages[0].vector.T).max(-1)).sum()
            for stages, beliefs, chance in zip(found, root, mass, strict=True)
        ]
    )
    slack = rounding(flat, own, horizon)
    scale = np.asarray(own.scale, np.float64)
    width = np.asarray(annuities(flat.discount, horizon)[:, -1], np.float64)
    value = scale * value + np.asarray(own.centre, np.float64) * width
    lost = scale * pruning_loss(observation.shape[-1], horizon)
    kind = flat.reward.dtype
    lower, upper = (
        shaped(x.astype(kind), batch) for x in (value - slack, value + slack + lost)
    )
    return POMDPSolution(
        plans=Plans(
            shaped(vector[:, :, :, None].astype(kind), batch),
            shaped(np.zeros_like(vector, kind), batch),
        ),
        choice=shaped(np.asarray(actions, np.int32)[choice], batch),
        model=task,
        rounds=Rounds((widest,), lower[..., None], upper[..., None]),
        units=units,
        actions=actions,
        value=lower,
        lower=lower,
        upper=upper,
        converged=shaped(np.ones(len(value), bool), batch),
    )
