r"""What decisions lose in models with mixed observability, by the plans of a solution.

The α-vectors of a solution define V_t(x, b), a lower bound on the optimal value. With
unnormalised beliefs w after action a, as in `momdp_search`,

    Q_t(x, b, a) = Σ_y b_y r(x, y, a) + γ Σ_{x',o} V_{t+1}(x', w_{x',o}).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.momdp import MOMDPSolution
from sdm.tasks.momdp import MOMDP, first_beliefs, rows_of
from sdm.tasks.rewards import agrees

Known = tuple[Int[Array, "B N"], Float[Array, "B N Y"]]  # visible values and beliefs


class PlansInModel(eqx.Module):
    """The plans of a solution, with the model in which they are worth something.

    Attributes:
        plan: the solution of a batch of tasks.
        model: the tasks, with one batch axis, or none but in `initial`.
        repeated: whether a list of successors has a value twice.

    """

    plan: MOMDPSolution
    model: MOMDP
    repeated: bool = eqx.field(static=True)

    def action(self, t: int | Int[Array, ""], x: Known) -> Int[Array, "B N"]:
        """Return the actions at stage `t`."""
        return self.plan.action(t, x)

    def promised(self) -> Float[Array, " B"]:
        """Return the expected value at stage 0 in each task."""
        root, mass = (jnp.asarray(x) for x in first_beliefs(self.model))

        def of_task(task: tuple[Array, Array, Array]) -> Array:
            vector, belief, chance = task
            value = jnp.einsum("xvy,xiy->xiv", vector, belief).max(-1)
            return (chance * value).sum()

        return jax.lax.map(of_task, (self.plan.first_vector, root, mass))

    def lost(
        self, t: int | Int[Array, ""], x: Known, action: Int[Array, "B N"]
    ) -> Float[Array, "B N"]:
        """Return V_t(x, b) - Q_t(x, b, a) of actions at stage `t`, task by task."""
        now, later = jnp.asarray(t), self.plan.vector.shape[-4]

        def of_task(task: tuple[Array, ...]) -> Array:
            place, state, belief, chosen = task
            first = self._values(self.plan.first_vector[place], state, belief)
            value = jnp.where(now > 0, self._at(now - 1, place, state, belief), first)
            paid = rows_of(self.model, "reward", place, state, slice(None), chosen)
            target, weight = self._after(place, state, belief, chosen)
            ahead = self._at(now, place, target, weight).sum(-1)
            future = jnp.where(now < later, ahead, jnp.zeros_like(ahead))
            factor = jnp.asarray(self.model.discount, future.dtype)
            return value - (belief * paid).sum(-1) - factor * future

        state, belief = x
        tasks = jnp.arange(len(state), dtype=jnp.int32)
        return jax.lax.map(of_task, (tasks, state, belief, action))

    def _at(self, entry: Array, task: Array, state: Array, weight: Array) -> Array:
        """Return values at later stages; 0 where there is no such stage."""
        vector = self.plan.vector
        if not vector.shape[-4]:
            return jnp.zeros(state.shape, weight.dtype)
        if vector.ndim == 5:
            vector = vector[task]
        stage = jnp.clip(entry, 0, vector.shape[0] - 1)
        return self._values(vector[stage], state, weight)

    @staticmethod
    def _values(vector: Array, state: Array, weight: Array) -> Array:
        """Return the values of the best α-vectors [X, V, Y] at weights [*N, Y]."""
        return jnp.einsum("...vy,...y->...v", vector[state], weight).max(-1)

    def _after(
        self,
        task: Int[Array, ""],
        state: Int[Array, " N"],
        belief: Float[Array, "N Y"],
        action: Int[Array, " N"],
    ) -> tuple[Int[Array, "N J"], Float[Array, "N J Y"]]:
        """Return what follows actions: next visible values and weights over y'."""
        model, every = self.model, slice(None)
        target = rows_of(model, "successors", task, state, action)
        chance = rows_of(model, "transition", task, state, every, action)
        weight = jnp.moveaxis(belief[..., None] * chance, -1, -2)  # [N, n, Y]
        if model.observes_reward:
            paid = rows_of(model, "reward", task, state, every, action)
            alike = _groups(paid)[:, :, None]  # [N, G, 1, Y]
            weight = alike * weight[:, None]
        else:
            weight = weight[:, None]
        if model.hidden_transition is not None:
            after = rows_of(model, "hidden_transition", task, state, every, action)
            weight = jnp.einsum("rgny,rynz->rgnz", weight, after)
        if self.repeated:  # the first of equal ones has the weight of all
            same = target[:, :, None] == target[:, None]
            first = same.argmax(-1) == np.arange(same.shape[-1])[None]
            whole = (same & first[..., None]).astype(weight.dtype)
            weight = jnp.einsum("rnm,rgmy->rgny", whole, weight)
        weight = weight[..., None, :]  # [N, G, n, 1, Y]
        if model.observation is not None:
            place = (jnp.broadcast_to(action[:, None], target.shape), target)
            shown = rows_of(model, "observation", task, *place)  # [N, n, Y, O]
            weight = weight * jnp.swapaxes(shown, -1, -2)[:, None]
        rows, hidden = len(state), weight.shape[-1]
        target = jnp.broadcast_to(target[:, None, :, None], weight.shape[:-1])
        return target.reshape(rows, -1), weight.reshape(rows, -1, hidden)


def _groups(paid: Float[Array, "N Y"]) -> Float[Array, "N G Y"]:
    """Return 1 where a hidden value is in a set of equal rewards, of G = Y sets."""
    first = agrees(paid[:, None, :], paid[:, :, None]).argmax(-1)  # [N, Y]
    sets: Any = jnp.arange(paid.shape[-1])[None, :, None]
    return (first[:, None] == sets).astype(paid.dtype)


def plans_in(plan: MOMDPSolution, model: MOMDP) -> PlansInModel:
    """Return the plans of a batch's solution in their model."""
    ordered = np.sort(np.asarray(model.listed()), axis=-1)
    return PlansInModel(plan, model, bool((np.diff(ordered, axis=-1) == 0).any()))
