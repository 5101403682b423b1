"""Solve POMDPs with intervals of probabilities, with certified bounds.

Nature is pessimistic: it chooses after the hidden state and the action, anew at every
stage. `lower` is the exact value, against nature, of the plan that is returned; `upper`
bounds the value of every policy. See `interval_bounds` for the method and its sources.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sdm.solvers_jax.attitude import attitude_sign
from sdm.solvers_jax.belief_model import annuities
from sdm.solvers_jax.belief_solution import flattened, shaped
from sdm.solvers_jax.chunks import of_first
from sdm.solvers_jax.interval_bounds import Accuracy, Bounds, expand, start
from sdm.solvers_jax.interval_sets import interval_sets, reward_units
from sdm.solvers_jax.methods import register_method
from sdm.solvers_jax.plan import Plan, initial_beliefs
from sdm.storage.checks import check_tolerance
from sdm.tasks.host_checks import beliefs_over, check_stage
from sdm.tasks.models import check_count
from sdm.tasks.rectangular import IntervalPOMDP

COARSEST = 16  # added points per stage in the first round
GROWTH = 2  # factor of the number of points per round
TASKS_TOGETHER = 2  # tasks per call, which runs them one by one: little padding
# Difference of a game's bounds at which to stop, per unit of a typical reward: as a
# share of the gap to reach, and at least.
SHARE_OF_GAP, CLOSE = 1e-3, 1e-7


class IntervalSolution(eqx.Module):
    """A plan with certified bounds against nature.

    Attributes:
        value: the same as `lower`.
        lower: certified lower bound on the plan's value against nature.
        upper: certified upper bound on the value of every policy against nature.
        converged: whether the bounds are close enough.
        plan: the plan; a policy for `rollout`.
        vector: α-vector of every node of the plan, in units of reward.
        root: initial beliefs, one for each first symbol.

    """

    value: Float[Array, "*B"]
    lower: Float[Array, "*B"]
    upper: Float[Array, "*B"]
    converged: Bool[Array, "*B"]
    plan: Plan
    vector: Float[Array, "*B T N S"]
    root: Float[Array, "*B R S"]

    def action(
        self, t: int | Int[Array, ""], x: Float[Array, "*B N S"]
    ) -> Int[Array, "*B N"]:
        """Return the first action of the best plan at stage `t` for N beliefs `x`.

        The bounds hold for `plan`, which needs no beliefs. Beliefs depend on nature's
        choices, which the agent does not see.

        Raises:
            ValueError: if `t` is not a stage or `x` are not beliefs over S states.

        """
        check_stage(t, self.vector.shape[-3])
        beliefs = beliefs_over(self.vector.shape[-1], x)
        axis = beliefs.ndim - 2
        vector = jnp.take(self.vector, jnp.asarray(t), axis=axis)
        choice = jnp.take(self.plan.choice, jnp.asarray(t), axis=axis)
        node = jnp.einsum("...ns,...ps->...np", beliefs, vector).argmax(-1)
        return jnp.take_along_axis(choice, node, axis=-1)

    def first_actions(self) -> Int[Array, "*B R"]:
        """Return the plan's first action after each first symbol."""
        count = self.root.shape[-2]
        return self.plan.choice[..., 0, :count]


@register_method(default=True)
@dataclass(frozen=True)
class IntervalPoints:
    """Point-based plans and upper bounds against pessimistic nature.

    Attributes:
        gap: certified gap to reach, relative to the larger bound in absolute value.
        points: largest number of beliefs per stage, in addition to initial beliefs and
            the corners of the belief simplex.
        atol: certified gap that is always small enough, in units of reward.
        replies: largest number of replies of each player in the game of a decision.
        attitude: "pessimistic"; there are no certified bounds for "optimistic".

    """

    gap: float = 0.01
    points: int = 256
    atol: float = 1e-6
    replies: int = 16
    attitude: str = "pessimistic"

    name: ClassVar[str] = "points"
    handles: ClassVar[tuple[type, ...]] = (IntervalPOMDP,)

    def __post_init__(self) -> None:
        """Raise `ValueError` for an invalid option."""
        for name in ("gap", "atol"):
            check_tolerance(name, getattr(self, name))
        check_count("points", self.points, 1)
        check_count("replies", self.replies, 2)
        if attitude_sign(self.attitude) < 0:
            raise ValueError(
                f"attitude = {self.attitude!r}: IntervalPOMDP models have certified "
                "bounds for 'pessimistic' only; `worst_case_value` evaluates a plan "
                "with either"
            )

    def solve(self, model: IntervalPOMDP, *, horizon: int) -> IntervalSolution:
        """Solve every task of the batch until its certified gap is small enough.

        Args:
            model: a task or a batch of tasks; validated by `solve`.
            horizon: number of decisions T.

        """
        batch, kept = model.reward.shape[:-2], _distinct_actions(model)
        root, mass = initial_beliefs(model)
        scale, largest = reward_units(model.reward, batch)
        sets = interval_sets(_standardised(model, kept, scale))
        tasks = flattened((sets, root, mass), len(batch))
        unit = np.asarray(scale).reshape(-1)
        slack = _rounding(tasks[0], horizon) * largest
        sizes = _sizes(self.points)

        def enough(low: np.ndarray, high: np.ndarray) -> np.ndarray:
            largest = np.maximum(np.abs(low), np.abs(high))
            return np.asarray(high - low <= self.gap * largest + self.atol)

        close = max(SHARE_OF_GAP * self.gap, CLOSE)
        accuracy = Accuracy(self.replies, close, float(horizon))
        bounds, lower, upper = _refined(
            tasks, horizon, sizes, accuracy, unit, slack, enough
        )
        found = {name: shaped(x, batch) for name, x in bounds.items()}
        choice = jnp.asarray(kept, jnp.int32)[found["choice"]]
        low = shaped(lower, batch)
        return IntervalSolution(
            value=low,
            lower=low,
            upper=shaped(upper, batch),
            converged=shaped(enough(lower, upper), batch),
            plan=Plan(choice, found["weight"], found["after"]),
            vector=found["vector"] * scale[..., None, None, None],
            root=root,
        )


def _sizes(points: int) -> tuple[int, ...]:
    """Return the added points per stage of each round, up to `points`."""
    sizes = [points]
    while sizes[0] // GROWTH >= COARSEST:
        sizes.insert(0, sizes[0] // GROWTH)
    return tuple(sizes)


def _distinct_actions(model: IntervalPOMDP) -> tuple[int, ...]:
    """Return the lowest index of each action with arrays of its own."""
    names = ("transition_lower", "transition_upper")
    rows = [np.moveaxis(np.asarray(getattr(model, n)), -2, 0) for n in names]
    names = ("observation_lower", "observation_upper")
    rows += [np.moveaxis(np.asarray(getattr(model, n)), -3, 0) for n in names]
    rows.append(np.moveaxis(np.asarray(model.reward), -1, 0))

    def same(a: int, b: int) -> bool:
        return all(np.array_equal(x[a], x[b]) for x in rows)

    every = range(model.reward.shape[-1])
    return tuple(a for a in every if not any(same(a, b) for b in range(a)))


def _standardised(
    model: IntervalPOMDP, actions: tuple[int, ...], scale: Float[Array, "*B"]
) -> IntervalPOMDP:
    """Return the task with these actions only and rewards divided by `scale`."""
    chosen = np.asarray(actions)
    return IntervalPOMDP(
        model.transition_lower[..., chosen, :],
        model.transition_upper[..., chosen, :],
        model.observation_lower[..., chosen, :, :],
        model.observation_upper[..., chosen, :, :],
        model.reward[..., chosen] / scale[..., None, None],
        model.initial,
        model.discount,
        model.initial_observation,
        model.joint,
    )


def _rounding(sets: Any, horizon: int) -> Float[np.ndarray, " B"]:
    """Return a bound on the rounding error for rewards of at most 1.

    T stages of sums over pairs of states and symbols, each term wrong by less than one
    unit in the last place, of values up to Σ γ^t.
    """
    terms = np.prod(jax.tree.leaves(sets)[0].shape[1:])
    largest = np.asarray(annuities(sets.discount, horizon)[:, -1])
    return np.asarray(np.finfo(largest.dtype).eps * horizon * terms * largest)


def _refined(
    tasks: Any,
    horizon: int,
    sizes: tuple[int, ...],
    accuracy: Accuracy,
    unit: np.ndarray,
    slack: np.ndarray,
    enough: Any,
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Add points to each task until its bounds are close enough.

    Returns:
        The plans of each task, and certified bounds in units of reward.

    """
    count = len(unit)
    lower, upper = np.full((2, count), np.nan)
    left, held = np.arange(count), dict[int, Bounds]()
    together = min(TASKS_TOGETHER, count)
    for number, size in enumerate(sizes):
        new = size - (sizes[number - 1] if number else 0)
        for first in range(0, len(left), together):
            chosen = left[first : first + together]
            index = np.resize(chosen, together)  # equal shapes, to compile once
            task = jax.tree.map(lambda x: x[index], tasks)  # noqa: B023
            old = None
            if number:
                known = [held[int(i)] for i in index]
                old = jax.tree.map(lambda *x: np.stack(x), *known)
            grown, low, high = jax.device_get(
                _round(
                    task,
                    old,
                    jnp.asarray(len(chosen)),
                    new=new,
                    horizon=horizon,
                    accuracy=accuracy,
                )
            )
            for row, i in enumerate(chosen):
                held[int(i)] = jax.tree.map(lambda x: x[row], grown)  # noqa: B023
                lower[i] = low[row] * unit[i] - slack[i]
                upper[i] = high[row] * unit[i] + slack[i]
        left = left[~enough(lower[left], upper[left])]
        if not len(left):
            break
    return _padded([held[i] for i in range(count)]), lower, upper


@partial(jax.jit, static_argnames=("new", "horizon", "accuracy"))
def _round(
    tasks: Any,
    bounds: Bounds | None,
    count: Int[Array, ""],
    *,
    new: int,
    horizon: int,
    accuracy: Accuracy,
) -> tuple[Bounds, Float[Array, " B"], Float[Array, " B"]]:
    """Add points to the first tasks of a batch, and return the bounds of roots."""

    def one(task: Any) -> tuple[Bounds, Array, Array]:
        (sets, root, mass), known = task
        roots = len(mass)
        begun = known or start(sets, root, horizon=horizon, accuracy=accuracy)
        grown = expand(sets, begun, new=new, roots=roots, accuracy=accuracy)
        low = (grown.vector[0, :roots] * root).sum(-1)
        return grown, (mass * low).sum(), (mass * grown.upper[0, :roots]).sum()

    return of_first(one, (tasks, bounds), count)


def _padded(tasks: list[Bounds]) -> dict[str, np.ndarray]:
    """Stack the plans of tasks, with copies of the last node for tasks with fewer."""
    nodes = max(task.choice.shape[1] for task in tasks)
    found = {}
    for name in ("choice", "weight", "after", "vector"):
        each = [getattr(task, name) for task in tasks]
        grown = [
            np.concatenate([x, np.repeat(x[:, -1:], nodes - x.shape[1], 1)], axis=1)
            for x in each
        ]
        found[name] = np.stack(grown)
    return found
