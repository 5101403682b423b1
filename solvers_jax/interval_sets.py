r"""Nature's sets in an `IntervalPOMDP`, and its best reply to plans, for one task.

After a decision (s, a), nature chooses the probability p(s', o) of the next state and
the symbol. Two sets are defined by the ends of the intervals:

    joint     p(s', o) between the products of the lower and of the upper ends, Σ p = 1
    separate  p(s', o) = P(s') Z(o|s'), each row between its own ends

The first contains the second. Both are convex in p, so both are rectangular sets of
Osogami (2015). The first is that of Itoh and Nakamura (2007, *Partially observable
Markov decision processes with imprecise parameters*). Nature minimises
Σ p(s', o) g(o, s') by sorting: all pairs at once, or the symbols of every s' and then
the next states.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.solvers_jax.belief_solution import shaped
from sdm.solvers_jax.incremental_pruning import typical_reward
from sdm.solvers_jax.inner_problems import interval_rows
from sdm.tasks.rectangular import IntervalPOMDP


@runtime_checkable
class Sets(Protocol):
    """One task: rewards, discount factor, and nature's sets."""

    @property
    def reward(self) -> Float[Array, "S A"]:
        """Expected reward r(s, a)."""
        ...

    @property
    def discount(self) -> Float[Array, ""]:
        """Discount factor per stage."""
        ...

    def middle(self, belief: Float[Array, "N S"]) -> Float[Array, "N A O S"]:
        """Return the chance of symbols and next states in the middle of the sets."""
        ...

    def reply(
        self, belief: Float[Array, "N S"], gain: Float[Array, "N A O S"]
    ) -> tuple[Float[Array, "N A O S"], Float[Array, "N A S"]]:
        """Return nature's reply to plans that are worth `gain` after a decision.

        Returns:
            The probability of symbols and next states under the reply from each belief,
            and the smallest mean of `gain` from each state.

        """
        ...

    def chosen(self, action: Array) -> "Sets":
        """Return the sets of these actions, as actions of their own."""
        ...


class JointSets(NamedTuple):
    """Intervals of the joint probability of next state and symbol."""

    lower: Float[Array, "S A O S"]
    upper: Float[Array, "S A O S"]
    reward: Float[Array, "S A"]
    discount: Float[Array, ""]

    def middle(self, belief: Array) -> Array:
        """See `Sets`."""
        states, actions, symbols, _ = self.lower.shape
        flat = (states, actions, symbols * states)
        row = _middle(self.lower.reshape(flat), self.upper.reshape(flat))
        return jnp.einsum("ns,saom->naom", belief, row.reshape(self.lower.shape))

    def reply(self, belief: Array, gain: Array) -> tuple[Array, Array]:
        """See `Sets`; all states share the order of the pairs, so rows stay sorted."""
        count, actions, symbols, states = gain.shape
        pairs = symbols * states
        value = gain.reshape(count, actions, pairs)
        order = jnp.argsort(value, axis=-1)[:, None]
        value = jnp.take_along_axis(value, order[:, 0], axis=-1)
        lower, upper = (
            jnp.take_along_axis(x.reshape(1, -1, actions, pairs), order, axis=-1)
            for x in (self.lower, self.upper)
        )
        width = upper - lower
        free = 1 - lower.sum(-1, keepdims=True)
        before = jnp.cumsum(width, axis=-1) - width
        row = lower + jnp.clip(free - before, 0, width)  # [N, S, A, O S]
        future = jnp.einsum("nsap,nap->nas", row, value)
        chance = jnp.einsum("ns,nsap->nap", belief, row)
        back = jnp.argsort(order[:, 0], axis=-1)
        return jnp.take_along_axis(chance, back, axis=-1).reshape(gain.shape), future

    def chosen(self, action: Array) -> "JointSets":
        """See `Sets`."""
        lower, upper = self.lower[:, action], self.upper[:, action]
        return JointSets(lower, upper, self.reward[:, action], self.discount)


class SeparateSets(NamedTuple):
    """Intervals of the rows of the transition and of the observation matrix."""

    transition_lower: Float[Array, "S A S"]
    transition_upper: Float[Array, "S A S"]
    observation_lower: Float[Array, "A S O"]
    observation_upper: Float[Array, "A S O"]
    reward: Float[Array, "S A"]
    discount: Float[Array, ""]

    def middle(self, belief: Array) -> Array:
        """See `Sets`."""
        moved = _middle(self.transition_lower, self.transition_upper)
        shown = _middle(self.observation_lower, self.observation_upper)
        there = jnp.einsum("ns,sam->nam", belief, moved)
        return there[:, :, None, :] * jnp.swapaxes(shown, -1, -2)[None]

    def reply(self, belief: Array, gain: Array) -> tuple[Array, Array]:
        """See `Sets`."""
        value = jnp.swapaxes(gain, -1, -2)
        shown = interval_rows(
            value, self.observation_lower[None], self.observation_upper[None]
        )
        mean = (shown * value).sum(-1)
        moved = interval_rows(
            mean[:, None], self.transition_lower[None], self.transition_upper[None]
        )
        future = jnp.einsum("nsam,nam->nas", moved, mean)
        there = jnp.einsum("ns,nsam->nam", belief, moved)
        return there[:, :, None, :] * jnp.swapaxes(shown, -1, -2), future

    def chosen(self, action: Array) -> "SeparateSets":
        """See `Sets`."""
        moved = (self.transition_lower[:, action], self.transition_upper[:, action])
        shown = (self.observation_lower[action], self.observation_upper[action])
        return SeparateSets(*moved, *shown, self.reward[:, action], self.discount)


def interval_sets(model: IntervalPOMDP) -> JointSets | SeparateSets:
    """Return the sets of a task or of a batch of tasks."""
    kind, batch = model.reward.dtype, model.reward.shape[:-2]
    discount = jnp.broadcast_to(jnp.asarray(model.discount, kind), batch)
    moved = (model.transition_lower, model.transition_upper)
    shown = (model.observation_lower, model.observation_upper)
    if not model.joint:
        return SeparateSets(*moved, *shown, model.reward, discount)
    lower, upper = (
        p[..., None, :] * jnp.swapaxes(z, -1, -2)[..., None, :, :, :]
        for p, z in zip(moved, shown, strict=True)
    )
    return JointSets(lower, upper, model.reward, discount)


def reward_units(
    reward: Float[Array, "*B S A"], batch: tuple[int, ...]
) -> tuple[Float[Array, "*B"], Float[np.ndarray, " N"]]:
    """Return a typical reward of each task, and the largest in absolute value.

    Games are solved to a fraction of a typical reward: one large penalty, which a good
    policy avoids, does not make them coarse. See `typical_reward`.
    """
    tasks = np.asarray(reward).reshape(-1, *reward.shape[-2:])
    typical = np.array([typical_reward(task) for task in tasks], tasks.dtype)
    return shaped(typical, batch), np.abs(tasks).max((-2, -1))


def _middle(lower: Float[Array, "*B N"], upper: Float[Array, "*B N"]) -> Array:
    """Return a row in the middle of its intervals that sums to 1."""
    width = upper - lower
    total = width.sum(-1, keepdims=True)
    free = 1 - lower.sum(-1, keepdims=True)
    return lower + width * jnp.maximum(free, 0) / jnp.where(total > 0, total, 1)
