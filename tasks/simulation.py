"""Simulate the policy of a solution in its own model.

A class of models says how an agent acts in it:

    @in_its_model.register
    def _(model: MyModel, plan: Plan) -> Played: ...
"""

from functools import singledispatch
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from scipy import stats

from sdm.tasks.admissible import mask_of
from sdm.tasks.belief import BeliefPolicy, belief_filter
from sdm.tasks.models import APOMDP, MDP, POMDP, Model, RobustMDP, check_count
from sdm.tasks.policy import Policy
from sdm.tasks.rollout import discounted_return, rollout, task_keys
from sdm.tasks.rollout_in_models import all_models, play_in_models
from sdm.tasks.stages import models_as_tasks
from sdm.tasks.transitions import take_tasks

# Numbers that the simulation of one block of episodes may hold, 8 bytes each.
BLOCK = 1 << 24
MOST_AT_ONCE = 4096  # episodes


@runtime_checkable
class Plan(Protocol):
    """Interface of a solution of one task: actions in states or beliefs."""

    def action(self, t: int | Int[Array, ""], x: Any) -> Int[Array, " N"]:
        """Return the actions at stage `t` for N states or beliefs."""
        ...


class Played(NamedTuple):
    """How a plan is played in a model.

    Attributes:
        worlds: the K models that can generate episodes, as a batch.
        policy: the agent, in a batch of one task.
        numbers: numbers held for each episode and model.

    """

    worlds: Any
    policy: Policy
    numbers: int


class Simulation(NamedTuple):
    """Discounted returns of simulated episodes, for each of K models.

    Attributes:
        mean: mean return.
        low: lower end of the 95 % confidence interval of the mean (Student's t);
            NaN for one episode.
        high: upper end.

    """

    mean: Float[np.ndarray, " K"]
    low: Float[np.ndarray, " K"]
    high: Float[np.ndarray, " K"]


class OneTask(eqx.Module):
    """The solution of one task, for beliefs or states of a batch of one."""

    plan: Plan

    def action(self, t: int | Int[Array, ""], x: Any) -> Int[Array, "1 N"]:
        """Return the actions at stage `t`."""
        return self.plan.action(t, x[0])[None]


class StatePolicy(eqx.Module):
    """Policy that takes the plan's action in the state, which it observes."""

    plan: OneTask

    def init(self, model: Model) -> None:
        """Return None: the policy has no memory."""

    def act(
        self,
        memory: None,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], None]:
        """Return the plan's actions."""
        return self.plan.action(t, observation), None


@singledispatch
def in_its_model(model: Any, plan: Plan) -> Played:
    """Return how the plan of a model is played in it.

    Raises:
        TypeError: if it is unknown for this class of models.

    """
    raise TypeError(f"simulation: not available for {type(model).__name__} models")


def check_simulation(model: Any) -> None:
    """Raise `ValueError` if solutions of this class of models cannot be simulated."""
    if in_its_model.dispatch(type(model)) is in_its_model.dispatch(object):
        raise ValueError(
            f"simulation: not available for {type(model).__name__} models, which have "
            "no single law of the next state; solve without `--simulate`"
        )


@in_its_model.register
def _(model: MDP, plan: Plan) -> Played:
    return Played(batch_of_one(model), StatePolicy(OneTask(plan)), len(model.initial))


@in_its_model.register
def _(model: RobustMDP, plan: Plan) -> Played:
    models = model.transition.shape[-4]
    reward, initial = (
        jnp.broadcast_to(x, (models, *x.shape)) for x in (model.reward, model.initial)
    )
    mask = mask_of(model)
    allowed = None if mask is None else jnp.broadcast_to(mask, (models, *mask.shape))
    moves = models_as_tasks(model, "transition")
    worlds = MDP(moves, reward, initial, model.discount, allowed)
    return Played(worlds, StatePolicy(OneTask(plan)), len(model.initial))


@in_its_model.register
def _(model: POMDP, plan: Plan) -> Played:
    batch = batch_of_one(model)
    policy = BeliefPolicy(OneTask(plan), belief_filter(batch))
    return Played(batch, policy, _numbers(model.observation, models=1))


@in_its_model.register
def _(model: APOMDP, plan: Plan) -> Played:
    batch = batch_of_one(model)
    policy = BeliefPolicy(OneTask(plan), belief_filter(batch, believe="mixture"))
    models = model.transition.shape[-4]
    return Played(
        all_models(batch), policy, models * _numbers(model.observation, models=models)
    )


def batch_of_one(model: Any) -> Any:
    """Return one task as a batch of one, which filters and episodes need."""
    return take_tasks(model, None)


def _numbers(observation: Float[Array, "*K A S O"], *, models: int) -> int:
    """Return the size of a belief update and of the lookahead at one belief."""
    actions, states, symbols = observation.shape[-3:]
    return models * states * (states + actions * symbols)


def simulate(
    key: Key[Array, ""], model: Any, plan: Plan, *, horizon: int, episodes: int
) -> Simulation:
    """Play the policy of a solution in its model.

    In a set of K models, which do not say which of them is true, the agent filters with
    all of them, and plays in each.

    Args:
        key: random key; the same key gives the same episodes.
        model: one task.
        plan: its solution.
        horizon: decisions per episode.
        episodes: episodes in each model.

    Raises:
        TypeError: if simulation is unknown for this class of models.
        ValueError: if there is no episode.

    """
    every = simulated_returns(key, model, plan, horizon=horizon, episodes=episodes)
    mean, half = every.mean(-1), np.full(len(every), np.nan)
    if episodes > 1:
        half = stats.sem(every, axis=-1) * stats.t.ppf(0.975, episodes - 1)
    return Simulation(mean, mean - half, mean + half)


def simulated_returns(
    key: Key[Array, ""], model: Any, plan: Plan, *, horizon: int, episodes: int
) -> Float[np.ndarray, "K N"]:
    """Return the discounted return of each episode; see `simulate`.

    Episode n depends on the key and n only.
    """
    check_count("episodes", episodes, 1)
    played = in_its_model(model, plan)
    # A power of two, so that the number of episodes does not change the blocks' size.
    fit = max(1, BLOCK // max(1, played.numbers))
    size = min(MOST_AT_ONCE, 1 << (fit.bit_length() - 1))
    blocks = -(-episodes // size)
    size = min(size, 1 << (episodes - 1).bit_length())
    returns = []
    for one in task_keys(key, blocks):
        seen = play_in_models(
            rollout,
            one[None],
            played.worlds,
            played.policy,
            horizon=horizon,
            episodes=size,
        )
        returns.append(np.asarray(discounted_return(seen.reward[0], model.discount)))
    return np.concatenate(returns, axis=-1)[:, :episodes]
