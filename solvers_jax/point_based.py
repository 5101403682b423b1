r"""Point-based dynamic programming over beliefs: the kernels, for one task at a time.

One recursion serves POMDPs and ambiguous POMDPs (K models, attitude α; a POMDP has
K = 1):

    H_k(b,a) = b·r_a + γ Σ_o Pr_k(o|b,a) V_{t+1}(τ_k(b,a,o))
    V_t(b)   = max_a [ α min_k H_k(b,a) + (1 - α) max_k H_k(b,a) ]

**Vectors from below.** V_{t+1} is represented by the largest of its α-vectors. A
backup at a point b gives the value there and the gradient of the chosen branch, a new
α-vector. Where V is convex (K = 1, or α = 0) every such vector lies below V: a
certified lower bound, and the value of acting by one-step lookahead is at least as high
(Pineau, Gordon, Thrun, 2003). Elsewhere it is a first-order interpolation, no bound.

**Values from above**, for convex V only. At the points and at the corners of the
simplex an upper bound is backed up; between them it is interpolated by the sawtooth
(Hauskrecht, 2000), and nowhere exceeds the fast informed bound.

**Points are layered**: every stage has its own, the beliefs that greedy play reaches
there, most wanted where reach probability times gap is largest.

The large products that only *choose* (which α-vector, which sawtooth point) are done in
single precision; what is chosen is then evaluated in the precision of the model. Any
choice gives a valid bound, so this costs tightness (of the order 1e-7) and never truth.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.models import APOMDP, POMDP, Scalar, check_count

# Beliefs closer than this in a random projection are one belief: far above the rounding
# of a Bayes update, far below any difference that matters to a value.
SAME_BELIEF = 1e-9
TASKS_PER_DEVICE = 16  # handed over at once
TINY = 1e-30  # keeps a quotient of zeros a number
FAR = 1e30  # stands for infinity where infinity times zero would be no number


class BeliefModel(eqx.Module):
    """One task, as the kernels want it: K models, and the beliefs it can start with.

    Attributes:
        transition: P_k(s' | s, a).
        observation: Z_k(o | s', a).
        reward: r(s, a).
        root: beliefs before the first action, one for each model and first symbol.
        root_mass: probability of that first symbol under that model.
        alpha: weight of the worst model.
        discount: factor per stage.

    """

    transition: Float[Array, "*B K S A S"]
    observation: Float[Array, "*B K A S O"]
    reward: Float[Array, "*B S A"]
    root: Float[Array, "*B R S"]
    root_mass: Float[Array, "*B K I"]
    alpha: Float[Array, "*B"]
    discount: Float[Array, "*B"]


class Bounds(eqx.Module):
    """Points and what is known at them; stage 0 first, N points each.

    Attributes:
        point: beliefs.
        weight: probability of reaching them, roughly; 0 marks padding.
        vector: α-vectors, one a point.
        pick: what chooses among them; see `Interpolant`.
        choice: the action that each α-vector takes first.
        upper: upper bound at the points.
        corner: upper bound where the state is certain.

    """

    point: Float[Array, "*B T N S"]
    weight: Float[Array, "*B T N"]
    vector: Float[Array, "*B T N S"]
    pick: Float[Array, "*B T N S"]
    choice: Int[Array, "*B T N"]
    upper: Float[Array, "*B T N"]
    corner: Float[Array, "*B T S"]


class Interpolant(NamedTuple):
    """V at one stage: V(b) = vector[n]·b, for the n with the largest pick[n]·b.

    Where V is convex, `pick` is `vector`. Elsewhere the α-vector is that of the nearest
    point p: |b - p|² is smallest where b·p - |p|²/2 is largest.
    """

    vector: Float[Array, "*B N S"]
    pick: Float[Array, "*B N S"]


class _Next(NamedTuple):
    """What a backup needs to know of the stage after."""

    value: Interpolant
    point: Float[Array, "N S"]
    upper: Float[Array, " N"]
    corner: Float[Array, " S"]
    informed: Float[Array, "S A"]


def belief_model(model: POMDP | APOMDP) -> BeliefModel:
    """Both kinds of model in the kernels' form, with their leading axes."""
    transition, observation = model.transition, model.observation
    first = model.initial_observation
    alpha: Scalar = 0.0
    if isinstance(model, POMDP):
        transition = transition[..., None, :, :, :]
        observation = observation[..., None, :, :, :]
        first = None if first is None else first[..., None, :, :]
    else:
        alpha = model.alpha
    batch, kind = model.reward.shape[:-2], model.reward.dtype
    models = transition.shape[-4]
    if first is None:
        shape = (*batch, models, model.initial.shape[-1], 1)
        first = jnp.ones(shape, kind)
    joint = model.initial[..., None, :, None] * first  # [*B, K, S, I]
    mass = joint.sum(-2)
    prior = model.initial[..., None, None, :]
    seen = jnp.swapaxes(joint, -1, -2) / jnp.where(mass > 0, mass, 1)[..., None]
    root = jnp.where(mass[..., None] > 0, seen, prior)
    return BeliefModel(
        transition=transition,
        observation=observation,
        reward=model.reward,
        root=root.reshape(*batch, -1, root.shape[-1]),
        root_mass=mass,
        alpha=jnp.broadcast_to(jnp.asarray(alpha, kind), batch),
        discount=jnp.broadcast_to(jnp.asarray(model.discount, kind), batch),
    )


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
    index = jnp.arange(scores.shape[-1], dtype=jnp.float32)
    at = jnp.where(scores == top[..., None], index, jnp.float32(-1)).max(-1)
    return top, at.astype(jnp.int32)


def lookahead(
    model: BeliefModel, belief: Float[Array, "N S"], after: Interpolant
) -> tuple[Float[Array, "N K A"], Int[Array, "N K A O"]]:
    """H_k(b, a), and which α-vector of the next stage each symbol meets."""
    small = after.pick.astype(jnp.float32)

    def one(p: Array, z: Array) -> tuple[Array, Array]:
        reached = successors(belief, p, z)
        value, index = largest(reached.astype(jnp.float32) @ small.T)
        if after.pick is not after.vector:
            value = (reached * after.vector[index]).sum(-1)
        return value.sum(-1), index

    future, index = jax.lax.map(
        lambda k: one(*k), (model.transition, model.observation)
    )
    paid = (belief @ model.reward)[:, None, :]
    gain = jnp.moveaxis(future, 0, 1).astype(paid.dtype)
    return paid + model.discount * gain, jnp.moveaxis(index, 0, 1)


def action_values(
    model: BeliefModel, belief: Float[Array, "N S"], after: Interpolant
) -> Float[Array, "N A"]:
    """α-MEU value of each action by one-step lookahead."""
    value, _ = lookahead(model, belief, after)
    return mix(model.alpha, value.min(1), value.max(1))


def backup(
    model: BeliefModel, belief: Float[Array, "N S"], after: Interpolant
) -> tuple[Float[Array, "N S"], Int[Array, " N"]]:
    """New α-vectors at `belief`, and their actions; ties go to the lowest action."""
    value, index = lookahead(model, belief, after)
    choice = mix(model.alpha, value.min(1), value.max(1)).argmax(-1)
    taken = jnp.take_along_axis(value, choice[:, None, None], axis=-1)[..., 0]

    def gradient(k: Int[Array, " N"]) -> Float[Array, "N S"]:
        row = jnp.arange(len(k))
        met = after.vector[index[row, k, choice]]  # [N, O, S]
        seen = model.observation[k, choice]  # [N, S, O]
        future = jnp.einsum("nso,nos->ns", seen, met)
        # Every model and action, then the one wanted: no copy of a transition each.
        back = jnp.einsum("ksam,nm->nkas", model.transition, future)
        return back[row, k, choice]

    if model.transition.shape[0] == 1:
        ahead = gradient(jnp.zeros_like(choice))
    else:
        ahead = mix(model.alpha, gradient(taken.argmin(-1)), gradient(taken.argmax(-1)))
    return model.reward.T[choice] + model.discount * ahead, choice.astype(jnp.int32)


def informed_bound(model: BeliefModel, horizon: int) -> Float[Array, "T+1 S A"]:
    """Fast informed bound (Hauskrecht, 2000): Q_t(s, a) with the state known now."""

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
    small, beyond = inverse.astype(jnp.float32), jnp.where(possible, 0, FAR)
    beyond = beyond.astype(jnp.float32)
    narrow = mass.astype(jnp.float32)
    share = jnp.full((len(mass), len(point)), FAR, jnp.float32)
    for s in range(mass.shape[-1]):
        share = jnp.minimum(share, narrow[:, s, None] * small[:, s] + beyond[:, s])
    _, at = largest(-share * drop.astype(jnp.float32))
    exact = jnp.where(possible[at], mass * inverse[at], FAR).min(-1)
    return mass @ corner + exact * drop[at]


def upper_value(mass: Float[Array, "M S"], after: _Next) -> Float[Array, " M"]:
    """The smaller of sawtooth and informed bound at unnormalised beliefs."""
    known = (mass @ after.informed).max(-1)
    return jnp.minimum(sawtooth(mass, after.point, after.upper, after.corner), known)


def upper_action_values(
    model: BeliefModel, belief: Float[Array, "N S"], after: _Next
) -> tuple[Float[Array, "N A"], Float[Array, "N K A O"], Float[Array, "N K A O S"]]:
    """Upper bounds of actions, of their successors, and the successors themselves."""
    reached = all_successors(model, belief)
    states = belief.shape[-1]
    bound = upper_value(reached.reshape(-1, states), after).reshape(reached.shape[:-1])
    best = bound.sum(-1).max(1)
    return belief @ model.reward + model.discount * best, bound, reached


def sweep(model: BeliefModel, bounds: Bounds, *, convex: bool) -> Bounds:
    """Back vectors, and upper bounds where V is convex, up through every stage."""
    horizon, count, states = bounds.point.shape
    informed = informed_bound(model, horizon)
    corners = jnp.eye(states, dtype=model.reward.dtype)

    def stage(after: _Next, now: tuple[Array, ...]) -> tuple[_Next, tuple[Array, ...]]:
        point, informed_now, informed_next, last = now
        value = after.value
        if convex:  # one array, not two equal ones
            value = Interpolant(value.vector, value.vector)
        after = after._replace(informed=informed_next, value=value)
        vector, choice = backup(model, point, value)
        here = jnp.concatenate([point, corners])
        bound = (here @ informed_now).max(-1)
        if convex:
            above, _, _ = upper_action_values(model, here, after)
            bound = jnp.minimum(bound, above.max(-1))
        upper, corner = bound[:count], bound[count:]
        near = point - (point**2).sum(-1, keepdims=True) / 2
        # Before the last decision V is a maximum of linear functions for every α.
        pick = jnp.where(last | convex, vector, near)
        here_now = Interpolant(vector, pick), point, upper, corner
        return _Next(*here_now, informed_now), (vector, pick, choice, upper, corner)

    nothing = jnp.zeros_like(bounds.upper[0])
    last = _Next(
        Interpolant(*2 * [jnp.zeros_like(bounds.vector[0])]),
        bounds.point[-1],
        nothing,
        jnp.zeros(states, nothing.dtype),
        informed[-1],
    )
    stages = (
        bounds.point,
        informed[:-1],
        informed[1:],
        jnp.arange(horizon) == horizon - 1,
    )
    _, found = jax.lax.scan(stage, last, stages, reverse=True)
    return Bounds(bounds.point, bounds.weight, *found)


def start(model: BeliefModel, *, horizon: int) -> Bounds:
    """Bounds at the roots alone."""
    roots, states = model.root.shape
    point = jnp.broadcast_to(model.root, (horizon, roots, states))
    weight = jnp.zeros((horizon, roots), point.dtype)
    return Bounds(
        point=point,
        weight=weight.at[0].set(model.root_mass.reshape(-1) / len(model.root_mass)),
        vector=jnp.zeros_like(point),
        pick=jnp.zeros_like(point),
        choice=jnp.zeros((horizon, roots), jnp.int32),
        upper=jnp.zeros_like(weight),
        corner=jnp.zeros((horizon, states), point.dtype),
    )


def expand(
    model: BeliefModel, bounds: Bounds, *, new: int, convex: bool, fresh: bool = False
) -> Bounds:
    """Add `new` points to every stage, and sweep.

    From stage to stage, the beliefs that the greedy action leads to are candidates;
    those are taken whose probability times gap is largest. Where V is not convex and no
    gap is known, the distance to the nearest point that is there already stands for it.
    With `fresh`, the points of the later stages are placeholders: they are replaced,
    but for the roots of the first model, which are good company for any belief.
    """
    horizon, _, states = bounds.point.shape
    informed = informed_bound(model, horizon)
    project = jnp.cos(jnp.arange(1, states + 1, dtype=model.reward.dtype) ** 2)

    def candidates(
        point: Array, weight: Array, there: _Next
    ) -> tuple[Array, Array, Array]:
        """Where actions lead, how probably, and how wide the gap is there."""
        row = jnp.arange(len(point))
        if convex:
            value, bound, reached = upper_action_values(model, point, there)
            choice = value.argmax(-1)
            reached = reached[row, :, choice]  # [N, K, O, S]
            above = bound[row, :, choice].reshape(-1)
        else:
            value = action_values(model, point, there.value)
            loss = value.max(-1, keepdims=True) - value
            taste = jnp.exp(-loss / jnp.maximum(loss.mean(), TINY))
            taste = taste / taste.sum(-1, keepdims=True)
            reached = all_successors(model, point)
            weight = weight[:, None, None, None] * taste[:, None, :, None]
        mass = reached.sum(-1)
        some = jnp.where(mass > 0, mass, 1)
        belief = (reached / some[..., None]).reshape(-1, states)
        if convex:
            weight = weight[:, None, None]
        reach = (weight * mass / mass.shape[1]).reshape(-1)
        if convex:
            below = (reached.reshape(-1, states) @ there.value.vector.T).max(-1)
            return belief, reach, (above - below) / some.reshape(-1)
        square = (belief**2).sum(-1)[:, None] + (there.point**2).sum(-1)
        nearest = (square - 2 * belief @ there.point.T).min(-1)
        return belief, reach, jnp.sqrt(jnp.maximum(nearest, 0))

    def stage(
        now: tuple[Array, Array], after: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        vector, pick, *others, weight = after
        there = _Next(Interpolant(vector, vector if convex else pick), *others)
        belief, reach, gap = candidates(*now, there)
        kept, count, want = there.point, new, reach * jnp.maximum(gap, 0)
        if fresh:  # no gap is known yet
            kept, want = kept[: model.root_mass.shape[1]], reach
            weight, count = weight[: len(kept)], len(now[0]) - len(kept)
        chosen, chance = _most_wanted(
            belief, reach, want, project, count, jnp.sort(kept @ project)
        )
        grown = jnp.concatenate([kept, chosen]), jnp.concatenate([weight, chance])
        return grown, grown

    pad = ((0, 0), (0, new))
    upper, choice = jnp.pad(bounds.upper, pad), jnp.pad(bounds.choice, pad)
    root = bounds.point[0]
    point = jnp.concatenate([root, jnp.repeat(root[:1], new, 0)])
    weight = jnp.pad(bounds.weight[0], pad[1])
    later = tuple(
        x[1:]
        for x in (
            bounds.vector,
            bounds.pick,
            bounds.point,
            bounds.upper,
            bounds.corner,
        )
    )
    later = (*later, informed[1:-1], bounds.weight[1:])
    _, (points, weights) = jax.lax.scan(stage, (point, weight), later)
    grown = Bounds(
        point=jnp.concatenate([point[None], points]),
        weight=jnp.concatenate([weight[None], weights]),
        vector=jnp.zeros((horizon, len(point), states), point.dtype),
        pick=jnp.zeros((horizon, len(point), states), point.dtype),
        choice=choice,
        upper=upper,
        corner=bounds.corner,
    )
    return sweep(model, grown, convex=convex)


def _most_wanted(
    belief: Float[Array, "C S"],
    reach: Float[Array, " C"],
    want: Float[Array, " C"],
    project: Float[Array, " S"],
    new: int,
    known: Float[Array, " N"],
) -> tuple[Float[Array, "M S"], Float[Array, " M"]]:
    """The `new` different candidates wanted most, and the chance to reach them.

    Equal candidates are one, with their chances added; those whose projection is among
    the sorted ones of points already `known` are not wanted.
    """
    if len(belief) < new:  # few symbols: padding, wanted by nobody
        short = new - len(belief)
        belief = jnp.concatenate([belief, jnp.repeat(belief[:1], short, 0)])
        reach, want = (jnp.pad(x, (0, short)) for x in (reach, want))
    mark = belief @ project
    order = jnp.argsort(mark)
    mark = mark[order]
    head = jnp.concatenate([jnp.ones(1, bool), jnp.diff(mark) > SAME_BELIEF])
    group = jnp.cumsum(head) - 1
    reach, want = (
        jax.ops.segment_sum(x[order], group, num_segments=len(mark))[group]
        for x in (reach, want)
    )
    at = jnp.clip(jnp.searchsorted(known, mark - SAME_BELIEF), 0, len(known) - 1)
    head &= jnp.abs(known[at] - mark) > SAME_BELIEF
    score, top = jax.lax.top_k(jnp.where(head, want, 0), new)
    return belief[order][top], jnp.where(score > 0, reach[top], 0)


def root_values(model: BeliefModel, value: Float[Array, " R"]) -> Float[Array, ""]:
    """Value before the first observation, from values at the roots."""
    by_symbol = value.reshape(model.root_mass.shape) * model.root_mass
    expected = by_symbol.sum(-1)
    return mix(model.alpha, expected.min(), expected.max())


def root_bounds(
    model: BeliefModel, bounds: Bounds, *, convex: bool
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Value before the first observation, from the α-vectors and from above."""
    value = model.root @ bounds.vector[0].T
    # The roots are the first points of stage 0.
    lower = value.max(-1) if convex else jnp.diagonal(value)
    upper = bounds.upper[0, : len(model.root)]
    return root_values(model, lower), root_values(model, upper)


@partial(jax.jit, static_argnames=("new", "convex", "horizon"))
def _round(
    model: BeliefModel, bounds: Bounds | None, *, new: int, convex: bool, horizon: int
) -> tuple[Bounds, Float[Array, " B"], Float[Array, " B"]]:
    """More points for every task of a batch, or the first ones where there are none."""

    def one(task: tuple[BeliefModel, Bounds | None]) -> tuple[Bounds, Array, Array]:
        model, bounds = task
        fresh = bounds is None
        if fresh:
            bounds = sweep(model, start(model, horizon=horizon), convex=convex)
        bounds = expand(model, bounds, new=new, convex=convex, fresh=fresh)
        return bounds, *root_bounds(model, bounds, convex=convex)

    devices = jax.local_devices()
    if len(model.reward) % len(devices):
        return jax.lax.map(one, (model, bounds))
    mesh = jax.sharding.Mesh(np.array(devices), ("task",))
    spread = jax.shard_map(
        lambda *task: jax.lax.map(one, task),
        mesh=mesh,
        in_specs=jax.P("task"),
        out_specs=jax.P("task"),
        check_vma=False,  # devices never speak to each other
    )
    return spread(model, bounds)


class Refined(NamedTuple):
    """Where refinement stopped; everything on the host, tasks leading.

    Attributes:
        bounds: what is known at the points.
        lower: value of the roots from the α-vectors, after each number of points.
        upper: value of the roots from the upper bounds, the same.
        points: numbers of points per stage that were tried.
        used: index into `points` of the last one, for each task.

    """

    bounds: Bounds
    lower: Float[np.ndarray, "R B"]
    upper: Float[np.ndarray, "R B"]
    points: tuple[int, ...]
    used: Int[np.ndarray, " B"]


def refine(
    model: BeliefModel,
    *,
    horizon: int,
    points: Sequence[int],
    convex: bool,
    enough: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Refined:
    """Give tasks more and more points until `enough(lower, upper)` says to stop.

    Args:
        model: a batch of B tasks.
        horizon: number of decisions T.
        points: growing numbers of points per stage, each larger than the roots.
        convex: whether upper bounds exist.
        enough: from lower and upper values [b] to which tasks are done.

    """
    tasks, roots, states = model.root.shape
    shape = (tasks, horizon, points[-1])
    kind = np.dtype(model.reward.dtype)
    whole = Bounds(
        point=np.zeros((*shape, states), kind),
        weight=np.zeros(shape, kind),
        vector=np.zeros((*shape, states), kind),
        pick=np.zeros((*shape, states), kind),
        choice=np.zeros(shape, np.int32),
        upper=np.zeros(shape, kind),
        corner=np.zeros((tasks, horizon, states), kind),
    )
    lower, upper = np.full((2, len(points), tasks), np.nan, kind)
    used, left = np.zeros(tasks, int), np.arange(tasks)
    together = _tasks_together(tasks)
    for number, count in enumerate(points):
        before = points[number - 1] if number else roots
        for first in range(0, len(left), together):
            chosen = left[first : first + together]
            index = np.resize(chosen, together)  # one shape, and one compilation
            task = jax.tree.map(lambda x: x[index], model)  # noqa: B023
            old = None
            if number:
                old = jax.tree.map(lambda x: x[index], whole)  # noqa: B023
                old = _cut(old, before)
            grown, low, high = jax.device_get(
                _round(task, old, new=count - before, convex=convex, horizon=horizon)
            )
            for to, new in zip(
                jax.tree.leaves(whole), jax.tree.leaves(grown), strict=True
            ):
                room = (chosen, slice(None), slice(new.shape[2]))
                to[room] = new[: len(chosen)]
                # Room not used yet repeats the last point, which changes nothing.
                to[chosen, :, new.shape[2] :] = new[: len(chosen), :, -1:]
            lower[number, chosen], upper[number, chosen] = (
                x[: len(chosen)] for x in (low, high)
            )
        used[left] = number
        left = left[~enough(lower[number, left], upper[number, left])]
        if not len(left):
            break
    return Refined(whole, lower, upper, tuple(points), used)


def _cut(bounds: Bounds, count: int) -> Bounds:
    """The first `count` points of every stage."""
    return Bounds(
        bounds.point[:, :, :count],
        bounds.weight[:, :, :count],
        bounds.vector[:, :, :count],
        bounds.pick[:, :, :count],
        bounds.choice[:, :, :count],
        bounds.upper[:, :, :count],
        bounds.corner,
    )


def _tasks_together(tasks: int) -> int:
    """Tasks per call: enough to keep every device busy, few enough to pad cheaply."""
    devices = jax.local_device_count()
    each = min(TASKS_PER_DEVICE, -(-tasks // devices))
    return devices * each


def resolutions(points: int, roots: int, *, coarsest: int) -> tuple[int, ...]:
    """Numbers of beliefs per stage to try: the roots and up to `points` more, doubling.

    Raises:
        ValueError: if `points` is not a whole number, 1 or more.

    """
    check_count("points", points, 1)
    sizes = [points]
    while sizes[0] // 2 >= coarsest:
        sizes.insert(0, sizes[0] // 2)
    return tuple(roots + size for size in sizes)


def distinct_actions(model: POMDP | APOMDP) -> tuple[int, ...]:
    """The lowest index of each action that differs from those before it.

    Actions are the same if they do the same in every task of the batch.
    """
    reward, transition, observation = (
        np.asarray(x) for x in (model.reward, model.transition, model.observation)
    )

    def same(a: int, b: int) -> bool:
        return (
            np.array_equal(reward[..., a], reward[..., b])
            and np.array_equal(transition[..., a, :], transition[..., b, :])
            and np.array_equal(observation[..., a, :, :], observation[..., b, :, :])
        )

    kept: list[int] = []
    for a in range(reward.shape[-1]):
        if not any(same(a, b) for b in kept):
            kept.append(a)
    return tuple(kept)


def restrict(model: BeliefModel, actions: tuple[int, ...]) -> BeliefModel:
    """The same task with these actions only."""
    chosen = np.asarray(actions)
    return BeliefModel(
        transition=model.transition[..., chosen, :],
        observation=model.observation[..., chosen, :, :],
        reward=model.reward[..., chosen],
        root=model.root,
        root_mass=model.root_mass,
        alpha=model.alpha,
        discount=model.discount,
    )


def rounding(model: BeliefModel, horizon: int) -> Float[np.ndarray, " B"]:
    """How far rounding can carry a bound: what certified bounds are widened by.

    T stages of sums over states and symbols, each off by less than one unit in the last
    place a term, of values no larger than T times the largest reward.
    """
    terms = model.transition.shape[-1] + model.observation.shape[-1]
    largest_value = horizon * np.abs(np.asarray(model.reward)).max((-2, -1))
    unit = np.finfo(model.reward.dtype).eps
    return np.asarray(unit * horizon * terms * largest_value)
