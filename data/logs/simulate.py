"""Log the episodes of a policy in a model, whose true values are then known."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key

from sdm.data.logs.episodes import NOTHING, Logs
from sdm.tasks.admissible import with_mask
from sdm.tasks.models import MDP, POMDP, batch_shape, check_count, check_horizon
from sdm.tasks.policy import Policy
from sdm.tasks.random_numbers import draw_random_numbers, task_keys
from sdm.tasks.reward_law import law_of
from sdm.tasks.rollout import environment_step
from sdm.tasks.stages import check_stationary
from sdm.tasks.transitions import likelihood
from sdm.tasks.worlds import first_seen, first_state, next_seen


def simulate_logs(
    key: Key[Array, ""],
    model: MDP | POMDP,
    policy: Policy,
    *,
    horizon: int,
    episodes: int,
    observations: Sequence[str] = (),
    actions: Sequence[str] = (),
    tasks: Sequence[str] = (),
) -> Logs:
    """Return the logs of a policy that acts in each of B tasks.

    An episode ends in a state that is never left and never pays, whatever the action;
    else it is cut off at the horizon, with the observation after its last decision.

    Args:
        key: random key; the same key gives the same logs.
        model: a batch of B tasks, stationary.
        policy: the behavior policy. If it has a table `probabilities` [B, T, S, A], as
            `TabularPolicy`, the logs have the probabilities of actions.
        horizon: largest number of decisions of an episode, T.
        episodes: episodes per task.
        observations: names of observations; numbers if empty.
        actions: names of actions; numbers if empty.
        tasks: names of tasks; numbers if empty.

    Raises:
        ValueError: if the model is not a stationary batch of tasks, or names do not
            agree with its sizes.

    """
    check_horizon(horizon)
    check_count("episodes", episodes, 1)
    check_stationary(model, "`simulate_logs`")
    if len(batch_shape(model)) != 1:
        raise ValueError(
            f"model: must be a batch of tasks, found batch axes {batch_shape(model)}"
        )
    count, symbols = len(model.reward), np.shape(_symbols(model))[-1]
    names = [
        _names("observations", observations, symbols),
        _names("actions", actions, model.reward.shape[-1]),
        _names("tasks", tasks, count),
    ]
    played = _play(key, with_mask(model), policy, horizon, episodes)
    observation, action, reward, ended = (_flat(x) for x in played)
    length = np.where(ended.any(1), ended.argmax(1) + 1, horizon)
    stage = np.arange(horizon + 1)
    inside = stage[:-1] < length[:, None]
    task = np.repeat(np.arange(count, dtype=np.int32), episodes)
    table, probability = getattr(policy, "probabilities", None), None
    if table is not None:
        chance = np.asarray(table)[
            task[:, None], stage[:-1], observation[:, :-1], action
        ]
        probability = np.where(inside, chance, 1.0)
    return Logs(
        observation=np.where(stage <= length[:, None], observation, NOTHING),
        action=np.where(inside, action, NOTHING),
        reward=np.where(inside, reward, 0.0),
        done=np.asarray(ended.any(1)),
        task=task,
        probability=probability,
        observations=names[0],
        actions=names[1],
        tasks=names[2],
    )


def ending_states(model: MDP | POMDP) -> Bool[np.ndarray, "B S"]:
    """Return the states that are never left and never pay, whatever the action."""
    states, actions = model.reward.shape[-2:]
    s, a = jnp.arange(states)[:, None], jnp.arange(actions)[None]
    s, a = (jnp.broadcast_to(x, (states, actions)) for x in (s, a))
    stays = np.asarray(likelihood(model.transition, s, a, s) == 1).all(-1)
    silent = law_of(model) is None
    return np.asarray(stays & (np.asarray(model.reward) == 0).all(-1) & silent)


def _play(
    key: Key[Array, ""],
    model: MDP | POMDP,
    policy: Policy,
    horizon: int,
    episodes: int,
) -> tuple[np.ndarray, ...]:
    """Return observations [B, N, T + 1], actions, rewards and whether they ended."""
    ends, tasks = jnp.asarray(ending_states(model)), len(model.reward)
    numbers = draw_random_numbers(
        task_keys(key, tasks),
        episodes=episodes,
        horizon=horizon,
        rewards=law_of(model) is not None,
    )
    state, memory = first_state(model, numbers.initial), policy.init(model)
    row = jnp.arange(tasks)[:, None]
    seen = first_seen(model, row, state, numbers.observation[0])
    reward = jnp.zeros(state.shape, model.reward.dtype)
    stages: list[tuple[Any, ...]] = []
    observations = [seen]
    for t in range(horizon):
        action, memory = policy.act(memory, t, seen, reward, numbers.policy[t])
        pay = None if numbers.reward is None else numbers.reward[t]
        state, reward = environment_step(
            model, state, action, numbers.transition[t], pay
        )
        show = numbers.observation[(t + 1) % horizon]  # as in `rollout`
        seen = next_seen(model, row, action, state, show)
        observations.append(seen)
        stages.append((action, reward, ends[row, state]))
    kept = (np.stack(x, -1) for x in zip(*stages, strict=True))
    return (np.stack(observations, -1), *kept)


def _flat(x: np.ndarray) -> np.ndarray:
    """Return an array [B, N, T] with episodes on its first axis."""
    return x.reshape(-1, x.shape[-1])


def _symbols(model: MDP | POMDP) -> Any:
    """Return an array whose last axis has the observations of a model."""
    return getattr(model, "observation", model.initial)


def _names(what: str, names: Sequence[str], count: int) -> tuple[str, ...]:
    if names and len(names) != count:
        raise ValueError(f"{what}: must be {count} names, found {len(names)}")
    return tuple(names) or tuple(map(str, range(count)))
