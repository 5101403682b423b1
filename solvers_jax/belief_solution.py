"""Solutions over beliefs: plans, and the policy of one-step lookahead."""

from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.belief_backup import Plans, action_values, mix
from sdm.solvers_jax.belief_model import BeliefModel, Units, annuities, impossible
from sdm.solvers_jax.refinement import Refined
from sdm.tasks.admissible import admissible_at
from sdm.tasks.host_checks import beliefs_over, check_stage
from sdm.tasks.stages import at_stage

T = TypeVar("T")


class Rounds(eqx.Module):
    """Values after each round of refinement.

    Attributes:
        points: beliefs per stage of each round R.
        value: the value from the plans; NaN if the task converged in an earlier round.
        upper: the upper bound; NaN in the same case, and if V is not convex.

    """

    points: tuple[int, ...] = eqx.field(static=True)
    value: Float[Array, "*B R"]
    upper: Float[Array, "*B R"]


class BeliefSolution(eqx.Module):
    """Plans for every stage, and the policy of one-step lookahead with them.

    `plans` and `model` use standardised rewards (see `units`); `alpha_vectors` and
    `action_value` use the original rewards.

    Attributes:
        plans: plans after each decision: entry t is for stage t + 1, and the last has
            value zero. The value of plan n at belief b is α times the smallest plus
            1 - α times the largest of its α-vectors plans.vector[t, n, l]·b, and
            V_{t+1}(b) is the value of the best plan. If V is convex, there is one l.
        choice: the first action of each plan, for stages 1 to T - 1.
        model: the task, with duplicate actions merged.
        rounds: values after each round, in units of the rewards.
        units: scaling of the rewards of `model` and the values of `plans`.
        equal: for each action, the lowest index of an equal action.

    """

    plans: Plans
    choice: Int[Array, "*B U N"]
    model: BeliefModel
    rounds: Rounds
    units: Units
    equal: tuple[int, ...] = eqx.field(static=True)

    @property
    def actions(self) -> tuple[int, ...]:
        """The lowest index of each distinct action."""
        return tuple(sorted(set(self.equal)))

    def action(
        self, t: int | Int[Array, ""], x: Float[Array, "*B N S"]
    ) -> Int[Array, "*B N"]:
        """Return the actions at stage `t` for N beliefs `x` of every task.

        Raises:
            ValueError: if `t` is not a stage or an entry of `x` no probability, unless
                JAX traces it, or the beliefs are not over S states.

        """
        check_stage(t, self.plans.point.shape[-3])
        beliefs = beliefs_over(self.plans.point.shape[-1], x)
        return self._action(jnp.asarray(t), beliefs)

    @eqx.filter_jit
    def _action(
        self, t: Int[Array, ""], x: Float[Array, "*B N S"]
    ) -> Int[Array, "*B N"]:
        best = self._lookahead(t, x).argmax(-1)  # -inf if not admissible
        return jnp.asarray(self.actions, jnp.int32)[best]

    def action_value(
        self, t: int | Int[Array, ""], x: Float[Array, "*B N S"]
    ) -> Float[Array, "*B N C"]:
        """Return the value of each of the C distinct actions, by one-step lookahead.

        It is -inf for actions that are not admissible at the belief, or after which the
        plans have no admissible action.
        """
        horizon = self.plans.point.shape[-3]
        left = annuities(self.model.discount, horizon)[..., horizon - jnp.asarray(t)]
        centre = self.units.centre * left
        scale = self.units.scale[..., None, None]
        return scale * self._lookahead(t, x) + centre[..., None, None]

    def lost(
        self,
        t: int | Int[Array, ""],
        x: Float[Array, "*B N S"],
        action: Int[Array, "*B N"],
    ) -> Float[Array, "*B N"]:
        """Return V_t(b) - Q_t(b, a) of actions at stage `t` in N beliefs `x`.

        V_t is the value of the best plan, of which Q_{t-1} is made; at stage 0, for
        which there are no plans, it is the value of the best action.
        """
        now, horizon = jnp.asarray(t), self.plans.point.shape[-3]
        value = self.action_value(now, x)
        column = jnp.asarray([self.actions.index(a) for a in self.equal])[action]
        taken = jnp.take_along_axis(value, column[..., None], axis=-1)[..., 0]
        made = jnp.take(self.plans.vector, jnp.maximum(now - 1, 0), axis=x.ndim - 2)
        each = jnp.einsum("...ns,...pls->...npl", x, made)
        alpha = self.model.alpha[..., None, None]
        best = mix(alpha, each.min(-1), each.max(-1)).max(-1)
        left = annuities(self.model.discount, horizon)[..., horizon - now]
        planned = self.units.scale[..., None] * best
        planned += (self.units.centre * left)[..., None]
        return jnp.where(now > 0, planned, value.max(-1)) - taken

    def promised(self) -> Float[Array, "*B"]:
        """Return the mean over first symbols of the values at stage 0.

        In a set of models, it is the mean under the first one.
        """
        value = self.action_value(0, self.model.root).max(-1)
        return (self.model.root_mass[..., 0, :] * value).sum(-1)

    @property
    def alpha_vectors(self) -> Float[Array, "*B T N L S"]:
        """The α-vectors of `plans`, in units of reward.

        An entry is -inf if the plan takes an action that is not admissible after
        starting in that state.
        """
        horizon = self.plans.point.shape[-3]
        left = annuities(self.model.discount, horizon)[..., horizon - 1 :: -1]
        centre = self.units.centre[..., None] * left
        scale = self.units.scale[..., None, None, None, None]
        vector = self.plans.vector
        vector = jnp.where(impossible(vector), -jnp.inf, vector)
        return scale * vector + centre[..., None, None, None]

    def _lookahead(
        self, t: int | Int[Array, ""], x: Float[Array, "*B N S"]
    ) -> Float[Array, "*B N C"]:
        """Return the values of actions in the units of the plans."""
        batch, now = x.shape[:-2], jnp.asarray(t)
        after = jax.tree.map(lambda p: jnp.take(p, now, axis=len(batch)), self.plans)
        flat = jax.tree.map(
            lambda leaf: leaf.reshape(-1, *leaf.shape[len(batch) :]),
            (self.model, x, after),
        )

        def one(task: tuple[BeliefModel, Array, Plans]) -> Array:
            return action_values(at_stage(task[0], now), *task[1:], exact=True)

        value = jax.lax.map(one, flat)
        value = value.reshape(*batch, *value.shape[1:])
        mask = at_stage(self.model, now).admissible
        if mask is None:
            return value
        allowed = admissible_at(mask, x)
        infinite = jnp.asarray(-jnp.inf, value.dtype)
        return jnp.where(allowed & ~impossible(value), value, infinite)


def in_rewards(
    found: Refined, model: BeliefModel, units: Units, horizon: int
) -> Refined:
    """Convert the values of the roots to units of the rewards."""
    scale = np.asarray(units.scale)
    centre = np.asarray(units.centre * annuities(model.discount, horizon)[..., -1])
    return found._replace(
        lower=scale * found.lower + centre, upper=scale * found.upper + centre
    )


def plans_and_rounds(
    found: Refined, batch: tuple[int, ...], actions: tuple[int, ...]
) -> tuple[Plans, Array, Rounds]:
    """Return `plans`, `choice` and `rounds` of a solution, with the batch axes."""

    def to_the_end(name: str) -> Array:
        x = found.bounds[name][:, :, : found.tried[-1]]
        end = np.zeros((len(x), 1, *x.shape[2:]), x.dtype)
        return shaped(np.concatenate([x, end], axis=1), batch)

    choice = np.asarray(actions, np.int32)[found.bounds["choice"]]
    return (
        Plans(to_the_end("vector"), to_the_end("point")),
        shaped(choice[:, :, : found.tried[-1]], batch),
        Rounds(found.tried, shaped(found.lower.T, batch), shaped(found.upper.T, batch)),
    )


def flattened(tree: T, axes: int) -> T:
    """Merge the first `axes` axes of all arrays, the batch axes, into one."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[axes:]), tree)


def shaped(x: np.ndarray, batch: tuple[int, ...]) -> Array:
    """Split the leading axis of tasks into the batch axes."""
    return jnp.asarray(x.reshape((*batch, *x.shape[1:])))
