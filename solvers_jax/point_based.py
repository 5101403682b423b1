r"""Kernels of point-based dynamic programming over beliefs, for one task.

One recursion serves POMDPs and ambiguous POMDPs (K models, attitude α; a POMDP has
K = 1):

    H_k(b,a) = b·r_a + γ Σ_o Pr_k(o|b,a) V_{t+1}(τ_k(b,a,o))
    V_t(b)   = max_a [ α min_k H_k(b,a) + (1 - α) max_k H_k(b,a) ]

**Plans (lower bound).** A backup at a point b chooses an action and a plan after each
symbol; the value of the result is linear in the belief, an α-vector. If V is convex
(K = 1 or α = 0), every such vector lies below V: their maximum is a certified lower
bound, and the value of one-step lookahead is at least as high (Pineau, Gordon, Thrun,
2003). Otherwise, a plan has one α-vector per model, and its value at a belief is α
times the worst plus 1 - α times the best of them. The mixture at later stages is that
of the point where the plan was made, so the value is an interpolation and not a bound.

**Upper bound**, for convex V only. Upper bounds are backed up at the points and at the
corners of the belief simplex. Between them, they are interpolated by the sawtooth
(Hauskrecht, 2000) and limited by the fast informed bound.

**Points** differ between stages: each stage has the beliefs that the greedy policy
reaches there, with priority to a large product of reach probability and gap.

The large products that only *select* (an α-vector, a sawtooth point, the action of a
plan) use single precision; the selected entry is evaluated in the precision of the
model. Every selection gives a valid bound, so this widens the bounds by about 1e-7. The
policy compares actions in the precision of the model.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.belief_backup import (
    Plans,
    action_values,
    all_successors,
    backup,
    mix,
)
from sdm.solvers_jax.belief_model import BeliefModel
from sdm.solvers_jax.belief_upper import Next, informed_bound, upper_action_values
from sdm.tasks.stages import at_stage, stage_numbers

# Beliefs with closer random projections are merged: far above the rounding of a Bayes
# update, and far below differences that affect a value.
SAME_BELIEF = 1e-9
# Weight of an action that is not greedy for the upper bound: its successors have a low
# priority.
OTHER_ACTIONS = 1e-3
OUTLIER = 10  # losses above this many medians are penalties
CANDIDATES = 16  # candidates of highest priority to compare, per new point
TINY = 1e-30  # avoids a division of zero by zero


class Bounds(eqx.Module):
    """Plans and upper bounds at N points of each stage, from stage 1.

    Attributes:
        point: beliefs.
        weight: approximate probability of reaching them; 0 for padding.
        vector: L α-vectors of the plan made at each point: one if V is convex,
            otherwise one per model.
        choice: the first action of each plan.
        upper: upper bound at the points.
        corner: upper bound at the corners of the belief simplex.

    """

    point: Float[Array, "*B U N S"]
    weight: Float[Array, "*B U N"]
    vector: Float[Array, "*B U N L S"]
    choice: Int[Array, "*B U N"]
    upper: Float[Array, "*B U N"]
    corner: Float[Array, "*B U S"]


def sweep(
    model: BeliefModel,
    point: Float[Array, "U N S"],
    weight: Float[Array, "U N"],
    *,
    convex: bool,
) -> Bounds:
    """Back up plans, and upper bounds if V is convex, from last to first stage."""
    later, count, states = point.shape
    informed = informed_bound(model, later + 1)
    corners = jnp.eye(states, dtype=point.dtype)

    def stage(after: Next, now: tuple[Array, ...]) -> tuple[Next, tuple[Array, ...]]:
        here, known, t = now
        task = at_stage(model, t)
        vector, choice = backup(task, here, after.plans)
        both = jnp.concatenate([here, corners])
        bound = (both @ known).max(-1)
        if convex:
            above, _, _ = upper_action_values(task, both, after)
            bound = jnp.minimum(bound, above.max(-1))
        upper, corner = bound[:count], bound[count:]
        found = (vector, choice, upper, corner)
        return Next(Plans(vector, here), upper, corner, known), found

    after_all = _after_all(model, count, convex=convex)
    every = (point, informed[1:-1], stage_numbers(later, first=1))
    _, found = jax.lax.scan(stage, after_all, every, reverse=True)
    return Bounds(point, weight, *found)


def _after_all(model: BeliefModel, count: int, *, convex: bool) -> Next:
    """Return the stage after the last decision, where all values are zero."""
    states, actions = model.reward.shape[-2:]
    kind = model.reward.dtype
    parts = 1 if convex else len(model.root_mass)
    return Next(
        plans=Plans(
            jnp.zeros((count, parts, states), kind),
            jnp.full((count, states), 1 / states, kind),
        ),
        upper=jnp.zeros(count, kind),
        corner=jnp.zeros(states, kind),
        informed=jnp.zeros((states, actions), kind),
    )


def _after_first(model: BeliefModel, bounds: Bounds, *, convex: bool) -> Next:
    """Return the stage after the decision at stage 0."""
    later, count, _ = bounds.point.shape
    if not later:
        return _after_all(model, count, convex=convex)
    return Next(
        Plans(bounds.vector[0], bounds.point[0]),
        bounds.upper[0],
        bounds.corner[0],
        informed_bound(model, later, first=1)[0],
    )


def start(model: BeliefModel, *, horizon: int, convex: bool) -> Bounds:
    """Return bounds with the initial beliefs of model 1 as points of every stage."""
    first = model.root[: model.root_mass.shape[1]]
    point = jnp.broadcast_to(first, (horizon - 1, *first.shape))
    return sweep(model, point, jnp.zeros_like(point[..., 0]), convex=convex)


def expand(
    model: BeliefModel, bounds: Bounds, *, new: int, convex: bool, fresh: bool
) -> Bounds:
    """Add `new` points to every stage, and sweep.

    Candidates are the beliefs that greedy actions reach; those with the largest product
    of probability and gap are added. If V is not convex, the distance to the nearest
    existing point replaces the gap; with `fresh`, only the probability counts.
    """
    later, _, states = bounds.point.shape
    informed = informed_bound(model, later + 1)

    def candidates(task: BeliefModel, point: Array, weight: Array, there: Next) -> Any:
        """Return successor beliefs, their probability and their priority."""
        if convex:
            value, above, reached = upper_action_values(task, point, there)
            best = value == value.max(-1, keepdims=True)
            taste = jnp.where(best, 1.0, OTHER_ACTIONS)
        else:
            value = action_values(task, point, there.plans)
            loss = value.max(-1, keepdims=True) - value
            taste = jax.nn.softmax(-loss / _typical_loss(loss), axis=-1)
            reached = all_successors(task, point)
        share = weight[:, None, None, None] * taste[:, None, :, None]
        mass = reached.sum(-1)
        some = jnp.where(mass > 0, mass, 1)
        belief = (reached / some[..., None]).reshape(-1, states)
        reach = (share * mass / mass.shape[1]).reshape(-1)
        if fresh:
            return belief, reach, reach
        if convex:
            below = (reached @ there.plans.vector[:, 0].T).max(-1)
            gap = ((above - below) / some).reshape(-1)
        else:
            square = (belief**2).sum(-1)[:, None] + (there.plans.point**2).sum(-1)[None]
            gap = jnp.sqrt(
                jnp.maximum((square - 2 * belief @ there.plans.point.T).min(-1), 0)
            )
        return belief, reach, reach * jnp.maximum(gap, 0)

    def stage(
        now: tuple[Array, Array], after: tuple[Any, ...]
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        there, weight, t = Next(*after[:-2]), *after[-2:]
        belief, reach, want = candidates(at_stage(model, t), *now, there)
        grown = add_points(there.plans.point, weight, belief, reach, want, new)
        return grown, grown

    plans = Plans(bounds.vector, bounds.point)
    known = (plans, bounds.upper, bounds.corner, informed[1:-1])
    point, weight = bounds.point, bounds.weight
    if later == 0:
        point, weight = (
            jnp.zeros((0, point.shape[1] + new, *x.shape[2:]), x.dtype)
            for x in (point, weight)
        )
    else:
        begin = (model.root, model.root_mass.reshape(-1) / len(model.root_mass))
        every = (*known, weight, stage_numbers(later))
        first = jax.tree.map(lambda x: x[0], every)
        now, found = stage(begin, first)
        rest = jax.tree.map(lambda x: x[1:], every)
        _, more = jax.lax.scan(stage, now, rest)
        point, weight = (
            jnp.concatenate([a[None], b]) for a, b in zip(found, more, strict=True)
        )
    return sweep(model, point, weight, convex=convex)


def _typical_loss(loss: Float[Array, "N A"]) -> Float[Array, ""]:
    """Return the mean loss of an action, without the outliers of large penalties."""
    median = jnp.nan_to_num(jnp.nanmedian(jnp.where(loss > 0, loss, jnp.nan)))
    return jnp.maximum(jnp.minimum(loss, OUTLIER * median).mean(), TINY)


def add_points(
    point: Float[Array, "N S"],
    weight: Float[Array, " N"],
    belief: Float[Array, "C S"],
    reach: Float[Array, " C"],
    want: Float[Array, " C"],
    new: int,
) -> tuple[Float[Array, "M S"], Float[Array, " M"]]:
    """Add the `new` candidates of highest priority to the points and their weights.

    Equal candidates are merged, with their probabilities added. A candidate equal to an
    existing point is not added; the point's weight becomes the larger of the two.
    """
    if len(belief) > CANDIDATES * new:  # sorting all of them would be slow
        _, kept = _most(want, CANDIDATES * new)
        belief, reach, want = belief[kept], reach[kept], want[kept]
    if len(belief) < new:  # few symbols: pad with candidates of priority 0
        short = new - len(belief)
        belief = jnp.concatenate([belief, jnp.repeat(belief[:1], short, 0)])
        reach, want = (jnp.pad(x, (0, short)) for x in (reach, want))
    states = point.shape[-1]
    project = jnp.cos(jnp.arange(1, states + 1, dtype=point.dtype) ** 2)
    mark, known = belief @ project, point @ project
    order = jnp.argsort(mark)
    mark, belief = mark[order], belief[order]
    head = jnp.concatenate([jnp.ones(1, bool), jnp.diff(mark) > SAME_BELIEF])
    group = jnp.cumsum(head) - 1
    reach, want = (
        jax.ops.segment_sum(x[order], group, num_segments=len(mark))[group]
        for x in (reach, want)
    )

    def find(sorted_marks: Array, wanted: Array) -> tuple[Array, Array]:
        at = jnp.searchsorted(sorted_marks, wanted - SAME_BELIEF)
        at = jnp.clip(at, 0, len(sorted_marks) - 1)
        return at, jnp.abs(sorted_marks[at] - wanted) <= SAME_BELIEF

    _, present = find(jnp.sort(known), mark)
    at, found = find(mark, known)
    weight = jnp.where(found, jnp.maximum(weight, reach[at]), weight)
    score, top = _most(jnp.where(head & ~present, want, 0), new)
    chance = jnp.where(score > 0, reach[top], 0)
    return jnp.concatenate([point, belief[top]]), jnp.concatenate([weight, chance])


def _most(
    want: Float[Array, " C"], count: int
) -> tuple[Float[Array, " M"], Int[Array, " M"]]:
    """Return the largest entries and their indices; fast in XLA only for float32."""
    most, where = jax.lax.top_k(want.astype(jnp.float32), count)
    return most, where


def root_values(
    model: BeliefModel, bounds: Bounds, *, convex: bool
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return lower and upper values before the first observation."""
    after, now = _after_first(model, bounds, convex=convex), at_stage(model, 0)

    def before_seeing(value: Array) -> Array:
        expected = (value.reshape(model.root_mass.shape) * model.root_mass).sum(-1)
        return mix(model.alpha, expected.min(), expected.max())

    nothing = jnp.asarray(jnp.nan, model.reward.dtype)
    if not len(bounds.point):
        # With one decision, avoid products with constant zeros, for which XLA computes
        # wrong results on a CPU (jax 0.10.2).
        exact = before_seeing((model.root @ now.reward).max(-1))
        return exact, exact if convex else nothing
    if not convex:
        value = action_values(now, model.root, after.plans, exact=True)
        return before_seeing(value.max(-1)), nothing
    reached = all_successors(now, model.root)
    score = (reached @ after.plans.vector[:, 0].T).max(-1).sum(-1).max(1)
    lower = before_seeing((model.root @ now.reward + model.discount * score).max(-1))
    upper, _, _ = upper_action_values(now, model.root, after)
    known = model.root @ informed_bound(model, len(bounds.point) + 1)[0]
    return lower, before_seeing(jnp.minimum(upper, known).max(-1))
