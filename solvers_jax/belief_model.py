"""POMDPs and ambiguous POMDPs in one form, as the solvers over beliefs take them."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.tasks.models import APOMDP, POMDP, Scalar


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


class Units(eqx.Module):
    """What the kernels' rewards stand for: centre + scale × theirs.

    Theirs lie between -1 and 1. What a solver chooses in single precision, and
    every absolute tolerance, then fits any rewards: a common bonus, cents or millions.

    Attributes:
        centre: middle of the task's rewards; 0 where some rows do not sum to 1 up to
            rounding, as a bonus in every stage is then no constant.
        scale: range of the rewards, or the largest where the centre is 0; 1 where that
            is 0.

    """

    centre: Float[Array, "*B"]
    scale: Float[Array, "*B"]


def standardise(model: BeliefModel) -> tuple[BeliefModel, Units]:
    """The same task in units of its own, with its leading axes."""
    low, high = model.reward.min((-2, -1)), model.reward.max((-2, -1))
    keeps = jnp.asarray(lost_mass(model) <= _sum_rounding(model))
    centre = jnp.where(keeps, low / 2 + high / 2, 0)
    span = jnp.where(keeps, high - low, jnp.maximum(abs(low), abs(high)))
    scale = jnp.where(span > 0, span, 1)
    reward = (model.reward - centre[..., None, None]) / scale[..., None, None]
    return eqx.tree_at(lambda m: m.reward, model, reward), Units(centre, scale)


def lost_mass(model: BeliefModel) -> Float[Array, "*B"]:
    """How far a row of probabilities is from summing to 1, at most."""
    batch = model.reward.ndim - 2
    worst = [
        jnp.abs(rows.sum(-1) - 1).max(tuple(range(batch, rows.ndim - 1)))
        for rows in (model.transition, model.observation, model.root_mass)
    ]
    return jnp.stack(worst).max(0)


def _sum_rounding(model: BeliefModel) -> float:
    """How far that is where each probability is the nearest number to its own."""
    return float(_terms(model) * np.finfo(model.reward.dtype).eps)


def _terms(model: BeliefModel) -> int:
    """Terms of the longest sums: states, and symbols."""
    return model.transition.shape[-1] + model.observation.shape[-1]


def annuities(discount: Float[Array, "*B"], horizon: int) -> Float[Array, "*B U"]:
    """1 + γ + … of 0, 1, …, T stages: what a reward of 1 in each is worth."""
    stage = jnp.arange(horizon, dtype=discount.dtype)
    factors = discount[..., None] ** stage.reshape(*[1] * discount.ndim, -1)
    return jnp.concatenate(
        [jnp.zeros_like(factors[..., :1]), jnp.cumsum(factors, axis=-1)], axis=-1
    )


def rounding(model: BeliefModel, units: Units, horizon: int) -> Float[np.ndarray, " B"]:
    """How far rounding can carry a bound: what certified bounds are widened by.

    T stages of sums over states and symbols, each off by less than one unit in the last
    place a term, of values no larger than T times the largest reward; and the same for
    the centre of the rewards, which is taken away and added again, and which the rows
    of a stage may lose as much of as `standardise` lets pass.
    """
    terms = _terms(model)
    largest_value = horizon * np.abs(np.asarray(model.reward)).max((-2, -1))
    unit = np.finfo(model.reward.dtype).eps
    kernel = unit * horizon * terms * largest_value * np.asarray(units.scale)
    centre = np.abs(np.asarray(units.centre))
    return np.asarray(kernel + unit * horizon * (4 + terms * horizon) * centre)
