"""One-step lookahead and backups of α-vectors at beliefs, for one task at a time.

`point_based` states the recursion, and where a backed-up plan is a lower bound.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.belief_model import BeliefModel

# Squared distance within which a belief equals a plan's point in single precision.
SAME_PLAN = 1e-6
FAR = 1e30  # a finite infinity, to avoid infinity times zero
# Beliefs that are compared with all plans or points at once: the comparisons then stay
# in a processor's cache.
AT_ONCE = 256
LANES = 16  # numbers of single precision in a processor's widest vector


class Plans(NamedTuple):
    """Plans of one stage: their α-vectors, and the beliefs at which they were made."""

    vector: Float[Array, "*B N L S"]
    point: Float[Array, "*B N S"]


def mix(alpha: Array, worst: Array, best: Array) -> Array:
    """Return α times the worst plus 1 - α times the best; exact if they are equal."""
    return best + alpha * (worst - best)


def successors(
    belief: Float[Array, "N S"],
    transition: Float[Array, "S A S"],
    observation: Float[Array, "A S O"],
) -> Float[Array, "N A O S"]:
    """Return beliefs after each action and symbol, times the symbol's probability."""
    predicted = jnp.einsum("ns,sam->nam", belief, transition)
    return predicted[:, :, None, :] * jnp.swapaxes(observation, -1, -2)[None]


def all_successors(
    model: BeliefModel, belief: Float[Array, "N S"]
) -> Float[Array, "N K A O S"]:
    """Return the unnormalised successors of beliefs under every model."""
    each = jax.vmap(successors, in_axes=(None, 0, 0), out_axes=1)
    return each(belief, model.transition, model.observation)


def largest(
    scores: Float[Array, "..."], *, axis: int = -1
) -> tuple[Float[Array, "..."], Int[Array, "..."]]:
    """Return the largest entries along an axis, and their indices; ties go to the last.

    On a CPU, this is several times faster than XLA's argmax, which does not vectorise.
    The first axis is the fastest.
    """
    top = scores.max(axis, keepdims=True)
    axis %= scores.ndim
    index = jax.lax.broadcasted_iota(jnp.float32, scores.shape, axis)
    at = jnp.where(scores == top, index, jnp.float32(-1)).max(axis)
    return top.squeeze(axis), at.astype(jnp.int32)


def by_columns(
    function: Callable[[Float[Array, "S W"]], Any], rows: Float[Array, "M S"]
) -> Any:
    """Apply a function to beliefs as columns, a block at a time.

    Args:
        function: from W beliefs to arrays with a last axis of W entries.
        rows: the beliefs.

    """
    count, states = rows.shape
    blocks = max(1, -(-count // AT_ONCE))
    size = -(-count // (blocks * LANES)) * LANES  # blocks of equal size pad the least
    rows = jnp.pad(rows, ((0, blocks * size - count), (0, 0)))
    columns = jnp.swapaxes(rows.reshape(blocks, size, states), 1, 2)
    found = jax.lax.map(function, columns)
    return jax.tree.map(lambda x: x.reshape(-1)[:count], found)


def lookahead(
    model: BeliefModel,
    belief: Float[Array, "N S"],
    plans: Plans,
    *,
    exact: bool = False,
) -> tuple[Float[Array, "N K A"], Int[Array, "N K A O"]]:
    """Return H_k(b, a), and the plan of the next stage after each symbol.

    Each successor belief uses the best plan. If V is not convex, plans made at other
    points can have overestimated values, so that a belief at which a plan was made uses
    that plan.

    Args:
        model: the task.
        belief: N beliefs.
        plans: plans of the next stage.
        exact: whether to use the precision of the model, to act or to report a value;
            else single precision, which is enough to choose a plan.

    """
    count, parts, states = plans.vector.shape
    kind = model.reward.dtype if exact else jnp.float32
    # Models come first, so that reductions over models vectorise.
    vector = jnp.swapaxes(plans.vector, 0, 1).reshape(-1, states)
    if not exact and model.admissible is not None:
        vector = jnp.maximum(vector, -FAR)  # a finite penalty in single precision
    vector = vector.astype(kind)
    point, weight = plans.point.astype(kind), model.alpha.astype(kind)

    def best(reached: Array) -> tuple[Array, Array]:
        """Return the values of successors, times their probability, and their plans."""
        score = vector @ reached
        if parts == 1:
            return largest(score, axis=0)
        score = score.reshape(parts, count, -1)
        score = mix(weight, score.min(0), score.max(0))
        mass = reached.sum(0, keepdims=True)
        square = (reached**2).sum(0, keepdims=True)
        length = (point**2).sum(-1, keepdims=True)
        far = square - 2 * mass * (point @ reached) + mass**2 * length
        here = far < SAME_PLAN * mass**2
        _, index = largest(jnp.where(here, FAR, score), axis=0)
        return jnp.take_along_axis(score, index[None], axis=0)[0], index

    def one(p: Array, z: Array) -> tuple[Array, Array]:
        reached = successors(belief, p, z).astype(kind)
        flat = reached.reshape(-1, states)
        value, index = by_columns(best, flat)
        shape = reached.shape[:-1]
        return value.reshape(shape).sum(-1), index.reshape(shape)

    future, index = jax.lax.map(
        lambda k: one(*k), (model.transition, model.observation)
    )
    paid = (belief @ model.reward)[:, None, :]
    gain = jnp.moveaxis(future, 0, 1).astype(paid.dtype)
    return paid + model.discount * gain, jnp.moveaxis(index, 0, 1)


def action_values(
    model: BeliefModel,
    belief: Float[Array, "N S"],
    plans: Plans,
    *,
    exact: bool = False,
) -> Float[Array, "N A"]:
    """Return the α-MEU of each action by one-step lookahead; see `lookahead`."""
    value, _ = lookahead(model, belief, plans, exact=exact)
    return mix(model.alpha, value.min(1), value.max(1))


def backup(
    model: BeliefModel, belief: Float[Array, "N S"], plans: Plans
) -> tuple[Float[Array, "N L S"], Int[Array, " N"]]:
    """Return new plans at `belief`, and their actions; ties go to the lowest action."""
    value, index = lookahead(model, belief, plans)
    choice = mix(model.alpha, value.min(1), value.max(1)).argmax(-1)
    row, every = jnp.arange(len(belief)), jnp.arange(len(model.transition))
    met = plans.vector[index[row, :, choice]]  # [N, K, O, L, S]
    shown = jnp.moveaxis(model.observation[:, choice], 0, 1)  # [N, K, S, O]
    if met.shape[-2] == 1:
        met = met[..., 0, :]
    else:  # mix the worst and the best model of the plan at the successor belief
        moved = jnp.einsum("ns,ksam->nkam", belief, model.transition)[row, :, choice]
        reached = moved[:, :, None] * jnp.swapaxes(shown, -1, -2)  # [N, K, O, S]
        part = jnp.einsum("nkos,nkols->nkol", reached, met)

        def at(which: Array) -> Array:
            return jnp.take_along_axis(met, which[..., None, None], axis=-2)[..., 0, :]

        met = mix(model.alpha, at(part.argmin(-1)), at(part.argmax(-1)))
    future = jnp.einsum("nkmo,nkom->nkm", shown, met)
    # Compute all actions, then select: this avoids a copy of the transition per belief.
    back = jnp.einsum("ksam,nkm->nkas", model.transition, future)[
        row[:, None], every, choice[:, None]
    ]
    plan = model.reward.T[choice][:, None] + model.discount * back  # [N, K, S]
    if (
        met.shape[1] > plans.vector.shape[1]
    ):  # V is convex: the best model, that is α = 0
        taken = jnp.take_along_axis(value, choice[:, None, None], axis=-1)[..., 0]
        plan = jnp.take_along_axis(plan, taken.argmax(-1)[:, None, None], axis=1)
    return plan, choice.astype(jnp.int32)
