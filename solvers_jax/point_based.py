r"""Point-based dynamic programming over beliefs: the kernels, for one task at a time.

One recursion serves POMDPs and ambiguous POMDPs (K models, attitude α; a POMDP has
K = 1):

    H_k(b,a) = b·r_a + γ Σ_o Pr_k(o|b,a) V_{t+1}(τ_k(b,a,o))
    V_t(b)   = max_a [ α min_k H_k(b,a) + (1 - α) max_k H_k(b,a) ]

**Plans from below.** A backup at a point b chooses an action and, for each symbol, how
to go on; that plan is linear in the belief, an α-vector. Where V is convex (K = 1, or
α = 0) every such vector lies below V: their maximum is a certified lower bound, and the
value of acting by one-step lookahead is at least as high (Pineau, Gordon, Thrun, 2003).
Elsewhere a plan keeps one α-vector for each model, and counts as α times the worst plus
1 - α times the best of them at the belief in question. Its later stages were weighed at
the point where it was made, so this is an interpolation, and no bound.

**Values from above**, for convex V only. At the points and at the corners of the
simplex an upper bound is backed up; between them it is interpolated by the sawtooth
(Hauskrecht, 2000), and nowhere exceeds the fast informed bound.

**Points are layered**: every stage has its own, the beliefs that greedy play reaches
there, most wanted where reach probability times gap is largest.

The large products that only *choose* (which α-vector, which sawtooth point) are done in
single precision; what is chosen is then evaluated in the precision of the model. Any
choice gives a valid bound, so this costs tightness (of the order 1e-7) and never truth.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.belief_model import BeliefModel

# Beliefs closer than this in a random projection are one belief: far above the rounding
# of a Bayes update, far below any difference that matters to a value.
SAME_BELIEF = 1e-9
# What the chance of an action counts for that is not the best by the upper bound: its
# successors are wanted once there is room.
OTHER_ACTIONS = 1e-3
# Squared distance within which a belief is at a plan's own, as far as single precision
# can tell.
SAME_PLAN = 1e-6
# So many candidates for each new point are compared; the others are wanted less.
CANDIDATES = 16
TINY = 1e-30  # keeps a quotient of zeros a number
FAR = 1e30  # stands for infinity where infinity times zero would be no number


class Bounds(eqx.Module):
    """What is known at N points of each stage after the first, stage 1 leading.

    Attributes:
        point: beliefs.
        weight: probability of reaching them, roughly; 0 marks padding.
        vector: α-vectors of the plan made at each point: L of them, one where V is
            convex, otherwise one for each model.
        choice: the action that each plan takes first.
        upper: upper bound at the points.
        corner: upper bound where the state is certain.

    """

    point: Float[Array, "*B U N S"]
    weight: Float[Array, "*B U N"]
    vector: Float[Array, "*B U N L S"]
    choice: Int[Array, "*B U N"]
    upper: Float[Array, "*B U N"]
    corner: Float[Array, "*B U S"]


class Plans(NamedTuple):
    """What V is made of at one stage: α-vectors, and the beliefs they were made for."""

    vector: Float[Array, "*B N L S"]
    point: Float[Array, "*B N S"]


class _Next(NamedTuple):
    """What a backup needs to know of the stage after."""

    plans: Plans
    upper: Float[Array, " N"]
    corner: Float[Array, " S"]
    informed: Float[Array, "S A"]


def mix(alpha: Array, worst: Array, best: Array) -> Array:
    """α times the worst plus 1 - α times the best; exact where they are equal."""
    return best + alpha * (worst - best)


def successors(
    belief: Float[Array, "N S"],
    transition: Float[Array, "S A S"],
    observation: Float[Array, "A S O"],
) -> Float[Array, "N A O S"]:
    """Beliefs after each action and symbol, times the probability of the symbol."""
    predicted = jnp.einsum("ns,sam->nam", belief, transition)
    return predicted[:, :, None, :] * jnp.swapaxes(observation, -1, -2)[None]


def all_successors(
    model: BeliefModel, belief: Float[Array, "N S"]
) -> Float[Array, "N K A O S"]:
    """The successors of beliefs under every model."""
    each = jax.vmap(successors, in_axes=(None, 0, 0), out_axes=1)
    return each(belief, model.transition, model.observation)


def largest(
    scores: Float[Array, "*B N"],
) -> tuple[Float[Array, "*B"], Int[Array, "*B"]]:
    """The largest entry and its index; the last of equal ones.

    Several times faster on a CPU than XLA's argmax, which does not vectorise.
    """
    top = scores.max(-1)
    index = jax.lax.broadcasted_iota(jnp.float32, scores.shape, scores.ndim - 1)
    at = jnp.where(scores == top[..., None], index, jnp.float32(-1)).max(-1)
    return top, at.astype(jnp.int32)


def lookahead(
    model: BeliefModel, belief: Float[Array, "N S"], plans: Plans
) -> tuple[Float[Array, "N K A"], Int[Array, "N K A O"]]:
    """H_k(b, a), and which plan of the next stage each symbol meets.

    A belief meets the best plan. Where V is not convex, plans made elsewhere can look
    better than they are, so a belief at which a plan was made meets that one.
    """
    count, parts, states = plans.vector.shape
    # All plans of one model after another: reductions over models then vectorise.
    vector = jnp.swapaxes(plans.vector, 0, 1).reshape(-1, states).astype(jnp.float32)
    point, weight = plans.point.astype(jnp.float32), model.alpha.astype(jnp.float32)

    def one(p: Array, z: Array) -> tuple[Array, Array]:
        reached = successors(belief, p, z).astype(jnp.float32)
        score = reached @ vector.T
        if parts == 1:
            value, index = largest(score)
            return value.sum(-1), index
        score = score.reshape(*score.shape[:-1], parts, count)
        score = mix(weight, score.min(-2), score.max(-2))
        mass = reached.sum(-1, keepdims=True)
        square = (reached**2).sum(-1, keepdims=True)
        length = (point**2).sum(-1)[None, None, None]
        far = square - 2 * mass * (reached @ point.T) + mass**2 * length
        here = far < SAME_PLAN * mass**2
        _, index = largest(jnp.where(here, FAR, score))
        value = jnp.take_along_axis(score, index[..., None], axis=-1)[..., 0]
        return value.sum(-1), index

    future, index = jax.lax.map(
        lambda k: one(*k), (model.transition, model.observation)
    )
    paid = (belief @ model.reward)[:, None, :]
    gain = jnp.moveaxis(future, 0, 1).astype(paid.dtype)
    return paid + model.discount * gain, jnp.moveaxis(index, 0, 1)


def action_values(
    model: BeliefModel, belief: Float[Array, "N S"], plans: Plans
) -> Float[Array, "N A"]:
    """α-MEU value of each action by one-step lookahead."""
    value, _ = lookahead(model, belief, plans)
    return mix(model.alpha, value.min(1), value.max(1))


def backup(
    model: BeliefModel, belief: Float[Array, "N S"], plans: Plans
) -> tuple[Float[Array, "N L S"], Int[Array, " N"]]:
    """New plans at `belief`, and their actions; ties go to the lowest action."""
    value, index = lookahead(model, belief, plans)
    choice = mix(model.alpha, value.min(1), value.max(1)).argmax(-1)
    row, every = jnp.arange(len(belief)), jnp.arange(len(model.transition))
    met = plans.vector[index[row, :, choice]]  # [N, K, O, L, S]
    shown = jnp.moveaxis(model.observation[:, choice], 0, 1)  # [N, K, S, O]
    if met.shape[-2] == 1:
        met = met[..., 0, :]
    else:  # what the plan is worth there decides which of its models count
        moved = jnp.einsum("ns,ksam->nkam", belief, model.transition)[row, :, choice]
        reached = moved[:, :, None] * jnp.swapaxes(shown, -1, -2)  # [N, K, O, S]
        part = jnp.einsum("nkos,nkols->nkol", reached, met)

        def at(which: Array) -> Array:
            return jnp.take_along_axis(met, which[..., None, None], axis=-2)[..., 0, :]

        met = mix(model.alpha, at(part.argmin(-1)), at(part.argmax(-1)))
    future = jnp.einsum("nkmo,nkom->nkm", shown, met)
    # Every action, then the one wanted: no copy of a transition for each belief.
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


def informed_bound(model: BeliefModel, horizon: int) -> Float[Array, "U S A"]:
    """Fast informed bound (Hauskrecht, 2000): Q_t(s, a) with the state known now.

    Stage 0 first, and after the last decision zeros.
    """

    def stage(q: Array, _: None) -> tuple[Array, Array]:
        def one(p: Array, z: Array) -> Array:
            weighed = z[..., None] * q[None, :, None, :]  # [A, S', O, A']
            return jnp.einsum("sam,amoc->saoc", p, weighed).max(-1).sum(-1)

        future = jax.vmap(one)(model.transition, model.observation).max(0)
        q = model.reward + model.discount * future
        return q, q

    last = jnp.zeros_like(model.reward)
    _, stages = jax.lax.scan(stage, last, length=horizon)
    return jnp.concatenate([stages[::-1], last[None]])


def sawtooth(
    mass: Float[Array, "M S"],
    point: Float[Array, "N S"],
    upper: Float[Array, " N"],
    corner: Float[Array, " S"],
) -> Float[Array, " M"]:
    """Upper bound at unnormalised beliefs, from values at points and corners."""
    drop = jnp.minimum(upper - point @ corner, 0)
    possible = point > 0
    inverse = jnp.where(possible, 1 / jnp.where(possible, point, 1), 0)
    # Which point is chosen in single precision, where smaller entries do not exist.
    seen = point > TINY
    small = jnp.where(seen, inverse, 0).astype(jnp.float32)
    beyond = jnp.where(seen, 0, FAR).astype(jnp.float32)
    narrow = mass.astype(jnp.float32)
    share = jnp.full((len(mass), len(point)), FAR, jnp.float32)
    for s in range(mass.shape[-1]):
        share = jnp.minimum(
            share, narrow[:, s, None] * small[None, :, s] + beyond[None, :, s]
        )
    _, at = largest(-share * drop.astype(jnp.float32)[None])
    exact = jnp.where(possible[at], mass * inverse[at], FAR).min(-1)
    return mass @ corner + exact * drop[at]


def upper_value(mass: Float[Array, "M S"], after: _Next) -> Float[Array, " M"]:
    """The smaller of sawtooth and informed bound at unnormalised beliefs."""
    known = (mass @ after.informed).max(-1)
    return jnp.minimum(
        sawtooth(mass, after.plans.point, after.upper, after.corner), known
    )


def upper_action_values(
    model: BeliefModel, belief: Float[Array, "N S"], after: _Next
) -> tuple[Float[Array, "N A"], Float[Array, "N K A O"], Float[Array, "N K A O S"]]:
    """Upper bounds of actions, of their successors, and the successors themselves."""
    reached = all_successors(model, belief)
    bound = upper_value(reached.reshape(-1, belief.shape[-1]), after)
    bound = bound.reshape(reached.shape[:-1])
    best = bound.sum(-1).max(1)
    return belief @ model.reward + model.discount * best, bound, reached


def sweep(
    model: BeliefModel,
    point: Float[Array, "U N S"],
    weight: Float[Array, "U N"],
    *,
    convex: bool,
) -> Bounds:
    """Plans, and upper bounds where V is convex, from the last stage up to stage 1."""
    later, count, states = point.shape
    informed = informed_bound(model, later + 1)
    corners = jnp.eye(states, dtype=point.dtype)

    def stage(after: _Next, now: tuple[Array, ...]) -> tuple[_Next, tuple[Array, ...]]:
        here, known = now
        vector, choice = backup(model, here, after.plans)
        both = jnp.concatenate([here, corners])
        bound = (both @ known).max(-1)
        if convex:
            above, _, _ = upper_action_values(model, both, after)
            bound = jnp.minimum(bound, above.max(-1))
        upper, corner = bound[:count], bound[count:]
        return _Next(Plans(vector, here), upper, corner, known), (
            vector,
            choice,
            upper,
            corner,
        )

    after_all = _after_all(model, count, convex=convex)
    _, found = jax.lax.scan(stage, after_all, (point, informed[1:-1]), reverse=True)
    return Bounds(point, weight, *found)


def _after_all(model: BeliefModel, count: int, *, convex: bool) -> _Next:
    """The stage after the last decision, where everything is worth nothing."""
    states, actions = model.reward.shape
    kind = model.reward.dtype
    parts = 1 if convex else len(model.transition)
    return _Next(
        plans=Plans(
            jnp.zeros((count, parts, states), kind),
            jnp.full((count, states), 1 / states, kind),
        ),
        upper=jnp.zeros(count, kind),
        corner=jnp.zeros(states, kind),
        informed=jnp.zeros((states, actions), kind),
    )


def _after_first(model: BeliefModel, bounds: Bounds, *, convex: bool) -> _Next:
    """What a decision at stage 0 leads to."""
    later, count, _ = bounds.point.shape
    if not later:
        return _after_all(model, count, convex=convex)
    return _Next(
        Plans(bounds.vector[0], bounds.point[0]),
        bounds.upper[0],
        bounds.corner[0],
        informed_bound(model, later)[0],
    )


def start(model: BeliefModel, *, horizon: int, convex: bool) -> Bounds:
    """Bounds from few points: at every stage the beliefs that model 1 starts with."""
    first = model.root[: model.root_mass.shape[1]]
    point = jnp.broadcast_to(first, (horizon - 1, *first.shape))
    return sweep(model, point, jnp.zeros_like(point[..., 0]), convex=convex)


def expand(
    model: BeliefModel, bounds: Bounds, *, new: int, convex: bool, fresh: bool
) -> Bounds:
    """Add `new` points to every stage, and sweep.

    From stage to stage, the beliefs that good actions lead to are candidates; those are
    taken whose probability times gap is largest. Where V is not convex and no gap is
    known, the distance to the nearest point that is there already stands for it; with
    `fresh`, the probability alone decides.
    """
    later, _, states = bounds.point.shape
    informed = informed_bound(model, later + 1)

    def candidates(point: Array, weight: Array, there: _Next) -> tuple[Array, ...]:
        """Where actions lead, how probably, and how wide the gap is there."""
        if convex:
            value, above, reached = upper_action_values(model, point, there)
            best = value == value.max(-1, keepdims=True)
            taste = jnp.where(best, 1.0, OTHER_ACTIONS)
        else:
            value = action_values(model, point, there.plans)
            loss = value.max(-1, keepdims=True) - value
            taste = jax.nn.softmax(-loss / jnp.maximum(loss.mean(), TINY), axis=-1)
            reached = all_successors(model, point)
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
        there, weight = _Next(*after[:-1]), after[-1]
        belief, reach, want = candidates(*now, there)
        grown = _add_points(there.plans.point, weight, belief, reach, want, new)
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
        first = jax.tree.map(lambda x: x[0], (*known, weight))
        now, found = stage(begin, first)
        rest = jax.tree.map(lambda x: x[1:], (*known, weight))
        _, more = jax.lax.scan(stage, now, rest)
        point, weight = (
            jnp.concatenate([a[None], b]) for a, b in zip(found, more, strict=True)
        )
    return sweep(model, point, weight, convex=convex)


def _add_points(
    point: Float[Array, "N S"],
    weight: Float[Array, " N"],
    belief: Float[Array, "C S"],
    reach: Float[Array, " C"],
    want: Float[Array, " C"],
    new: int,
) -> tuple[Float[Array, "M S"], Float[Array, " M"]]:
    """Points and the chance to reach them, with the `new` candidates wanted most.

    Equal candidates are one, with their chances added. A candidate that is a point
    already is not added again; the point takes its chance where that is larger.
    """
    if len(belief) > CANDIDATES * new:  # sorting all of them would take longest
        _, kept = _most(want, CANDIDATES * new)
        belief, reach, want = belief[kept], reach[kept], want[kept]
    if len(belief) < new:  # few symbols: padding, wanted by nobody
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
    """The largest entries and where they are; XLA has a fast way in float32 only."""
    most, where = jax.lax.top_k(want.astype(jnp.float32), count)
    return most, where


def root_values(
    model: BeliefModel, bounds: Bounds, *, convex: bool
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Value before the first observation, by the plans and from above."""
    after = _after_first(model, bounds, convex=convex)

    def before_seeing(value: Array) -> Array:
        expected = (value.reshape(model.root_mass.shape) * model.root_mass).sum(-1)
        return mix(model.alpha, expected.min(), expected.max())

    nothing = jnp.asarray(jnp.nan, model.reward.dtype)
    if not len(bounds.point):
        # One decision: nothing follows. Products with the constant zeros that stand for
        # nothing come out wrong from XLA on a CPU (jax 0.10.2), so there are none.
        exact = before_seeing((model.root @ model.reward).max(-1))
        return exact, exact if convex else nothing
    if not convex:
        value = action_values(model, model.root, after.plans)
        return before_seeing(value.max(-1)), nothing
    reached = all_successors(model, model.root)
    score = (reached @ after.plans.vector[:, 0].T).max(-1).sum(-1).max(1)
    lower = before_seeing((model.root @ model.reward + model.discount * score).max(-1))
    upper, _, _ = upper_action_values(model, model.root, after)
    known = model.root @ informed_bound(model, len(bounds.point) + 1)[0]
    return lower, before_seeing(jnp.minimum(upper, known).max(-1))
