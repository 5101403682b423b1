"""What every solver over beliefs returns: α-vectors, and a policy that looks ahead."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.point_based import (
    BeliefModel,
    Interpolant,
    Refined,
    action_values,
)


class BeliefSolution(eqx.Module):
    """α-vectors of every stage, and the policy of looking one step ahead with them.

    Attributes:
        vector: α-vectors: V_t(b) is about vector[t, n]·b; stage T, the last, is zero.
        pick: n is where pick[t, n]·b is largest; None where `vector` itself decides.
        vector_action: the action that each α-vector takes first.
        model: the task, with actions that do the same merged.
        actions: the lowest index of each distinct action.

    """

    vector: Float[Array, "*B T+1 N S"]
    pick: Float[Array, "*B T+1 N S"] | None
    vector_action: Int[Array, "*B T N"]
    model: BeliefModel
    actions: tuple[int, ...] = eqx.field(static=True)

    def action(
        self, t: int | Int[Array, ""], x: Float[Array, "*B N S"]
    ) -> Int[Array, "*B N"]:
        """Actions at stage `t` in beliefs `x`, for N beliefs of every task."""
        best = self.action_value(t, x).argmax(-1)
        return jnp.asarray(self.actions, jnp.int32)[best]

    def action_value(
        self, t: int | Int[Array, ""], x: Float[Array, "*B N S"]
    ) -> Float[Array, "*B N C"]:
        """Value of each distinct action, looking one step ahead."""
        batch, after = x.shape[:-2], jnp.asarray(t) + 1
        found = (self.vector, self.pick)
        found = jax.tree.map(lambda v: jnp.take(v, after, axis=len(batch)), found)
        flat = jax.tree.map(
            lambda leaf: leaf.reshape(-1, *leaf.shape[len(batch) :]),
            (self.model, x, *found),
        )

        def one(task: tuple[BeliefModel, Array, Array, Array | None]) -> Array:
            model, belief, vector, pick = task
            value = Interpolant(vector, vector if pick is None else pick)
            return action_values(model, belief, value)

        value = jax.lax.map(one, flat)
        return value.reshape(*batch, *value.shape[1:])


def solution_fields(
    found: Refined, batch: tuple[int, ...], actions: tuple[int, ...], *, convex: bool
) -> dict[str, Array | None]:
    """The α-vectors of a refinement, as fields of a solution with leading axes."""
    count = found.points[found.used.max()]

    def through_the_end(x: np.ndarray) -> Array:
        x = x[:, :, :count]
        return shaped(np.concatenate([x, np.zeros_like(x[:, :1])], axis=1), batch)

    return {
        "vector": through_the_end(found.bounds.vector),
        "pick": None if convex else through_the_end(found.bounds.pick),
        "vector_action": shaped(
            np.asarray(actions, np.int32)[found.bounds.choice[:, :, :count]], batch
        ),
    }


def shaped(x: np.ndarray, batch: tuple[int, ...]) -> Array:
    """An array with one leading axis of tasks, with the batch's leading axes."""
    return jnp.asarray(x.reshape((*batch, *x.shape[1:])))


def relative_gap(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Width of an interval, relative to its larger end in absolute value."""
    scale = np.maximum(np.abs(lower), np.abs(upper))
    return (upper - lower) / np.where(scale > 0, scale, 1)
