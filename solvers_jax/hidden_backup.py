"""Backups over an observed state and a belief over K candidate models.

These are the kernels of `hidden_model`, for all observed states of a stage at once.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.backward_induction import backward_induction
from sdm.tasks.admissible import check_no_mask
from sdm.tasks.models import MDP
from sdm.tasks.rewards import tolerance
from sdm.tasks.transitions import dense

# Smallest probability in single-precision comparisons, and a finite infinity.
TINY, FAR = 1e-30, 1e30


class Candidates(eqx.Module):
    """K candidate models in the kernels' format, with the axis K last.

    A *move* combines an observed state, one of its distinct actions, a possible next
    state, and a set of two or more candidates with equal rewards. There are L moves;
    the last has probability zero and pads the lists. A candidate with a unique reward
    is identified by it and needs no move.

    Attributes:
        origin: observed state before each move.
        target: observed state after each move.
        chance: probability P_k of each move; 0 for candidates outside the set.
        moves: indices of the moves of each decision, in lists of equal length.
        reward: r_k(x, a).
        alone: 1 if the reward of candidate k for (x, a) is unique, else 0.
        value: V*_k of each of H = T + 1 stages and each state; stage T is zero.
        q: Q*_k of each stage; stage T is zero.
        initial: distribution of the first observed state.
        discount: factor per stage.

    """

    origin: Int[Array, " L"]
    target: Int[Array, " L"]
    chance: Float[Array, "L K"]
    moves: Int[Array, "S A D"]
    reward: Float[Array, "S A K"]
    alone: Float[Array, "S A K"]
    value: Float[Array, "H S K"]
    q: Float[Array, "H S A K"]
    initial: Float[Array, "S K"]
    discount: Float[Array, ""]


class Stage(NamedTuple):
    """Plans and upper bounds of a stage, at N beliefs of each observed state.

    There are V = N + K plans: one made at each belief, and the optimal plan of each
    candidate, which is best if the belief is nearly certain.

    Attributes:
        point: the beliefs.
        vector: α-vector of each plan.
        choice: the first action of each plan.
        upper: upper bound at each belief.
        hopeful: the action with the largest upper bound.
        drop: upper bound minus the value with full information, at most 0.

    """

    point: Float[Array, "S N K"]
    vector: Float[Array, "S V K"]
    choice: Int[Array, "S V"]
    upper: Float[Array, "S N"]
    hopeful: Int[Array, "S N"]
    drop: Float[Array, "S N"]


def candidates_of(models: MDP, *, horizon: int, rewards: bool) -> Candidates:
    """Convert K models, on the leading axis, to the kernels' format."""
    check_no_mask(models, "`solve_hidden_model`")
    chance = np.moveaxis(np.asarray(dense(models.transition)), 0, -1)  # [S, A, S', K]
    reward = np.moveaxis(np.asarray(models.reward), 0, -1)
    states, actions, _, size = chance.shape
    label, members = _equal_rewards(reward, rewards=rewards)
    ends: list[tuple[int, int]] = []
    rows: list[np.ndarray] = []
    lists: list[list[int]] = []
    for x in range(states):
        known: dict[bytes, list[int]] = {}  # duplicate actions share their moves
        for a in range(actions):
            decision = chance[x, a].tobytes() + reward[x, a].tobytes()
            if decision not in known:
                known[decision] = moves = []
                for g in np.flatnonzero(members[x, a] > 1):
                    some = chance[x, a] * (label[x, a] == g)
                    for target in np.flatnonzero(some.any(-1)):
                        moves.append(len(rows))
                        rows.append(some[target])
                        ends.append((x, int(target)))
            lists.append(known[decision])
    width = max(map(len, lists))
    filled = [each + [len(rows)] * (width - len(each)) for each in lists]
    origin, target = np.array([*ends, (0, 0)], np.int32).T
    found = backward_induction(models, horizon=horizon)
    q = jnp.moveaxis(found.q, 0, -1)
    return Candidates(
        origin=jnp.asarray(origin),
        target=jnp.asarray(target),
        chance=jnp.asarray(np.stack([*rows, np.zeros(size, chance.dtype)])),
        moves=jnp.asarray(np.reshape(filled, (states, actions, width)), jnp.int32),
        reward=jnp.asarray(reward),
        alone=jnp.asarray(np.take_along_axis(members, label, -1) == 1, reward.dtype),
        value=jnp.moveaxis(found.state_value, 0, -1),
        q=jnp.concatenate([q, jnp.zeros_like(q[:1])]),
        initial=models.initial.T,
        discount=jnp.asarray(models.discount, reward.dtype),
    )


def _equal_rewards(
    reward: Float[np.ndarray, "S A K"], *, rewards: bool
) -> tuple[Int[np.ndarray, "S A K"], Int[np.ndarray, "S A G"]]:
    """Number the sets of candidates with equal rewards, and count their members.

    If rewards are not observed, all candidates form one set.
    """
    label = np.zeros(reward.shape, int)
    if not rewards:
        return label, np.full((*reward.shape[:2], 1), reward.shape[-1])
    order = np.argsort(reward, axis=-1)
    ranked = np.take_along_axis(reward, order, axis=-1)
    apart = tolerance(reward.dtype) * np.maximum(1, abs(ranked[..., 1:]))
    step = np.diff(ranked, axis=-1) > apart
    rank = np.pad(step.cumsum(-1), ((0, 0), (0, 0), (1, 0)))
    np.put_along_axis(label, order, rank, axis=-1)
    sets = np.arange(label.max() + 1)
    return label, (label[..., None] == sets).sum(-2)


def after_the_last(model: Candidates, points: int) -> Stage:
    """Return the stage after the last decision, where all values are zero."""
    states, size = model.initial.shape
    point = jnp.full((states, points, size), 1 / size, model.reward.dtype)
    plans, nothing = points + size, jnp.zeros_like(point[..., 0])
    none = jnp.zeros((states, plans), jnp.int32)
    vector = jnp.zeros((states, plans, size), point.dtype)
    return Stage(point, vector, none, nothing, none[:, :points], nothing)


def _sawtooth(
    mass: Float[Array, "R K"], point: Float[Array, "N K"], drop: Float[Array, " N"]
) -> Float[Array, " R"]:
    """Return sawtooth minus full-information value, at unnormalised beliefs."""
    seen = point.T > TINY
    inverse = jnp.where(seen, 1 / jnp.where(seen, point.T, 1), 0).astype(jnp.float32)
    beyond = jnp.where(seen, 0, FAR).astype(jnp.float32)
    narrow = mass.T.astype(jnp.float32)

    def least(k: Array, share: Array) -> Array:
        here = narrow[k][:, None] * inverse[k][None] + beyond[k][None]
        return jnp.minimum(share, here)

    share = jnp.full((len(mass), len(point)), FAR, jnp.float32)
    share = jax.lax.fori_loop(0, len(inverse), least, share, unroll=8)
    at = (share * drop.astype(jnp.float32)[None]).argmin(-1)
    chosen = point[at]
    exact = jnp.where(chosen > 0, mass / jnp.where(chosen > 0, chosen, 1), FAR).min(-1)
    return exact * drop[at]


def _bounds(
    mass: Float[Array, "R K"], x: Int[Array, ""], value: Array, q: Array, stage: Stage
) -> tuple[Float[Array, " R"], Int[Array, " R"], Float[Array, " R"]]:
    """Return the lower bound in state `x`, the plan that attains it, and the upper."""
    score = mass.astype(jnp.float32) @ stage.vector[x].astype(jnp.float32).T
    above = mass @ value[x] + _sawtooth(mass, stage.point[x], stage.drop[x])
    high = jnp.minimum((mass @ q[x].T).max(-1), above)
    return score.max(-1).astype(high.dtype), score.argmax(-1).astype(jnp.int32), high


@jax.jit
def gap_at(
    model: Candidates, t: Int[Array, ""], belief: Float[Array, "S C K"], stage: Stage
) -> Float[Array, "S C"]:
    """Return the distance of the bounds at beliefs of stage `t`."""

    def of_state(x: Array) -> Array:
        low, _, high = _bounds(belief[x], x, model.value[t], model.q[t], stage)
        return high - low

    return jax.lax.map(of_state, jnp.arange(len(belief)))


@jax.jit
def backup(
    model: Candidates, t: Int[Array, ""], belief: Float[Array, "S N K"], after: Stage
) -> Stage:
    """Back up plans and upper bounds at beliefs of stage `t`."""
    value, q = model.value[t + 1], model.q[t + 1]

    def of_move(move: tuple[Array, ...]) -> tuple[Array, Array, Array]:
        origin, target, chance = move
        return _bounds(belief[origin] * chance, target, value, q, after)

    low, met, high = jax.lax.map(
        of_move, (model.origin, model.target, model.chance[:, None])
    )
    # After the reward identifies a candidate, its own optimal plan follows.
    known = model.reward + model.alone * (model.q[t] - model.reward)
    paid = jnp.einsum("snk,sak->sna", belief, known)

    def of_actions(each: Float[Array, "L N"]) -> Float[Array, "S N A"]:
        future = each[model.moves].sum(2)
        return paid + model.discount * jnp.swapaxes(future, 1, 2)

    choice, above = of_actions(low).argmax(-1), of_actions(high)
    full = jnp.einsum("snk,sk->sn", belief, model.value[t])
    upper = jnp.minimum(above.max(-1), full)
    choice = jnp.concatenate([choice, model.q[t].argmax(1)], axis=1).astype(jnp.int32)
    # Plan N + k continues with itself after every observation.
    size, points = belief.shape[-1], belief.shape[1]
    own = jnp.broadcast_to(points + jnp.arange(size), (len(met), size))
    met = jnp.concatenate([met, own.astype(met.dtype)], axis=1)  # [L, V]

    def vectors(x: Array) -> Array:
        taken = model.moves[x, choice[x]]  # [V, D]
        plan = met[taken, jnp.arange(points + size)[:, None]]
        future = model.chance[taken] * after.vector[model.target[taken], plan]
        return known[x, choice[x]] + model.discount * future.sum(1)

    # State by state: the successors of all plans would not fit in memory.
    vector = jax.lax.map(vectors, jnp.arange(len(belief)))
    hopeful = above.argmax(-1).astype(jnp.int32)
    return Stage(belief, vector, choice, upper, hopeful, upper - full)


def cost_of(
    models: MDP, *, tasks: int, horizon: int, rewards: bool, points: int
) -> tuple[int, float]:
    """Estimate the cost of planning for K candidates.

    Returns:
        The memory in bytes, and the number of operations (multiply-adds and minima) of
        one sweep over all stages.

    """
    possible = (np.asarray(dense(models.transition)) > 0).any(0)
    size, (states, actions, _) = len(models.reward), possible.shape
    reward = np.moveaxis(np.asarray(models.reward), 0, -1)
    _, members = _equal_rewards(reward, rewards=rewards)
    listed = (members > 1).sum(-1) * possible.sum(-1)
    width, beliefs = int(listed.max()), (horizon - 1) * points + tasks
    plans = points + size
    stages = horizon * states * size * (points + 2 * plans)  # and the policy's own
    moves = listed.sum() * (size + 3 * plans) + states * actions * width * points
    compared = states * size * (8 * points + 2 * tasks + 2 * points * width)
    memory = int(models.reward.dtype.itemsize * (stages + moves + compared))
    return memory, float(listed.sum() * beliefs * (points + plans) * size)
