"""Common format of models with mixed observability: lists of moves.

A *move* combines a visible value x, an action, a possible next visible value, a symbol
and, if rewards are observed, a set of hidden values with equal rewards: all that tells
the agent something. It changes a belief over hidden values linearly, by a matrix, or by
one factor per hidden value if the hidden part never changes. Only moves that are
possible are listed, and duplicate actions share theirs.

The tasks of a batch are one large model whose visible values are pairs of a task and a
visible value, since no move leads from one task to another.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sdm.tasks.momdp import MOMDP
from sdm.tasks.rewards import tolerance

# Moves per chunk of the kernels: the list is padded to whole chunks.
CHUNK = 256


class Moves(eqx.Module):
    """Models in the kernels' format: S visible values, L moves.

    The last moves have probability zero and pad the lists.

    Attributes:
        origin: visible value before each move.
        target: visible value after each move.
        chance: P(move, y' | x, y, a) [L, Y, Y]; [L, Y] if y never changes.
        lists: indices of the moves of each decision, in lists of equal length D.
        reward: r(x, a, y).
        alone: 1 if the reward tells y, which never changes: no move is needed; else 0.
        barred: -inf if an action is not admissible, else 0.
        informed: bound on the value of an action if y were known from now on (y never
            changes) or the fast informed bound (Hauskrecht, 2000), of H = T + 1 stages;
            stage T is zero.
        discount: factor per stage.

    """

    origin: Int[Array, " L"]
    target: Int[Array, " L"]
    chance: Float[Array, "L ..."]
    lists: Int[Array, "S A D"]
    reward: Float[Array, "S A Y"]
    alone: Float[Array, "S A Y"]
    barred: Float[Array, "S A"]
    informed: Float[Array, "H S A Y"]
    discount: Float[Array, ""]

    @property
    def constant(self) -> bool:
        """Whether the hidden part never changes."""
        return self.chance.ndim == 2


def moves_of(model: MOMDP, *, horizon: int) -> Moves:
    """Convert a batch of B models with own dynamics, or one model, to lists of moves.

    Args:
        model: its arrays have one batch axis, or none but in `initial`.
        horizon: number of decisions T.

    """
    reward, chance, index = _arrays(model)
    states, actions, _ = reward.shape
    label, members = equal_rewards(reward, observed=model.observes_reward)
    constant = model.hidden_transition is None
    certain = constant and model.observes_reward  # a reward can tell y once and for all
    first = _first_equal(reward, chance, index, _shown(model, index), _mask(model))
    own = first == np.arange(actions)
    ends, rows = [np.zeros((2, 0), int)], [chance[0, 0, :0]]
    keys = [np.zeros(0, int)]
    for g in range(members.shape[-1]):
        listed = own & (members[..., g] > (1 if certain else 0))
        if not listed.any():
            continue
        for symbol in _symbols(model, chance, index):
            some = symbol * _of_hidden(label == g, symbol)
            keep = some.reshape(*some.shape[:3], -1).any(-1) & listed[..., None]
            s, a, n = np.nonzero(keep)
            ends.append(np.stack([s, index[s, a, n]]))
            keys.append(s * actions + a)
            rows.append(some[s, a, n])
    (origin, target), row = np.concatenate(ends, axis=1), np.concatenate(rows)
    key = np.concatenate(keys)
    order = np.argsort(key, kind="stable")
    size = padded(len(order))
    origin, target, row = (
        np.concatenate([x[order], np.zeros((size - len(order), *x.shape[1:]), x.dtype)])
        for x in (origin.astype(np.int32), target.astype(np.int32), row)
    )
    lists = _lists(key[order], states * actions, size)
    lists = lists.reshape(states, actions, -1)[np.arange(states)[:, None], first]
    alone = certain & (np.take_along_axis(members, label, -1) == 1)
    found = Moves(
        origin=jnp.asarray(origin),
        target=jnp.asarray(target),
        chance=jnp.asarray(row),
        lists=jnp.asarray(lists, jnp.int32),
        reward=jnp.asarray(reward),
        alone=jnp.asarray(alone, reward.dtype),
        barred=jnp.asarray(np.where(_mask(model), 0, -np.inf), reward.dtype),
        informed=jnp.zeros((1, *reward.shape), reward.dtype),
        discount=jnp.asarray(model.discount, reward.dtype),
    )
    if constant:
        bound = _known(found, jnp.asarray(chance), jnp.asarray(index), horizon=horizon)
    else:
        bound = _fast_informed(found, horizon=horizon)
    return eqx.tree_at(lambda m: m.informed, found, bound)


def padded(count: int) -> int:
    """Return the length of a list of moves with its padding, at least one move."""
    return (
        -(-(count + 1) // CHUNK) * CHUNK if count >= CHUNK else 1 << count.bit_length()
    )


def _arrays(model: MOMDP) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return r [S, A, Y], P [S, A, N, Y(, Y')] and x' [S, A, N], with S = B X."""
    visible, _, actions, _ = model.sizes
    reward = _flat(np.swapaxes(np.asarray(model.reward), -1, -2), 3)
    chance = _flat(np.moveaxis(np.asarray(model.transition), -3, -1), 4)
    if model.hidden_transition is not None:
        after = _flat(np.moveaxis(np.asarray(model.hidden_transition), -4, -2), 5)
        chance = chance[..., None] * after
    index = np.asarray(model.listed())
    tasks = len(reward) // visible
    index = np.broadcast_to(index, (tasks, *index.shape[-3:]))
    index = index + visible * np.arange(tasks)[:, None, None, None]
    index = index.reshape(len(reward), actions, -1)
    return reward, *_merged(chance, index)


def _flat(x: np.ndarray, axes: int) -> np.ndarray:
    """Merge the batch axes with the first of the last `axes` axes."""
    return x.reshape(-1, *x.shape[x.ndim - axes + 1 :])


def _merged(chance: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lists in which no successor has a positive probability twice."""
    if (np.diff(index, axis=-1) > 0).all():
        return chance, index
    order = np.argsort(index, axis=-1, kind="stable")
    index = np.take_along_axis(index, order, -1)
    wide = order.reshape(*order.shape, *[1] * (chance.ndim - 3))
    chance = np.take_along_axis(chance, wide, 2)
    for n in range(index.shape[-1] - 1, 0, -1):
        again = index[..., n] == index[..., n - 1]
        chance[:, :, n - 1][again] += chance[:, :, n][again]
        chance[:, :, n][again] = 0
    return chance, index


def _of_hidden(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return x [S, A, Y] with the axes of P [S, A, N, Y, …]."""
    return x.reshape(*x.shape[:2], 1, x.shape[2], *[1] * (like.ndim - 4))


def _mask(model: MOMDP) -> Bool[np.ndarray, "S A"]:
    if model.admissible is None:
        return np.ones((int(np.prod(model.reward.shape[:-2])), model.sizes[2]), bool)
    return _flat(np.asarray(model.admissible), 2)


def _shown(model: MOMDP, index: np.ndarray) -> np.ndarray | None:
    """Return Z(o | x', y', a) [S, A, N, Y', O]; None without symbols."""
    if model.observation is None:
        return None
    shown = np.moveaxis(np.asarray(model.observation), -4, -3)  # [*B, X, A, Y, O]
    flat = _flat(shown, 4)
    return np.asarray(flat[index, np.arange(index.shape[1])[:, None]])


def _symbols(model: MOMDP, chance: np.ndarray, index: np.ndarray) -> Any:
    """Yield P(x', o, y' | x, y, a) of every symbol."""
    shown = _shown(model, index)
    if shown is None:
        yield chance
        return
    for o in range(shown.shape[-1]):
        seen = shown[..., o]
        yield chance * (seen if chance.ndim == 4 else seen[:, :, :, None])


def _first_equal(
    reward: np.ndarray,
    chance: np.ndarray,
    index: np.ndarray,
    shown: np.ndarray | None,
    mask: np.ndarray,
) -> Int[np.ndarray, "S A"]:
    """Return, for each visible value and action, the lowest action that is equal."""
    parts = [mask[..., None], reward, index, chance]
    parts += [] if shown is None else [shown]
    parts = [x.reshape(*x.shape[:2], -1) for x in parts]
    states, actions = mask.shape
    first = np.tile(np.arange(actions), (states, 1))
    for a in range(1, actions):
        left = np.ones(states, bool)
        for b in range(a):
            same = np.flatnonzero(left & (parts[1][:, a] == parts[1][:, b]).all(-1))
            for x in parts:
                same = same[(x[same, a] == x[same, b]).all(-1)]
            first[same, a] = first[same, b]
            left[same] = False
    return first


def equal_rewards(
    reward: Float[np.ndarray, "S A Y"], *, observed: bool
) -> tuple[Int[np.ndarray, "S A Y"], Int[np.ndarray, "S A G"]]:
    """Number the sets of hidden values with equal rewards, and count their members.

    If rewards are not observed, all hidden values form one set.
    """
    label = np.zeros(reward.shape, int)
    if not observed:
        return label, np.full((*reward.shape[:2], 1), reward.shape[-1])
    order = np.argsort(reward, axis=-1)
    ranked = np.take_along_axis(reward, order, axis=-1)
    apart = tolerance(reward.dtype) * np.maximum(1, abs(ranked[..., 1:]))
    step = np.diff(ranked, axis=-1) > apart
    rank = np.pad(step.cumsum(-1), ((0, 0), (0, 0), (1, 0)))
    np.put_along_axis(label, order, rank, axis=-1)
    sets = np.arange(label.max() + 1)
    members = np.stack([(label == g).sum(-1) for g in sets], axis=-1)
    return label, members


def _lists(key: np.ndarray, decisions: int, size: int) -> np.ndarray:
    """Return the moves of each decision, ascending; the last move pads the lists."""
    count = np.bincount(key, minlength=decisions)
    filled = np.arange(max(1, count.max())) < count[:, None]
    lists = np.full(filled.shape, size - 1)
    lists[filled] = np.arange(len(key))
    return lists


@partial(jax.jit, static_argnames="horizon")
def _known(model: Moves, chance: Array, index: Array, *, horizon: int) -> Array:
    """Return Q_t(x, a) of every hidden value, if it is known and never changes."""

    def stage(q: Array, _: None) -> tuple[Array, Array]:
        value = (q + model.barred[..., None]).max(1)  # [S, Y]
        future = (chance * value[index]).sum(2)
        q = model.reward + model.discount * future
        return q, q

    return _stages(stage, model, horizon)


@partial(jax.jit, static_argnames="horizon")
def _fast_informed(model: Moves, *, horizon: int) -> Array:
    """Return the fast informed bound of every stage."""

    def stage(q: Array, _: None) -> tuple[Array, Array]:
        each = jnp.einsum("lyz,laz->lay", model.chance, q[model.target])
        best = (each + model.barred[model.target][..., None]).max(1)  # [L, Y]
        q = model.reward + model.discount * best[model.lists].sum(2)
        return q, q

    return _stages(stage, model, horizon)


def _stages(stage: Any, model: Moves, horizon: int) -> Array:
    last = jnp.zeros_like(model.reward)
    _, found = jax.lax.scan(stage, last, length=horizon)
    return jnp.concatenate([found[::-1], last[None]])
