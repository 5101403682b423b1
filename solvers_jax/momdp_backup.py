"""Backups over a visible value and a belief over hidden values, for a whole stage.

These are the kernels of `momdp`. Their inputs are the lists of `momdp_moves`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.belief_backup import largest
from sdm.solvers_jax.momdp_moves import CHUNK, Moves

# Smallest probability in single-precision comparisons, and a finite infinity.
TINY, FAR = 1e-30, 1e30
SHORT = 8  # hidden values: sums over so few are faster than a matrix product
BLOCK = 1 << 16  # entries of the products that are made at once: they stay in cache


class Stage(NamedTuple):
    """Plans and upper bounds of a stage, at N beliefs of each visible value.

    There are V = N + Y plans: one made at each belief, and one for each hidden value,
    as if it were certain.

    Attributes:
        point: the beliefs.
        vector: α-vector of each plan.
        choice: the first action of each plan.
        upper: upper bound at each belief.
        hopeful: the action with the largest upper bound.
        drop: upper bound minus the bound from the corners, at most 0.
        corner: upper bound at the corners of the belief simplex.

    """

    point: Float[Array, "S N Y"]
    vector: Float[Array, "S V Y"]
    choice: Int[Array, "S V"]
    upper: Float[Array, "S N"]
    hopeful: Int[Array, "S N"]
    drop: Float[Array, "S N"]
    corner: Float[Array, "S Y"]


def after_the_last(model: Moves, points: int) -> Stage:
    """Return the stage after the last decision, where all values are zero."""
    states, _, hidden = model.reward.shape
    point = jnp.full((states, points, hidden), 1 / hidden, model.reward.dtype)
    nothing = jnp.zeros_like(point[..., 0])
    none = jnp.zeros((states, points + hidden), jnp.int32)
    vector = jnp.zeros((states, points + hidden, hidden), point.dtype)
    return Stage(point, vector, none, nothing, none[:, :points], nothing, vector[:, 0])


def carried(belief: Float[Array, "N Y"], chance: Array) -> Float[Array, "N Y"]:
    """Return beliefs times the probability of a move, and of y after it."""
    return belief * chance[None] if chance.ndim == 1 else belief @ chance


def _products(a: Float[Array, "N Y"], b: Float[Array, "V Y"]) -> Float[Array, "N V"]:
    """Return all products of two sets of vectors."""
    hidden = a.shape[-1]
    if hidden > SHORT:
        return a @ b.T
    return sum(
        (a[:, y, None] * b[None, :, y] for y in range(1, hidden)),
        a[:, 0, None] * b[None, :, 0],
    )


def _sawtooth(
    mass: Float[Array, "R Y"], point: Float[Array, "N Y"], drop: Float[Array, " N"]
) -> Float[Array, " R"]:
    """Return sawtooth minus the bound from the corners, at unnormalised beliefs."""
    seen = point.T > TINY
    inverse = jnp.where(seen, 1 / jnp.where(seen, point.T, 1), 0).astype(jnp.float32)
    beyond = jnp.where(seen, 0, FAR).astype(jnp.float32)
    narrow = mass.T.astype(jnp.float32)

    def least(y: Array | int, share: Array) -> Array:
        here = narrow[y][:, None] * inverse[y][None] + beyond[y][None]
        return jnp.minimum(share, here)

    share = jnp.full((len(mass), len(point)), FAR, jnp.float32)
    if len(inverse) <= SHORT:
        for y in range(len(inverse)):
            share = least(y, share)
    else:
        share = jax.lax.fori_loop(0, len(inverse), least, share, unroll=8)
    _, at = largest(-share * drop.astype(jnp.float32)[None])
    chosen = point[at]
    exact = jnp.where(chosen > 0, mass / jnp.where(chosen > 0, chosen, 1), FAR).min(-1)
    return exact * drop[at]


def _bounds(
    mass: Float[Array, "R Y"], model: Moves, x: Array, informed: Array, stage: Stage
) -> tuple[Float[Array, " R"], Int[Array, " R"], Float[Array, " R"]]:
    """Return the lower bound at `x`, the plan that attains it, and the upper bound."""
    vector = stage.vector[x].astype(jnp.float32)
    low, plan = largest(_products(mass.astype(jnp.float32), vector))
    above = _products(mass, stage.corner[x][None])[:, 0]
    above += _sawtooth(mass, stage.point[x], stage.drop[x])
    known = (_products(mass, informed[x]) + model.barred[x][None]).max(-1)
    return low.astype(mass.dtype), plan, jnp.minimum(known, above)


def _together(entries: int) -> int:
    """Return the number of products of so many entries to make at once."""
    return max(1, min(CHUNK, BLOCK // max(1, entries)))


@jax.jit
def gap_at(
    model: Moves, t: Int[Array, ""], belief: Float[Array, "S C Y"], stage: Stage
) -> Float[Array, "S C"]:
    """Return the distance of the bounds at beliefs of stage `t`."""

    def of_state(x: Array) -> Array:
        low, _, high = _bounds(belief[x], model, x, model.informed[t], stage)
        return high - low

    size = _together(belief.shape[1] * stage.vector.shape[1])
    return jax.lax.map(of_state, jnp.arange(len(belief)), batch_size=size)


@jax.jit
def backup(
    model: Moves, t: Int[Array, ""], belief: Float[Array, "S N Y"], after: Stage
) -> Stage:
    """Back up plans and upper bounds at beliefs of stage `t`."""
    states, points, hidden = belief.shape
    here = belief
    if not model.constant:  # bounds at the corners are not known, and backed up
        corners = jnp.eye(hidden, dtype=belief.dtype)
        every = jnp.broadcast_to(corners, (states, hidden, hidden))
        here = jnp.concatenate([belief, every], axis=1)
    informed = model.informed[t + 1]

    def of_move(move: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        origin, target, chance = move
        mass = carried(here[origin], chance)
        return _bounds(mass, model, target, informed, after)

    size = _together(here.shape[1] * after.vector.shape[1])
    size = 1 << (size.bit_length() - 1)  # which divides the number of moves
    moves = (model.origin, model.target, model.chance)
    low, met, high = jax.lax.map(of_move, moves, batch_size=size)
    # After the reward tells the hidden value, its own optimal plan follows.
    known = model.reward + model.alone * (model.informed[t] - model.reward)
    paid = jnp.einsum("sny,say->sna", here, known) + model.barred[:, None]

    def of_actions(each: Float[Array, "L N"]) -> Float[Array, "S N A"]:
        future = each[model.lists].sum(2)
        return paid + model.discount * jnp.swapaxes(future, 1, 2)

    choice, above = of_actions(low).argmax(-1).astype(jnp.int32), of_actions(high)
    best = jnp.einsum("sny,say->sna", here, model.informed[t]) + model.barred[:, None]
    upper = jnp.minimum(above.max(-1), best.max(-1))
    if model.constant:
        certain = model.informed[t] + model.barred[..., None]
        corner, own = certain.max(1), certain.argmax(1).astype(jnp.int32)
        choice = jnp.concatenate([choice, own], axis=1)
        # Plan N + y continues with itself after every observation.
        same = after.point.shape[1] + jnp.arange(hidden, dtype=met.dtype)
        same = jnp.broadcast_to(same, (len(met), hidden))
        met = jnp.concatenate([met, same], axis=1)
    else:
        upper, corner = upper[:, :points], upper[:, points:]
    full = jnp.einsum("sny,sy->sn", belief, corner)
    upper = jnp.minimum(upper, full)
    vector = _vectors(model, known, choice, met, after)
    hopeful = above[:, :points].argmax(-1).astype(jnp.int32)
    return Stage(belief, vector, choice, upper, hopeful, upper - full, corner)


def _vectors(
    model: Moves,
    known: Float[Array, "S A Y"],
    choice: Int[Array, "S V"],
    met: Int[Array, "L V"],
    after: Stage,
) -> Float[Array, "S V Y"]:
    """Return the α-vectors of plans with these first actions and later plans."""
    plans = choice.shape[1]
    column = jnp.arange(plans)[:, None]

    def of_state(x: Array) -> Array:
        taken = model.lists[x, choice[x]]  # [V, D]
        later = after.vector[model.target[taken], met[taken, column]]
        chance = model.chance[taken]
        if model.constant:
            future = (chance * later).sum(1)
        else:
            future = (chance * later[..., None, :]).sum((1, -1))
        return known[x, choice[x]] + model.discount * future

    # Few at once: the successors of all plans would not fit in memory.
    _, _, width = model.lists.shape
    size = _together(plans * width * model.chance[0].size)
    return jax.lax.map(of_state, jnp.arange(len(choice)), batch_size=size)


def plan_cost(
    model: Moves, *, roots: int, horizon: int, points: int
) -> tuple[int, float]:
    """Estimate the cost of planning.

    Args:
        model: lists of moves.
        roots: first beliefs of each visible value.
        horizon: number of decisions T.
        points: beliefs per stage and visible value.

    Returns:
        The memory in bytes, and the number of operations (multiply-adds and minima) of
        one sweep over all stages.

    """
    states, actions, hidden = model.reward.shape
    moves, width = len(model.origin), model.lists.shape[-1]
    backed = points if model.constant else points + hidden
    plans = points + hidden
    stages = horizon * states * hidden * (points + 2 * plans)  # and the policy's own
    held = model.chance.size + 3 * moves * plans + states * actions * width * backed
    compared = states * hidden * (8 * points + 2 * roots + 2 * points * width)
    memory = int(model.reward.dtype.itemsize * (stages + held + compared))
    beliefs = (horizon - 1) * backed + roots
    return memory, float(moves * beliefs * (points + plans) * hidden)
