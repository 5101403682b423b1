r"""Solve MDPs with rectangular sets of transition laws exactly, and evaluate policies.

    Q_t(s,a) = r(s,a) + γ min { Σ_s' p(s') V_{t+1}(s') : p in the set of (s,a) }
    V_t(s)   = max_a Q_t(s,a)

Nature, which minimises (pessimistic) or maximises (optimistic), chooses a row at every
stage, state and action. Exact up to rounding (Iyengar, 2005, *Robust dynamic
programming*; Nilim, El Ghaoui, 2005). A new class of sets registers its inner problem
with `nature_rows.register`.
"""

from dataclasses import dataclass
from functools import partial, singledispatch
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.solvers_jax.attitude import attitude_sign
from sdm.solvers_jax.backward_induction import MDPSolution
from sdm.solvers_jax.inner_problems import interval_rows, l1_rows
from sdm.solvers_jax.kl_ball import kl_rows
from sdm.solvers_jax.methods import register_method
from sdm.tasks.models import RobustMDP, Scalar, check_model
from sdm.tasks.policy import TabularPolicy
from sdm.tasks.rectangular import KLMDP, L1MDP, IntervalMDP, RectangularMDP
from sdm.tasks.stages import at_stage, check_stages, shape_at_stage, stage_numbers
from sdm.tasks.transitions import dense

ROUNDED_SUM = 1e-5  # by which the sum of a row of a policy may differ from 1


@singledispatch
def nature_rows(model: Any, value: Float[Array, "*B S"]) -> Float[Array, "*B S A S"]:
    """Return the row of every state and action with the smallest mean of `value`.

    Args:
        model: the sets.
        value: value of each next state; its negative, for the largest mean.

    Raises:
        TypeError: if the class of the model has no rectangular sets.

    """
    raise TypeError(f"{type(model).__name__} models have no rectangular sets of rows")


@nature_rows.register
def _(model: IntervalMDP, value: Array) -> Array:
    lower, upper = model.transition_lower, model.transition_upper
    return interval_rows(_over_rows(value), lower, upper)


@nature_rows.register
def _(model: L1MDP, value: Array) -> Array:
    return l1_rows(_over_rows(value), model.transition, model.radius)


@nature_rows.register
def _(model: KLMDP, value: Array) -> Array:
    return kl_rows(_over_rows(value), model.transition, model.radius)


@nature_rows.register
def _(model: RobustMDP, value: Array) -> Array:
    """Return rows of the convex hull of the K rows: one of them is extreme."""
    rows = dense(model.transition)
    mean = jnp.einsum("...ksan,...n->...ksa", rows, value)
    worst = mean.argmin(-3)[..., None, :, :, None]
    return jnp.take_along_axis(rows, worst, axis=-4)[..., 0, :, :, :]


def _over_rows(value: Float[Array, "*B S"]) -> Float[Array, "*B 1 1 S"]:
    return value[..., None, None, :]


class RectangularSolution(MDPSolution):
    """Optimal values and actions against nature, and the rows that nature chooses.

    Attributes:
        model: the task.
        attitude: whether nature minimises or maximises the value.

    """

    model: Any
    attitude: str = eqx.field(static=True)

    def nature(self, t: int) -> Float[Array, "*B S A S"]:
        """Return the transition law that nature chooses at stage `t`.

        The optimal policy earns `value` under these laws, and no policy earns more if
        nature is pessimistic.

        Raises:
            ValueError: if `t` is not a stage.

        """
        horizon = self.q.shape[-3]
        if not 0 <= t < horizon:
            raise ValueError(f"t = {t}: must be a stage from 0 to {horizon - 1}")
        after = jnp.take(self.state_value, t + 1, axis=self.state_value.ndim - 2)
        return _rows(at_stage(self.model, t), after, attitude_sign(self.attitude))


@jax.jit
def _rows(model: Any, after: Float[Array, "*B S"], sign: Scalar) -> Array:
    return nature_rows(model, sign * after)


def _future(model: Any, after: Array, sign: Scalar) -> Float[Array, "*B S A"]:
    """Return the value after each decision under nature's rows."""
    rows = nature_rows(model, sign * after)
    return jnp.einsum("...san,...n->...sa", rows, after)


@partial(jax.jit, static_argnames=("horizon", "attitude"))
def rectangular_backward_induction(
    model: Any, *, horizon: int, attitude: str = "pessimistic"
) -> RectangularSolution:
    """Solve every task of the batch exactly, up to rounding.

    Args:
        model: a model with rectangular sets, validated by `solve`; of a `RobustMDP`,
            the convex hull of its K models, whatever its alpha.
        horizon: number of decisions T.
        attitude: whether nature minimises ("pessimistic") or maximises ("optimistic").

    """
    sign = attitude_sign(attitude)

    def stage(after: Array, t: Array) -> tuple[Array, tuple[Array, ...]]:
        now = at_stage(model, t)
        q = now.reward + model.discount * _future(now, after, sign)
        value = q.max(-1)
        return value, (q, q.argmax(-1).astype(jnp.int32), value)

    terminal = jnp.zeros_like(model.initial)
    _, stages = jax.lax.scan(stage, terminal, stage_numbers(horizon), reverse=True)
    batch = terminal.ndim - 1
    q, policy, value = (jnp.moveaxis(x, 0, batch) for x in stages)
    value = jnp.concatenate([value, jnp.expand_dims(terminal, batch)], axis=batch)
    first = jnp.take(value, 0, axis=batch)
    total = (model.initial * first).sum(-1)
    return RectangularSolution(q, policy, value, total, model, attitude)


@register_method(default=True)
@dataclass(frozen=True)
class RectangularBackwardInduction:
    """Exact backward induction against nature, over states and stages.

    Attributes:
        attitude: "pessimistic" if nature minimises the value, "optimistic" if it
            maximises it.

    """

    attitude: str = "pessimistic"

    name: ClassVar[str] = "backward-induction"
    handles: ClassVar[tuple[type, ...]] = (RectangularMDP,)

    def __post_init__(self) -> None:
        """Raise `ValueError` for an unknown attitude."""
        attitude_sign(self.attitude)

    def solve(self, model: RectangularMDP, *, horizon: int) -> RectangularSolution:
        """Solve every task of the batch; JAX can trace it."""
        return rectangular_backward_induction(
            model, horizon=horizon, attitude=self.attitude
        )


@singledispatch
def worst_case_value(
    model: Any, policy: Any, *, attitude: str = "pessimistic"
) -> Float[Array, "*B"]:
    """Return the value of a given policy against nature's best reply.

    Fully observed models: nature chooses a row at every stage, state and action, after
    the action. The value is exact for every Markov policy, also a stochastic one; of a
    `RobustMDP`, nature chooses from the hull of its models, whatever its alpha.

    An `IntervalPOMDP`: exact for every plan, that is a finite-state controller whose
    nodes can differ between stages (`Plan`); nature knows the node.

    Args:
        model: a model with rectangular sets.
        policy: actions [*B, T, S], or probabilities of actions [*B, T, S, A], or a
            `TabularPolicy`; for an `IntervalPOMDP`, a `Plan`.
        attitude: "pessimistic" for the smallest value of all laws in the sets,
            "optimistic" for the largest.

    Raises:
        ValueError: if the model, the policy or the attitude is invalid.
        TypeError: if the model has no rectangular sets.

    """
    raise TypeError(f"{type(model).__name__} models have no rectangular sets of rows")


@worst_case_value.register(RectangularMDP)
@worst_case_value.register(RobustMDP)
def _(model: Any, policy: Any, *, attitude: str = "pessimistic") -> Float[Array, "*B"]:
    check_model(model)
    sign = attitude_sign(attitude)
    probabilities = _probabilities(policy, model)
    check_stages(model, probabilities.shape[-3])
    return _evaluate(model, probabilities, sign)


@jax.jit
def _evaluate(
    model: Any, probabilities: Float[Array, "*B T S A"], sign: Scalar
) -> Float[Array, "*B"]:
    def backup(after: Array, stage: tuple[Array, Array]) -> tuple[Array, None]:
        choice, t = stage
        now = at_stage(model, t)
        q = now.reward + model.discount * _future(now, after, sign)
        return (choice * q).sum(-1), None

    moved = jnp.moveaxis(probabilities, -3, 0)
    stages = (moved, stage_numbers(len(moved)))
    terminal = jnp.zeros_like(model.initial)
    value, _ = jax.lax.scan(backup, terminal, stages, reverse=True)
    return (model.initial * value).sum(-1)


def _probabilities(policy: Any, model: Any) -> Float[Array, "*B T S A"]:
    """Return a policy's probabilities of actions, after a check of its entries."""
    if isinstance(policy, TabularPolicy):
        policy = policy.probabilities
    table = np.asarray(policy)
    *batch, states, actions = shape_at_stage(model, "reward")
    if table.dtype.kind in "iu":
        _check_table(table, len(batch) + 2, (*batch, states), -1, "[*B, T, S]")
        wrong = (table < 0) | (table >= actions)
        if wrong.any():
            index = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(
                f"policy{list(index)} = {table[index]}: must be an action from 0 to "
                f"{actions - 1}"
            )
        return jnp.asarray(np.eye(actions)[table], model.reward.dtype)
    _check_table(table, len(batch) + 3, (*batch, states, actions), -2, "[*B, T, S, A]")
    sums = table.sum(-1)
    wrong = ~(np.abs(sums - 1) <= ROUNDED_SUM) | (table < 0).any(-1)
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"policy{list(index)} = {table[index]}: must be probabilities that sum to 1"
        )
    return jnp.asarray(table, model.reward.dtype)


def _check_table(
    table: np.ndarray, axes: int, others: tuple[int, ...], own: int, form: str
) -> None:
    """Check the shape of a policy; `others` are its axes other than the stages."""
    found = table.shape
    where = len(found) + own - 1
    if len(found) != axes or (*found[:where], *found[where + 1 :]) != others:
        raise ValueError(
            f"policy has shape {found}: must be {form}, with the other axes {others}"
        )
    if found[where] < 1:
        raise ValueError(f"policy has shape {found}: must have a stage")
