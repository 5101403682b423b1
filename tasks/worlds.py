"""Worlds: what models of each class do when they generate episodes.

A *world* is a batch of models in which agents play. These functions are all that
episodes and policies need of it; each class of models registers its own:

    @next_state.register
    def _(world: MyModel, task, state, action, uniform): ...

States and symbols are numbers. The arrays of `task` [B, 1], states and actions [B, N]
say of which task of the batch, and in which episode.
"""

from functools import singledispatch
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sdm.tasks.admissible import masked_rewards
from sdm.tasks.models import APOMDP, MDP, POMDP, RobustMDP
from sdm.tasks.policy import draw
from sdm.tasks.stages import models_as_tasks
from sdm.tasks.transitions import of_models, rows


class Sizes(NamedTuple):
    """Numbers of states, actions and symbols of a world."""

    states: int
    actions: int
    symbols: int


def _unknown(what: str, model: Any) -> TypeError:
    return TypeError(f"{what}: not available for {type(model).__name__} models")


@singledispatch
def sizes_of(world: Any) -> Sizes:
    """Return the numbers of states, actions and symbols.

    Raises:
        TypeError: if models of this class do not generate episodes.

    """
    raise _unknown("episodes", world)


@singledispatch
def world_of(model: Any) -> Any:
    """Return the model that generates episodes: the first one of an ambiguity set."""
    return model


@singledispatch
def every_world(model: Any) -> Any:
    """Return all models that can generate episodes, those of a task in a row."""
    return model


@singledispatch
def first_seen(
    world: Any,
    task: Int[Array, "B 1"],
    state: Int[Array, "B N"],
    uniform: Float[Array, "B N"],
) -> Int[Array, "B N"]:
    """Return what is observed before the first action; -1 if that is nothing."""
    raise _unknown("episodes", world)


@singledispatch
def next_seen(
    world: Any,
    task: Int[Array, "B 1"],
    action: Int[Array, "B N"],
    state: Int[Array, "B N"],
    uniform: Float[Array, "B N"],
) -> Int[Array, "B N"]:
    """Return what is observed in states that actions reached."""
    raise _unknown("episodes", world)


@singledispatch
def next_state(
    world: Any,
    task: Int[Array, "B 1"],
    state: Int[Array, "B N"],
    action: Int[Array, "B N"],
    uniform: Float[Array, "B N"],
) -> Int[Array, "B N"]:
    """Draw the next states by inverse transform."""
    raise _unknown("episodes", world)


@singledispatch
def first_state(world: Any, uniform: Float[Array, "B N"]) -> Int[Array, "B N"]:
    """Draw the first states by inverse transform."""
    return draw(world.initial[:, None, :], uniform.astype(world.initial.dtype))


@singledispatch
def expected_reward(
    world: Any,
    task: Int[Array, "B 1"],
    state: Int[Array, "B N"],
    action: Int[Array, "B N"],
) -> Float[Array, "B N"]:
    """Return the expected rewards of decisions; -inf if an action is not admissible."""
    return masked_rewards(world)[task, state, action]


@singledispatch
def over_states(
    world: Any, table: Float[Array, "B T O A"]
) -> Float[Array, "B T S A"] | None:
    """Return a policy over observations as a policy over states.

    Returns:
        Its action probabilities in each state; None unless symbols depend on the state
        alone.

    """
    return None


@sizes_of.register
def _(world: MDP) -> Sizes:
    *_, states, actions = world.reward.shape
    return Sizes(states, actions, states)


@sizes_of.register
def _(world: POMDP) -> Sizes:
    *_, states, actions = world.reward.shape
    return Sizes(states, actions, world.observation.shape[-1])


@first_seen.register
def _(world: MDP, task: Any, state: Any, uniform: Any) -> Int[Array, "B N"]:
    return state


@first_seen.register
def _(world: POMDP, task: Any, state: Any, uniform: Any) -> Int[Array, "B N"]:
    if world.initial_observation is None:
        return jnp.full_like(state, -1)
    row = world.initial_observation[task, state]
    return draw(row, uniform.astype(row.dtype))


@next_seen.register
def _(
    world: MDP, task: Any, action: Any, state: Any, uniform: Any
) -> Int[Array, "B N"]:
    return state


@next_seen.register
def _(
    world: POMDP, task: Any, action: Any, state: Any, uniform: Any
) -> Int[Array, "B N"]:
    row = world.observation[task, action, state]
    return draw(row, uniform.astype(row.dtype))


@next_state.register(MDP)
@next_state.register(POMDP)
def _(
    world: MDP | POMDP, task: Any, state: Any, action: Any, uniform: Any
) -> Int[Array, "B N"]:
    row, states = rows(world.transition, task, state, action)
    after = draw(row, uniform.astype(row.dtype))
    if states is None:
        return after
    return jnp.take_along_axis(states, after[..., None], axis=-1)[..., 0]


@over_states.register
def _(world: MDP, table: Any) -> Float[Array, "B T S A"]:
    return table


@over_states.register
def _(world: POMDP, table: Any) -> Float[Array, "B T S A"] | None:
    first, later = world.initial_observation, np.asarray(world.observation)
    if first is None or not (later == np.asarray(first)[:, None]).all():
        return None
    return jnp.einsum("bso,btoa->btsa", first, table)


@world_of.register
def true_model(model: APOMDP, k: int = 0) -> POMDP:
    """Return model k of every task: the environment that generates episodes."""
    index = np.asarray(k)
    first = model.initial_observation
    return POMDP(
        of_models(model.transition, index),
        jnp.take(model.observation, index, axis=-4),
        model.reward,
        model.initial,
        model.discount,
        None if first is None else jnp.take(first, index, axis=-3),
    )


@world_of.register
def _(model: RobustMDP) -> MDP:
    return MDP(
        of_models(model.transition, 0),
        model.reward,
        model.initial,
        model.discount,
        model.admissible,
    )


@every_world.register
def all_models(model: APOMDP) -> POMDP:
    """Return the models of a batch of B ambiguity sets as a batch of B K tasks."""
    models = model.transition.shape[-4]
    first = model.initial_observation
    shared = (jnp.repeat(x, models, axis=0) for x in (model.reward, model.initial))
    reward, initial = shared
    return POMDP(
        transition=models_as_tasks(model, "transition"),
        observation=models_as_tasks(model, "observation"),
        reward=reward,
        initial=initial,
        discount=model.discount,
        initial_observation=None
        if first is None
        else first.reshape(-1, *first.shape[2:]),
    )
