r"""Observed rewards: tasks whose symbols include the last reward.

If an agent observes its rewards, the reward r(s, a) is informative about the state s.
The task is then equivalent to a larger one with symbols only: its states are pairs
(s', l) of a state and the level l of the last reward, its symbols are pairs (o, l), and

    P(s', l | s, a)  = P(s' | s, a) 1[l is the level of r(s, a)]
    Z(o, l | s', l, a) = Z(o | s', a).

Levels are the distinct rewards of a task, in increasing order. Every POMDP solver
applies to the larger task. Its future does not depend on the level in the current pair,
so that a belief over the states s is sufficient to act.

Cost: up to S L states and exactly O L symbols. Pairs that are unreachable in all tasks
of the batch are omitted: an energy task with 10 states and 11 rewards has 29 pairs.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sdm.tasks.admissible import mask_of
from sdm.tasks.models import APOMDP, POMDP
from sdm.tasks.stages import check_stationary
from sdm.tasks.transitions import dense

# Two rewards are equal if they agree up to rounding: relative to the larger of 1 and
# their magnitude and, in single precision, up to a few units in the last place.
SAME_REWARD = 1e-9
UNITS = 8


def tolerance(kind: np.dtype) -> float:
    """Return the relative tolerance for equal rewards of a floating-point type."""
    return max(SAME_REWARD, UNITS * float(np.finfo(kind).eps))


def agrees(
    paid: Float[Array, "*#B"], expected: Float[Array, "*#B"]
) -> Bool[Array, "*B"]:
    """Return whether each reward equals the expected one, up to rounding."""
    scale = jnp.maximum(1, jnp.abs(expected))
    return jnp.abs(paid - expected) <= tolerance(expected.dtype) * scale


class RewardsObserved(NamedTuple):
    """Tasks with observed rewards, as equivalent tasks with symbols only.

    Attributes:
        model: the tasks, over P pairs of a state and a level.
        levels: distinct rewards of each task in increasing order; the last one repeats
            if a task has fewer than the others.
        state: the state of each pair; pairs are sorted by s L + l.
        level: the level of each pair.
        start: the pair of each state with level 0, in which episodes start.

    """

    model: POMDP | APOMDP
    levels: Float[np.ndarray, "B L"]
    state: Int[np.ndarray, " P"]
    level: Int[np.ndarray, " P"]
    start: Int[np.ndarray, " S"]


def reward_levels(
    reward: Float[np.ndarray, "B S A"],
) -> tuple[Float[np.ndarray, "B L"], Int[np.ndarray, "B S A"]]:
    """Return the distinct rewards of each task, and the level of every decision."""
    flat = reward.reshape(len(reward), -1)
    order = flat.argsort(-1, kind="stable")
    ranked = np.take_along_axis(flat, order, -1)
    apart = tolerance(reward.dtype) * np.maximum(1, np.abs(ranked[:, 1:]))
    place = np.zeros(flat.shape, np.int64)
    place[:, 1:] = np.cumsum(np.diff(ranked) > apart, axis=-1)
    levels = np.repeat(ranked[:, -1:], place.max() + 1, axis=-1)
    for task, (values, places) in enumerate(zip(ranked, place, strict=True)):
        levels[task, places[::-1]] = values[::-1]  # the smallest of equal ones
    level = np.zeros_like(place)
    np.put_along_axis(level, order, place, -1)
    return levels, level.reshape(reward.shape)


def observe_rewards(model: POMDP | APOMDP) -> RewardsObserved:
    """Return the tasks in which the agents observe their rewards.

    The symbol (o, l) has the number o L + l. Before the first action there is no
    reward, and l = 0.

    Args:
        model: a batch with one leading axis.

    Raises:
        ValueError: if an array depends on the stage.

    """
    check_stationary(model, "`observe_rewards`")
    reward, mask = np.asarray(model.reward), mask_of(model)
    levels, level_of = reward_levels(reward)
    same = np.eye(levels.shape[1], dtype=reward.dtype)
    paid = same[level_of]  # [B, S, A, L]
    moves, shown, first = _with_models(model)
    leads = np.einsum("bsan,bsal->nl", (moves > 0).any(1) + 0.0, paid) > 0
    leads[:, 0] = True  # initial pairs
    state, level = np.nonzero(leads)
    start = np.flatnonzero(level == 0)
    own = paid[:, None, state][..., level]  # [B, 1, P, A, P]
    transition = moves[:, :, state][..., state] * own
    observation = _paired(shown[:, :, :, state], same[level])
    initial = np.zeros((len(reward), len(state)), reward.dtype)
    initial[:, start] = np.asarray(model.initial)
    if first is not None:
        nothing = np.broadcast_to(same[0], (len(state), len(same)))
        first = _paired(first[:, :, state], nothing)
    made = _like(model, transition, observation, reward[:, state], initial, first)
    if mask is not None and isinstance(made, POMDP):
        made = dataclasses.replace(made, admissible=jnp.asarray(mask)[:, state])
    return RewardsObserved(
        made,
        levels,
        state,
        level,
        start,
    )


def _with_models(
    model: POMDP | APOMDP,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return transition, observation and initial observation with an axis of models."""
    parts = [
        None if x is None else np.asarray(x)
        for x in (
            dense(model.transition),
            model.observation,
            model.initial_observation,
        )
    ]
    if isinstance(model, POMDP):
        parts = [None if x is None else x[:, None] for x in parts]
    moves, shown, first = parts
    assert moves is not None and shown is not None
    return moves, shown, first


def _paired(
    shown: Float[np.ndarray, "*B P O"], level: Float[np.ndarray, "P L"]
) -> Float[np.ndarray, "*B P C"]:
    """Return the probabilities of symbols (o, l), where each pair shows its level."""
    both = shown[..., None] * level[:, None]
    return both.reshape(*shown.shape[:-1], -1)


def _like(
    model: POMDP | APOMDP,
    transition: np.ndarray,
    observation: np.ndarray,
    reward: np.ndarray,
    initial: np.ndarray,
    first: np.ndarray | None,
) -> POMDP | APOMDP:
    """Return a model of the same type with these parts."""
    if isinstance(model, APOMDP):
        return APOMDP(
            transition=jnp.asarray(transition),
            observation=jnp.asarray(observation),
            reward=jnp.asarray(reward),
            initial=jnp.asarray(initial),
            alpha=model.alpha,
            discount=model.discount,
            initial_observation=None if first is None else jnp.asarray(first),
        )
    return POMDP(
        transition=jnp.asarray(transition[:, 0]),
        observation=jnp.asarray(observation[:, 0]),
        reward=jnp.asarray(reward),
        initial=jnp.asarray(initial),
        discount=model.discount,
        initial_observation=None if first is None else jnp.asarray(first[:, 0]),
    )
