"""Models whose transition law lies in a convex set, chosen for each state and action.

Nature chooses a row P(· | s, a) from the set of (s, a), anew at every stage and knowing
the stage, the state and the action: the sets are (s, a)-rectangular (Iyengar, 2005,
*Robust dynamic programming*; Nilim, El Ghaoui, 2005). The set of each class:

    IntervalMDP  { p : lower ≤ p ≤ upper, Σ p = 1 }
    L1MDP        { p ≥ 0 : ‖p - nominal‖₁ ≤ radius, Σ p = 1 }, over all next states
    KLMDP        { p : Σ p log(p / nominal) ≤ radius, Σ p = 1 }, so that p = 0 where the
                 nominal probability is 0
    RobustMDP    the convex hull of K rows; see `models`

In an `IntervalPOMDP` the state is hidden, and the probabilities of symbols lie in
intervals, too: nature chooses the joint probability of next state and symbol.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.tasks.array_checks import (
    ROW_SUM_TOLERANCE,
    check_finite,
    check_rows,
    check_shape,
    raise_first,
)
from sdm.tasks.model_kinds import register_model
from sdm.tasks.models import MDP, POMDP, Scalar
from sdm.tasks.stages import check_stationary
from sdm.tasks.task_checks import check_task
from sdm.tasks.transitions import dense, is_sparse


class RectangularMDP(eqx.Module):
    """Base class of fully observed models with an (s, a)-rectangular set of rows."""


@register_model
class IntervalMDP(RectangularMDP):
    """MDPs whose transition probabilities lie in intervals.

    Attributes:
        transition_lower: smallest P(s' | s, a), the next state last.
        transition_upper: largest P(s' | s, a).
        reward: expected reward r(s, a) of one decision.
        initial: distribution of the first state.
        discount: factor per stage, in [0, 1], common to the batch.

    Example:
        >>> import jax.numpy as jnp
        >>> from sdm.solvers_jax import EnergyFamily, IntervalMDP, solve
        >>> nominal = EnergyFamily().mdp(jnp.array(0.5))
        >>> robust = solve(IntervalMDP.around(nominal, 0.1), horizon=10)
        >>> bool(robust.value < solve(nominal, horizon=10).value)
        True

    """

    transition_lower: Float[Array, "*B S A S"]
    transition_upper: Float[Array, "*B S A S"]
    reward: Float[Array, "*B S A"]
    initial: Float[Array, "*B S"]
    discount: Scalar

    @classmethod
    def around(
        cls, mdp: MDP, half_width: float, *, keep_zeros: bool = False
    ) -> "IntervalMDP":
        """Return intervals around the probabilities of `mdp`, clipped to [0, 1].

        Args:
            mdp: the nominal model.
            half_width: half of the width of every interval, 0 or more.
            keep_zeros: whether a probability of 0 stays exactly 0.

        Raises:
            ValueError: if `half_width` is negative or not finite, or an array depends
                on the stage.

        """
        check_stationary(mdp, "`IntervalMDP.around`")
        lower, upper = intervals_around(dense(mdp.transition), half_width, keep_zeros)
        return cls(lower, upper, mdp.reward, mdp.initial, mdp.discount)

    def check(self) -> None:
        """Raise `ValueError` if an array or an interval is invalid."""
        check_task(self, ("transition_lower", "transition_upper"))
        *batch, states, actions = np.shape(self.reward)
        shape = (*batch, states, actions, states)
        _check_intervals(self, "transition", shape, "[*B, S, A, S]")


class _Balls(RectangularMDP):
    """What sets with a radius around nominal rows have in common."""

    transition: Float[Array, "*B S A S"]
    radius: Float[Array, "*B S A"]
    reward: Float[Array, "*B S A"]
    initial: Float[Array, "*B S"]
    discount: Scalar

    def check(self) -> None:
        """Raise `ValueError` if an array or a radius is invalid."""
        _check_ball(self)


@register_model
class L1MDP(_Balls):
    """MDPs whose rows lie in L1 balls around nominal rows.

    The distance of two distributions is at most 2; a radius of 2 or more, also
    infinity, allows every distribution over next states.

    Attributes:
        transition: nominal P(s' | s, a), the next state last.
        radius: largest Σ_s' |p(s') - P(s' | s, a)|, 0 or more.
        reward: expected reward r(s, a) of one decision.
        initial: distribution of the first state.
        discount: factor per stage, in [0, 1], common to the batch.

    """


@register_model
class KLMDP(_Balls):
    """MDPs whose rows lie in Kullback–Leibler balls around nominal rows.

    A next state of nominal probability 0 keeps probability 0. An infinite radius allows
    every distribution over the other next states.

    Attributes:
        transition: nominal P(s' | s, a), the next state last.
        radius: largest Σ_s' p(s') log(p(s') / P(s' | s, a)), in nats, 0 or more.
        reward: expected reward r(s, a) of one decision.
        initial: distribution of the first state.
        discount: factor per stage, in [0, 1], common to the batch.

    """


@register_model
class IntervalPOMDP(eqx.Module):
    """POMDPs whose transition and observation probabilities lie in intervals.

    Attributes:
        transition_lower: smallest P(s' | s, a), the next state last.
        transition_upper: largest P(s' | s, a).
        observation_lower: smallest Z(o | s', a), observed after reaching s' by a.
        observation_upper: largest Z(o | s', a).
        reward: expected reward r(s, a) of one decision.
        initial: distribution of the first state.
        discount: factor per stage, in [0, 1], common to the batch.
        initial_observation: Z_1(o | s) of the first state, which is not ambiguous, or
            None if there is no observation before the first action.
        joint: whether nature chooses P(s', o | s, a) between the products of the lower
            and of the upper ends (Itoh, Nakamura, 2007), or else the row of next states
            and the rows of symbols separately, which is a subset.

    """

    transition_lower: Float[Array, "*B S A S"]
    transition_upper: Float[Array, "*B S A S"]
    observation_lower: Float[Array, "*B A S O"]
    observation_upper: Float[Array, "*B A S O"]
    reward: Float[Array, "*B S A"]
    initial: Float[Array, "*B S"]
    discount: Scalar
    initial_observation: Float[Array, "*B S O"] | None = None
    joint: bool = eqx.field(default=True, static=True, converter=bool)

    @classmethod
    def around(
        cls,
        pomdp: POMDP,
        half_width: float,
        *,
        keep_zeros: bool = False,
        joint: bool = True,
    ) -> "IntervalPOMDP":
        """Return intervals around the probabilities of `pomdp`; see `IntervalMDP`."""
        check_stationary(pomdp, "`IntervalPOMDP.around`")
        rows = (dense(pomdp.transition), pomdp.observation)
        moved, seen = (intervals_around(x, half_width, keep_zeros) for x in rows)
        return cls(
            *moved,
            *seen,
            pomdp.reward,
            pomdp.initial,
            pomdp.discount,
            pomdp.initial_observation,
            joint,
        )

    def check(self) -> None:
        """Raise `ValueError` if an array or an interval is invalid."""
        names = ("transition_lower", "transition_upper")
        check_task(self, (*names, "observation_lower", "observation_upper"))
        *batch, states, actions = np.shape(self.reward)
        shape = (*batch, states, actions, states)
        _check_intervals(self, "transition", shape, "[*B, S, A, S]")
        symbols = np.shape(self.observation_lower)[-1:] or (0,)
        shape = (*batch, actions, states, *symbols)
        _check_intervals(self, "observation", shape, "[*B, A, S, O]")
        first = self.initial_observation
        if first is not None:
            shape = (*batch, states, *symbols)
            check_shape("initial_observation", first, shape, "[*B, S, O]")
            check_rows("initial_observation", first)


def intervals_around(
    rows: Float[Array, "*B N"], half_width: float, keep_zeros: bool = False
) -> tuple[Float[Array, "*B N"], Float[Array, "*B N"]]:
    """Return intervals [p - w, p + w] around probabilities, clipped to [0, 1].

    Args:
        rows: probability distributions on the last axis.
        half_width: w, 0 or more.
        keep_zeros: whether a probability of 0 stays exactly 0.

    Raises:
        ValueError: if `half_width` is negative or not finite.

    """
    if not 0 <= half_width < np.inf:
        raise ValueError(f"half_width = {half_width}: must be 0 or more, and finite")
    upper = jnp.minimum(rows + half_width, 1)
    if keep_zeros:
        upper = jnp.where(rows > 0, upper, 0)
    return jnp.maximum(rows - half_width, 0), upper


def _check_intervals(model: Any, name: str, shape: tuple[int, ...], axes: str) -> None:
    """Check that a field's intervals lie in [0, 1], and that every set has a row."""
    ends = f"{name}_lower", f"{name}_upper"
    for end in ends:
        check_shape(end, getattr(model, end), shape, axes)
        check_finite(end, getattr(model, end))
    lower, upper = (np.asarray(getattr(model, end)) for end in ends)
    raise_first(
        ends[0],
        lower < 0,
        lambda i: f" = {lower[i]:g}: probabilities cannot be negative",
        "entries",
    )
    raise_first(
        ends[0],
        lower > upper,
        lambda i: f" = {lower[i]:g}: is above {ends[1]} = {upper[i]:g}",
        "entries",
    )
    least, most = lower.sum(-1), upper.sum(-1)
    raise_first(
        ends[0],
        least > 1 + ROW_SUM_TOLERANCE,
        lambda i: f": lower ends sum to {least[i]:.6g}, above 1: the set is empty",
        "rows",
    )
    raise_first(
        ends[1],
        most < 1 - ROW_SUM_TOLERANCE,
        lambda i: f": upper ends sum to {most[i]:.6g}, below 1: the set is empty",
        "rows",
    )


def _check_ball(model: Any) -> None:
    """Check a nominal transition law and the radius of every row."""
    if is_sparse(model.transition):
        raise ValueError(
            "transition is a SparseTransition: must be an array; convert it with "
            "`sdm.tasks.transitions.dense`"
        )
    check_task(model, ("transition", "radius"))
    *batch, states, actions = np.shape(model.reward)
    shape = (*batch, states, actions)
    check_shape("transition", model.transition, (*shape, states), "[*B, S, A, S]")
    check_rows("transition", model.transition)
    check_shape("radius", model.radius, shape, "[*B, S, A]")
    radius = np.asarray(model.radius)
    raise_first(
        "radius",
        ~(radius >= 0),
        lambda i: f" = {radius[i]:g}: must be 0 or more",
        "entries",
    )
