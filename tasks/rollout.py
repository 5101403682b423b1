"""Simulate episodes of many tasks, with random numbers independent of the policy.

Every task has its own key, from which each episode draws one uniform number for the
initial state, one for each transition and, with hidden states, one for each symbol; if
rewards are random, it also derives a key for each of them. Two policies with the same
keys therefore use common random numbers, for every batch size.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.tasks.admissible import mask_of, with_mask
from sdm.tasks.host_checks import is_traced
from sdm.tasks.models import Model, Scalar, batch_shape
from sdm.tasks.policy import Policy
from sdm.tasks.random_numbers import RandomNumbers
from sdm.tasks.random_numbers import draw_random_numbers as draw_random_numbers
from sdm.tasks.random_numbers import task_keys as task_keys
from sdm.tasks.reward_law import law_of, realised
from sdm.tasks.stages import at_stage, check_stages
from sdm.tasks.worlds import (
    expected_reward,
    first_seen,
    first_state,
    next_seen,
    next_state,
)

Carry = tuple[Array, Array, Array, Any]  # state, symbol, last reward, memory


class Trajectory(eqx.Module):
    """N episodes of each task, T decisions long.

    Attributes:
        observation: the agent's observation before each decision: the state of an MDP
            or a symbol, -1 if there is none before the first action.
        action: the agent's action.
        reward: reward of the decision.

    """

    observation: Int[Array, "*B N T"]
    action: Int[Array, "*B N T"]
    reward: Float[Array, "*B N T"]


def _tasks(model: Model) -> Int[Array, "B 1"]:
    """Return the index of each task of a batch."""
    return jnp.arange(batch_shape(model)[0])[:, None]


@jax.jit
def _first_seen(
    model: Model, state: Int[Array, "B N"], uniform: Float[Array, "B N"]
) -> Int[Array, "B N"]:
    """Return the observation before the first action, or -1 if there is none."""
    return first_seen(model, _tasks(model), state, uniform)


@jax.jit
def _next_seen(
    model: Model,
    action: Int[Array, "B N"],
    state: Int[Array, "B N"],
    uniform: Float[Array, "B N"],
) -> Int[Array, "B N"]:
    """Return the observation in `state`, reached by `action`."""
    return next_seen(model, _tasks(model), action, state, uniform)


@jax.jit
def environment_step(
    model: Model,
    state: Int[Array, "B N"],
    action: Int[Array, "B N"],
    uniform: Float[Array, "B N"],
    key: Key[Array, "B N"] | None = None,
) -> tuple[Int[Array, "B N"], Float[Array, "B N"]]:
    """Return the next states and the rewards of one decision in every episode.

    The reward of an action that is not admissible in its state is -inf. `key` has a
    random key for each reward, if rewards are random.
    """
    task = _tasks(model)
    after = next_state(model, task, state, action, uniform)
    expected = expected_reward(model, task, state, action)
    return after, realised(model, expected, task, state, action, after, key)


def rollout(
    keys: Key[Array, " B"],
    model: Model,
    policy: Policy,
    *,
    horizon: int,
    episodes: int,
) -> Trajectory:
    """Simulate episodes of each task with a policy that JAX can trace.

    Args:
        keys: one key per task, from `task_keys`.
        model: a batch of B tasks; for an APOMDP, its `true_model`. See `worlds`.
        policy: policy that acts; the scan carries its memory.
        horizon: decisions per episode.
        episodes: episodes per task.

    Returns:
        Trajectories [B, episodes, horizon].

    Raises:
        ValueError: if the policy takes an action that is not admissible, unless JAX
            traces the model; if arrays are for another number of stages.

    Example:
        >>> import jax
        >>> from sdm.solvers_jax import EnergyFamily, TabularPolicy, rollout, solve
        >>> from sdm.tasks.policy import deterministic
        >>> from sdm.tasks.rollout import task_keys
        >>> tasks = EnergyFamily().sample(jax.random.key(0), 2)
        >>> best = solve(tasks, horizon=10).policy
        >>> policy = deterministic(best, actions=3)
        >>> keys = task_keys(jax.random.key(1), 2)
        >>> played = rollout(keys, tasks, policy, horizon=10, episodes=5)
        >>> played.reward.shape
        (2, 5, 10)

    """
    check_stages(model, horizon)
    numbers = draw_random_numbers(
        keys,
        episodes=episodes,
        horizon=horizon,
        rewards=law_of(model) is not None,
    )
    if is_traced(model):
        return _play(model, policy, numbers)
    model = with_mask(model)
    return _checked(model, _play(model, policy, numbers))


def _checked(model: Model, played: Trajectory) -> Trajectory:
    """Return episodes; raise `ValueError` if an action was not admissible."""
    if mask_of(model) is None or is_traced(played):
        return played
    wrong = np.isneginf(np.asarray(played.reward))
    if wrong.any():
        task, episode, t = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"action {int(played.action[task, episode, t])} of the policy is not "
            f"admissible in the state of task {task}, episode {episode}, stage {t} "
            f"({int(wrong.sum())} of {wrong.size} decisions are wrong)"
        )
    return played


@eqx.filter_jit
def _play(model: Model, policy: Policy, numbers: RandomNumbers) -> Trajectory:
    start, horizon = _start(model, policy, numbers), len(numbers.transition)
    stage = partial(_stage, model, policy)
    opening = (jnp.int32(0), *_stage_numbers(numbers, 0))
    after, _ = jax.eval_shape(stage, start, opening)
    if _shapes(after) == _shapes(start):  # one stage to compile
        every = (
            jnp.arange(horizon, dtype=jnp.int32),
            *_stage_numbers(numbers, slice(None)),
        )
        _, played = jax.lax.scan(stage, start, every)
    else:  # the policy creates its memory at the first decision
        now, first = stage(start, opening)
        stages = jnp.arange(1, horizon, dtype=jnp.int32)
        later = (stages, *_stage_numbers(numbers, slice(1, None)))
        _, rest = jax.lax.scan(stage, now, later)
        played = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)
    return Trajectory(*(jnp.moveaxis(x, 0, -1) for x in played))


def _shapes(carry: Any) -> tuple[Any, Any]:
    """Return the structure of what a stage carries, and its types."""
    return jax.tree.structure(carry), [
        (x.shape, x.dtype) for x in jax.tree.leaves(carry)
    ]


def rollout_on_host(
    keys: Key[Array, " B"],
    model: Model,
    policy: Policy,
    *,
    horizon: int,
    episodes: int,
) -> Trajectory:
    """Simulate the same episodes as `rollout`, stage by stage from Python.

    Use it for policies that JAX cannot trace, such as a language model.

    Raises:
        ValueError: if the policy takes an action that is not admissible; if arrays are
            for another number of stages.

    """
    check_stages(model, horizon)
    model = with_mask(model)
    numbers = draw_random_numbers(
        keys,
        episodes=episodes,
        horizon=horizon,
        rewards=law_of(model) is not None,
    )
    now, played = _start(model, policy, numbers), []
    for t in range(horizon):
        now, stage = _stage(model, policy, now, (t, *_stage_numbers(numbers, t)))
        played.append(stage)
    stages = (jnp.stack(x, axis=-1) for x in zip(*played, strict=True))
    return _checked(model, Trajectory(*stages))


def _stage_numbers(
    numbers: RandomNumbers, t: int | slice
) -> tuple[Array, Array, Array, Array | None]:
    """Return the random numbers of a stage, with those of the next symbol."""
    return (
        numbers.transition[t],
        jnp.roll(numbers.observation, -1, axis=0)[t],
        numbers.policy[t],
        None if numbers.reward is None else numbers.reward[t],
    )


def _start(model: Model, policy: Policy, numbers: RandomNumbers) -> Carry:
    state = first_state(model, numbers.initial)
    seen = _first_seen(model, state, numbers.observation[0])
    nothing = jnp.zeros(state.shape, model.reward.dtype)
    return state, seen, nothing, policy.init(model)


def _stage(
    model: Model, policy: Policy, carry: Carry, now: tuple[Any, ...]
) -> tuple[Carry, tuple[Array, Array, Array]]:
    """Simulate one decision of every episode; return observation, action and reward."""
    state, seen, reward, memory = carry
    t, move, show, key, pay = now
    action, memory = policy.act(memory, t, seen, reward, key)
    world = at_stage(model, t)
    state, reward = environment_step(world, state, action, move, pay)
    following = _next_seen(world, action, state, show)
    return (state, following, reward, memory), (seen, action, reward)


def discounted_return(
    reward: Float[Array, "*B T"], discount: Scalar
) -> Float[Array, "*B"]:
    """Return the discounted return Σ_t γ^t r_t of every episode."""
    stage = jnp.arange(reward.shape[-1], dtype=reward.dtype)
    return reward @ jnp.asarray(discount, reward.dtype) ** stage
