"""Common format of POMDPs and ambiguous POMDPs for solvers over beliefs."""

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from sdm.tasks.admissible import mask_of
from sdm.tasks.models import APOMDP, POMDP, Scalar
from sdm.tasks.stages import at_stage, axes, equal_stages
from sdm.tasks.transitions import dense


class BeliefModel(eqx.Module):
    """Tasks in the kernels' format: K models and the initial beliefs.

    Kernels take the model of one stage; see `at_stage`.

    Attributes:
        transition: P_k(s' | s, a).
        observation: Z_k(o | s', a).
        reward: r(s, a).
        root: beliefs before the first action, one per model and first symbol.
        root_mass: probability of each first symbol under each model.
        alpha: weight of the worst model.
        discount: factor per stage.
        admissible: which actions can be chosen in each state; None for all. In
            standardised rewards, others have a penalty that no policy can afford.

    """

    axes_at_a_stage: ClassVar[Mapping[str, int]] = axes(
        root=2, transition=4, observation=4, reward=2, admissible=2
    )

    transition: Float[Array, "... K S A S"]
    observation: Float[Array, "... K A S O"]
    reward: Float[Array, "... S A"]
    root: Float[Array, "*B R S"]
    root_mass: Float[Array, "*B K I"]
    alpha: Float[Array, "*B"]
    discount: Float[Array, "*B"]
    admissible: Bool[Array, "... S A"] | None = None


def belief_model(model: POMDP | APOMDP) -> BeliefModel:
    """Convert a model to the kernels' format, with its leading axes."""
    transition, observation = dense(model.transition), model.observation
    first = model.initial_observation
    alpha: Scalar = 0.0
    if isinstance(model, POMDP):
        transition = transition[..., None, :, :, :]
        observation = observation[..., None, :, :, :]
        first = None if first is None else first[..., None, :, :]
    else:
        alpha = model.alpha
    batch, kind = model.initial.shape[:-1], model.reward.dtype
    models = transition.shape[-4]
    reward, mask = model.reward, mask_of(model)
    if mask is not None:
        reward, mask = equal_stages(model, reward, mask)
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
        reward=reward,
        root=root.reshape(*batch, -1, root.shape[-1]),
        root_mass=mass,
        alpha=jnp.broadcast_to(jnp.asarray(alpha, kind), batch),
        discount=jnp.broadcast_to(jnp.asarray(model.discount, kind), batch),
        admissible=mask,
    )


def equal_actions(model: POMDP | APOMDP) -> tuple[int, ...]:
    """Return, for each action, the lowest index of an equal action.

    Actions are equal if their arrays, or lists of next states, are equal in every task
    of the batch.
    """
    reward, observation = np.asarray(model.reward), np.asarray(model.observation)
    moves = [np.asarray(x) for x in jax.tree.leaves(model.transition)]
    mask = mask_of(model)
    allowed = np.ones_like(reward, bool) if mask is None else np.asarray(mask)

    def same(a: int, b: int) -> bool:
        return (
            np.array_equal(allowed[..., a], allowed[..., b])
            and np.array_equal(reward[..., a], reward[..., b])
            and all(np.array_equal(x[..., a, :], x[..., b, :]) for x in moves)
            and np.array_equal(observation[..., a, :, :], observation[..., b, :, :])
        )

    every = range(reward.shape[-1])
    return tuple(next(b for b in every if b == a or same(a, b)) for a in every)


def distinct_actions(model: POMDP | APOMDP) -> tuple[int, ...]:
    """Return the lowest index of each distinct action; see `equal_actions`."""
    return tuple(sorted(set(equal_actions(model))))


def restrict(model: BeliefModel, actions: tuple[int, ...]) -> BeliefModel:
    """Return the model with these actions only."""
    chosen = np.asarray(actions)
    return BeliefModel(
        transition=model.transition[..., chosen, :],
        observation=model.observation[..., chosen, :, :],
        reward=model.reward[..., chosen],
        root=model.root,
        root_mass=model.root_mass,
        alpha=model.alpha,
        discount=model.discount,
        admissible=None if model.admissible is None else model.admissible[..., chosen],
    )


class Units(eqx.Module):
    """Scaling of standardised rewards: reward = centre + scale × standardised reward.

    Values of good policies lie near zero, at most about T, in standardised units.
    Numbers near zero have the smallest absolute rounding error, so a penalty that is
    far larger than these values does not blur comparisons between good actions.

    Attributes:
        centre: value per stage if the states were observed; 0 if some rows do not
            sum to 1 up to rounding, since the value of a constant reward then depends
            on the policy.
        scale: range of the rewards, or the largest magnitude if rows do not sum to 1;
            1 if that is 0.

    """

    centre: Float[Array, "*B"]
    scale: Float[Array, "*B"]


def standardise(model: BeliefModel, horizon: int) -> tuple[BeliefModel, Units]:
    """Return the model with standardised rewards, and their scaling."""
    low, high = _extremes(model)
    keeps = jnp.asarray(lost_mass(model) <= _sum_rounding(model))
    centre = jnp.where(keeps, _observed_value_per_stage(model, horizon), 0)
    span = jnp.where(keeps, high - low, jnp.maximum(abs(low), abs(high)))
    scale = jnp.where(span > 0, span, 1)
    centres, scales = (
        jnp.expand_dims(x, tuple(range(x.ndim, model.reward.ndim)))
        for x in (centre, scale)
    )
    reward = (model.reward - centres) / scales
    if model.admissible is not None:
        penalty = jnp.asarray(-inadmissible(reward.dtype), reward.dtype)
        reward = jnp.where(model.admissible, reward, penalty)
    return eqx.tree_at(lambda m: m.reward, model, reward), Units(centre, scale)


def _observed_value_per_stage(model: BeliefModel, horizon: int) -> Float[Array, "*B"]:
    """Return the value of the most favourable model with observed states, per stage.

    It is an average of rewards, so it lies between the smallest and the largest.
    """
    hosted = jax.tree.map(np.asarray, model)
    discount = hosted.discount[..., None, None]
    value = np.zeros((*hosted.discount.shape, hosted.reward.shape[-2]))
    value = value.astype(hosted.reward.dtype)
    for t in reversed(range(horizon)):
        now = at_stage(hosted, t)
        *batch, models, states, actions, _ = now.transition.shape
        rows = now.transition.reshape(*batch, models, states * actions, states)
        after = (rows @ value[..., None, :, None])[..., 0].max(-2)
        gain = now.reward + discount * after.reshape(*batch, states, actions)
        if now.admissible is not None:
            gain = np.where(now.admissible, gain, -np.inf)
        value = gain.max(-1)
    # The first beliefs are those under model 1, one for each first symbol.
    mass = np.asarray(model.root_mass)[..., 0, :]
    root = np.asarray(model.root)[..., : mass.shape[-1], :]
    total = (mass * (root * value[..., None, :]).sum(-1)).sum(-1)
    years = np.asarray(annuities(model.discount, horizon)[..., -1])
    average = total / years
    return jnp.clip(jnp.asarray(average), *_extremes(model))


def _extremes(model: BeliefModel) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
    """Return the smallest and the largest reward of an admissible action."""
    reward, mask = model.reward, model.admissible
    own = tuple(range(model.discount.ndim, reward.ndim))  # with the axis of stages
    if mask is None:
        return reward.min(own), reward.max(own)
    infinite = jnp.asarray(jnp.inf, reward.dtype)
    low = jnp.where(mask, reward, infinite).min(own)
    return low, jnp.where(mask, reward, -infinite).max(own)


def inadmissible(kind: DTypeLike) -> float:
    """Return the standardised penalty of an action that is not admissible.

    It is finite, so that it times a probability of zero is zero, and so large that a
    possible violation of any probability above 1e-50 (1e-10 in single precision) is
    worse than every reward; see `impossible`.
    """
    return 1e150 if np.dtype(kind) == np.float64 else 1e30


def impossible(value: Any) -> Any:
    """Return which standardised values include an action that is not admissible.

    The result is an array of the same kind as `value`, of NumPy or JAX.
    """
    least = 1e100 if np.dtype(value.dtype) == np.float64 else 1e20
    return value < -least


def lost_mass(model: BeliefModel) -> Float[Array, "*B"]:
    """Return the largest deviation from 1 of the sum of a row of probabilities."""
    batch = model.discount.ndim
    worst = [
        jnp.abs(rows.sum(-1) - 1).max(tuple(range(batch, rows.ndim - 1)))
        for rows in (model.transition, model.observation, model.root_mass)
    ]
    return jnp.stack(worst).max(0)


def _sum_rounding(model: BeliefModel) -> float:
    """Return the deviation that rounding of each probability can cause."""
    return float(terms(model) * np.finfo(model.reward.dtype).eps)


def terms(model: BeliefModel) -> int:
    """Return the number of terms of the longest sums, over states and symbols."""
    return model.transition.shape[-1] + model.observation.shape[-1]


def annuities(discount: Float[Array, "*B"], horizon: int) -> Float[Array, "*B U"]:
    """Return Σ_{i<n} γ^i for n = 0, …, T: the value of a reward of 1 in n stages."""
    stage = jnp.arange(horizon, dtype=discount.dtype)
    factors = discount[..., None] ** stage.reshape(*[1] * discount.ndim, -1)
    return jnp.concatenate(
        [jnp.zeros_like(factors[..., :1]), jnp.cumsum(factors, axis=-1)], axis=-1
    )
