r"""Posterior over a task's parameters given demonstrations, for every family and kind.

The prior has finite support: candidates g with weights w_g. If states are observed,

    w_g ∝ w_g Π_t P_g(s_{t+1} | s_t, a_t),

and if they are hidden, symbols replace the states, with the forward filter of each
candidate,

    w_g ∝ w_g Π_t Pr_g(o_t | o_1, a_1, ..., a_{t-1}).

If agents observe their rewards, the likelihood includes these.
"""

import dataclasses
from functools import singledispatch
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.data.benchmark import Shown
from sdm.data.replay import replayed
from sdm.tasks.batches import map_tasks
from sdm.tasks.conjugate_family import ConjugateFamily
from sdm.tasks.family import Params
from sdm.tasks.models import MDP, POMDP, batch_shape
from sdm.tasks.momdp import MOMDP
from sdm.tasks.momdp_filter import HiddenBelief, HiddenFilter
from sdm.tasks.policy import draw
from sdm.tasks.rewards import agrees
from sdm.tasks.rollout import Trajectory
from sdm.tasks.transitions import SparseTransition, dense, likelihood

# Least probability of an outcome: the true parameters lie between candidates, so all
# candidates may exclude an outcome, and the posterior must still be defined.
IMPOSSIBLE = 1e-12


class Posterior(eqx.Module):
    """Probabilities of the candidates.

    Attributes:
        params: the candidates.
        models: the candidates' models, with hidden states if the tasks' are hidden.
        weight: probability of each candidate in each task.

    """

    params: Params
    models: Any
    weight: Float[Array, "B G"]

    def mean_model(self) -> Any:
        """Return the posterior-mean model of each task."""
        return mean_model(self.models, self.weight)

    def draw(self, uniform: Float[Array, "B N"]) -> Array:
        """Draw N candidates for each task by inverse transform."""
        return draw(self.weight[:, None, :], uniform.astype(self.weight.dtype))


@singledispatch
def mean_model(models: Any, weight: Float[Array, "B G"]) -> Any:
    """Return the mean of the candidates' models [G] for each task's weights."""
    moves = models.transition
    if isinstance(moves, SparseTransition) and not moves.shared:
        moves = dense(moves)  # lists that differ have no mean
    return _mean(dataclasses.replace(models, transition=moves), weight)


@mean_model.register
def _(models: MOMDP, weight: Float[Array, "B G"]) -> MOMDP:
    mean = _mean(models, weight)
    if models.hidden_transition is None:
        return mean
    # The mean of P(x', y' | x, y, a), and not of each of its factors.
    joint = _mean(models.transition[..., None] * models.hidden_transition, weight)
    likely = joint.sum(-1, keepdims=True)
    ratio = joint / jnp.where(likely > 0, likely, 1)
    moved = jnp.where(likely > 0, ratio, mean.hidden_transition)
    return dataclasses.replace(mean, hidden_transition=moved)


def _mean(models: Any, weight: Float[Array, "B G"]) -> Any:
    """Return the weighted means of all arrays of candidates."""

    def of(x: Array) -> Array:
        return (weight @ x.reshape(len(x), -1)).reshape(len(weight), *x.shape[1:])

    return map_tasks(of, models)


def candidates(bed: Shown) -> tuple[Params, Any, Float[Array, " G"]]:
    """Return the prior's candidates, their models and their weights."""
    family, kind = bed.config.prior_family, bed.config.kind
    params, weight = family.prior()
    models = family.model(params, "mdp" if kind == "mdp" else "pomdp")
    return params, models, weight


def prior(bed: Shown) -> Posterior:
    """Return the prior of each task of a benchmark."""
    params, models, weight = candidates(bed)
    tasks = bed.config.tasks
    return Posterior(params, models, jnp.broadcast_to(weight, (tasks, len(weight))))


def posterior(bed: Shown) -> Posterior:
    """Return the posterior of each task of a benchmark, given its demonstrations."""
    params, models, weight = candidates(bed)
    log = jnp.log(weight)[None] + log_likelihood(
        models, bed.support, rewards=bed.config.rewards_seen
    )
    return Posterior(params, models, jax.nn.softmax(log, axis=-1))


def log_likelihood(
    models: Any, support: Trajectory, *, rewards: bool
) -> Float[Array, "B G"]:
    """Return the log-likelihood of each task's episodes under each candidate.

    Args:
        models: the candidates' models, [G].
        support: episodes of each task, [B, N, T].
        rewards: whether the likelihood includes the rewards.

    """
    tasks, episodes, _ = support.observation.shape
    if not episodes:
        return jnp.zeros((tasks, *batch_shape(models)), models.reward.dtype)
    return likelihoods(models, support, rewards=rewards)


@singledispatch
def likelihoods(models: Any, support: Trajectory, *, rewards: bool) -> Array:
    """Return `log_likelihood` of at least one episode, for a class of models.

    Raises:
        TypeError: if it is unknown for this class.

    """
    raise TypeError(f"posterior: not available for {type(models).__name__} models")


def _log(chance: Array) -> Array:
    return jnp.log(jnp.maximum(chance, IMPOSSIBLE))


def _agrees(paid: Array, expected: Array) -> Array:
    """Return 1 where a reward is a candidate's, and 0 elsewhere."""
    return agrees(paid, expected).astype(expected.dtype)


@likelihoods.register(MDP)
@eqx.filter_jit
def _of_states(models: MDP, support: Trajectory, *, rewards: bool) -> Array:
    def of_task(played: Trajectory) -> Array:
        state, action = played.observation, played.action
        before, after = state[..., :-1], state[..., 1:]
        moves = _log(likelihood(models.transition, before, action[..., :-1], after))
        log = moves.sum((-2, -1))
        if rewards and models.law is not None:
            each = models.law.log_likelihood(state, action, played.reward)
            log += jnp.maximum(each, np.log(IMPOSSIBLE)).sum((-2, -1))
        elif rewards:
            expected = models.reward[:, state, action]
            log += _log(_agrees(played.reward[None], expected)).sum((-2, -1))
        return log

    # Task by task, since the probabilities of all tasks would not fit the memory.
    return jax.lax.map(of_task, support)


@likelihoods.register(POMDP)
@eqx.filter_jit
def _of_symbols(models: POMDP, support: Trajectory, *, rewards: bool) -> Array:
    first = models.initial_observation

    def weigh(joint: Array, likelihood: Array) -> tuple[Array, Array]:
        new = joint * likelihood
        mass = new.sum(-1, keepdims=True)
        kept = jnp.where(mass > 0, new / jnp.where(mass > 0, mass, 1), joint)
        return kept, _log(mass[..., 0])

    def paid(belief: Array, action: Array, reward: Array) -> tuple[Array, Array]:
        if not rewards:
            return belief, jnp.zeros(len(belief), belief.dtype)
        return weigh(belief, _agrees(reward, models.reward[:, :, action]))

    def step(belief: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        action, reward, symbol = now
        belief, log_reward = paid(belief, action, reward)
        moved = jnp.einsum("gs,gsm->gm", belief, dense(models.transition)[:, :, action])
        belief, log = weigh(moved, models.observation[:, action, :, symbol])
        return belief, log + log_reward

    def of_episode(seen: Array, done: Array, reward: Array) -> Array:
        belief, log = models.initial, jnp.zeros(len(models.initial), reward.dtype)
        if first is not None:
            belief, log = weigh(belief, first[:, :, seen[0]])
        belief, logs = jax.lax.scan(step, belief, (done[:-1], reward[:-1], seen[1:]))
        _, last = paid(belief, done[-1], reward[-1])
        return log + logs.sum(0) + last

    def of_task(played: Trajectory) -> Array:
        parts = (played.observation, played.action, played.reward)
        return jax.vmap(of_episode)(*parts).sum(0)

    # Task by task, since the filters of all tasks would not fit the memory.
    return jax.lax.map(of_task, support)


@likelihoods.register(MOMDP)
@eqx.filter_jit
def _of_visible(models: MOMDP, support: Trajectory, *, rewards: bool) -> Array:
    belief = HiddenFilter(dataclasses.replace(models, observes_reward=rewards))
    count = len(models.initial)

    def of_stage(t: Array, state: HiddenBelief, action: Array) -> Array:
        return _log(state.likelihood)

    def of_task(played: Trajectory) -> Array:
        each = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), played)
        log, last = replayed(of_stage, belief, each)  # [G, N, T]
        paid = belief.rewarded(last, each.action[..., -1], each.reward[..., -1])
        return (log.sum(-1) + _log(paid.likelihood)).sum(-1)

    # Task by task, since the filters of all tasks would not fit the memory.
    return jax.lax.map(of_task, support)


def count_moves(bed: Shown) -> np.ndarray:
    """Return the counts of a conjugate family over each task's demonstrations, [B, C].

    The last decision of an episode adds nothing, since its outcome is not observed.
    """
    family = bed.config.prior_family
    assert isinstance(family, ConjugateFamily)
    state, action = np.asarray(bed.support.observation), np.asarray(bed.support.action)
    moves = family.tally(state[..., :-1], action[..., :-1], state[..., 1:])
    return moves.sum((1, 2))
