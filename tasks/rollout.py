"""Simulate episodes of many tasks, with random numbers independent of the policy.

Every task has its own key, from which each episode draws one uniform number for the
initial state, one for each transition and, with hidden states, one for each symbol. Two
policies with the same keys therefore use common random numbers, for every batch size.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.tasks.admissible import mask_of, masked_rewards, with_mask
from sdm.tasks.host_checks import is_traced
from sdm.tasks.models import MDP, POMDP, Scalar
from sdm.tasks.policy import Policy, draw
from sdm.tasks.stages import at_stage, check_stages
from sdm.tasks.transitions import rows

Carry = tuple[Array, Array, Array, Any]  # state, symbol, last reward, memory


class Trajectory(eqx.Module):
    """N episodes of each task, T decisions long.

    Attributes:
        observation: the agent's observation before each decision: the state of an MDP
            or a symbol of a POMDP, -1 if there is none before the first action.
        action: the agent's action.
        reward: reward of the decision.

    """

    observation: Int[Array, "*B N T"]
    action: Int[Array, "*B N T"]
    reward: Float[Array, "*B N T"]


class RandomNumbers(eqx.Module):
    """Common random numbers of N episodes, drawn before any policy acts.

    Attributes:
        initial: uniform numbers that sample the first states.
        transition: uniform numbers that sample the next states.
        observation: uniform numbers that sample the observation before each decision.
        policy: keys for stochastic policies.

    """

    initial: Float[Array, "B N"]
    transition: Float[Array, "T B N"]
    observation: Float[Array, "T B N"]
    policy: Key[Array, "T B N"]


def task_keys(
    key: Key[Array, ""], n: int, *, first: int | Int[Array, ""] = 0
) -> Key[Array, " n"]:
    """Return the keys of tasks `first`, ..., `first + n - 1`, each from its index."""
    index = first + jnp.arange(n, dtype=jnp.int32)
    return jax.vmap(partial(jax.random.fold_in, key))(index)


@partial(jax.jit, static_argnames=("episodes", "horizon"))
def draw_random_numbers(
    keys: Key[Array, " B"], *, episodes: int, horizon: int
) -> RandomNumbers:
    """Draw the random numbers of each task's episodes; episode i depends only on i."""
    # The generator is slow to compile, and JAX compiles this function for every shape:
    # derive all keys of one purpose in one call.
    shape = (len(keys), episodes)
    fold = jax.vmap(jax.random.fold_in)
    own = fold(
        jnp.repeat(keys, episodes),
        jnp.tile(jnp.arange(episodes, dtype=jnp.int32), len(keys)),
    )
    start, move, choose = jax.vmap(partial(jax.random.split, num=3))(own).T
    show = fold(own, jnp.full(own.shape, 3, jnp.int32))
    parts = jnp.concatenate([move, show, choose])
    of_stage = fold(
        jnp.tile(parts, horizon),
        jnp.repeat(jnp.arange(horizon, dtype=jnp.int32), len(parts)),
    ).reshape(horizon, 3, *shape)
    moves_and_shows = of_stage[:, :2].reshape(-1)
    number = jax.vmap(jax.random.uniform)(jnp.concatenate([start, moves_and_shows]))
    later = number[len(start) :].reshape(horizon, 2, *shape)
    return RandomNumbers(
        number[: len(start)].reshape(shape), later[:, 0], later[:, 1], of_stage[:, 2]
    )


def first_state(model: MDP | POMDP, numbers: RandomNumbers) -> Int[Array, "B N"]:
    """Return the initial state of every episode."""
    return draw(model.initial[:, None, :], numbers.initial.astype(model.initial.dtype))


@jax.jit
def first_observation(
    model: MDP | POMDP, state: Int[Array, "B N"], uniform: Float[Array, "B N"]
) -> Int[Array, "B N"]:
    """Return the observation before the first action, or -1 if there is none."""
    if isinstance(model, MDP):
        return state
    if model.initial_observation is None:
        return jnp.full_like(state, -1)
    row = model.initial_observation[jnp.arange(len(state))[:, None], state]
    return draw(row, uniform.astype(row.dtype))


@jax.jit
def next_observation(
    model: MDP | POMDP,
    action: Int[Array, "B N"],
    state: Int[Array, "B N"],
    uniform: Float[Array, "B N"],
) -> Int[Array, "B N"]:
    """Return the observation in `state`, reached by `action`."""
    if isinstance(model, MDP):
        return state
    row = model.observation[jnp.arange(len(state))[:, None], action, state]
    return draw(row, uniform.astype(row.dtype))


@jax.jit
def environment_step(
    model: MDP | POMDP,
    state: Int[Array, "B N"],
    action: Int[Array, "B N"],
    uniform: Float[Array, "B N"],
) -> tuple[Int[Array, "B N"], Float[Array, "B N"]]:
    """Return the next states and the rewards of one decision in every episode.

    The reward of an action that is not admissible in its state is -inf.
    """
    task = jnp.arange(len(model.reward))[:, None]
    row, states = rows(model.transition, task, state, action)
    after = draw(row, uniform.astype(row.dtype))
    if states is not None:
        after = jnp.take_along_axis(states, after[..., None], axis=-1)[..., 0]
    return after, masked_rewards(model)[task, state, action]


def rollout(
    keys: Key[Array, " B"],
    model: MDP | POMDP,
    policy: Policy,
    *,
    horizon: int,
    episodes: int,
) -> Trajectory:
    """Simulate episodes of each task with a policy that JAX can trace.

    Args:
        keys: one key per task, from `task_keys`.
        model: a batch of B tasks; for an APOMDP, its `true_model`.
        policy: policy that acts; the scan carries its memory.
        horizon: decisions per episode.
        episodes: episodes per task.

    Returns:
        Trajectories [B, episodes, horizon].

    Raises:
        ValueError: if the policy takes an action that is not admissible, unless JAX
            traces the model; if arrays are for another number of stages.

    """
    check_stages(model, horizon)
    numbers = draw_random_numbers(keys, episodes=episodes, horizon=horizon)
    if is_traced(model):
        return _play(model, policy, numbers)
    model = with_mask(model)
    return _checked(model, _play(model, policy, numbers))


def _checked(model: MDP | POMDP, played: Trajectory) -> Trajectory:
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
def _play(model: MDP | POMDP, policy: Policy, numbers: RandomNumbers) -> Trajectory:
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
    model: MDP | POMDP,
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
    numbers = draw_random_numbers(keys, episodes=episodes, horizon=horizon)
    now, played = _start(model, policy, numbers), []
    for t in range(horizon):
        now, stage = _stage(model, policy, now, (t, *_stage_numbers(numbers, t)))
        played.append(stage)
    stages = (jnp.stack(x, axis=-1) for x in zip(*played, strict=True))
    return _checked(model, Trajectory(*stages))


def _stage_numbers(
    numbers: RandomNumbers, t: int | slice
) -> tuple[Array, Array, Array]:
    """Return the random numbers of a stage, with those of the next symbol."""
    return (
        numbers.transition[t],
        jnp.roll(numbers.observation, -1, axis=0)[t],
        numbers.policy[t],
    )


def _start(model: MDP | POMDP, policy: Policy, numbers: RandomNumbers) -> Carry:
    state = first_state(model, numbers)
    seen = first_observation(model, state, numbers.observation[0])
    nothing = jnp.zeros(state.shape, model.reward.dtype)
    return state, seen, nothing, policy.init(model)


def _stage(
    model: MDP | POMDP, policy: Policy, carry: Carry, now: tuple[Any, ...]
) -> tuple[Carry, tuple[Array, Array, Array]]:
    """Simulate one decision of every episode; return observation, action and reward."""
    state, seen, reward, memory = carry
    t, move, show, key = now
    action, memory = policy.act(memory, t, seen, reward, key)
    world = at_stage(model, t)
    state, reward = environment_step(world, state, action, move)
    following = next_observation(world, action, state, show)
    return (state, following, reward, memory), (seen, action, reward)


def discounted_return(
    reward: Float[Array, "*B T"], discount: Scalar
) -> Float[Array, "*B"]:
    """Return the discounted return Σ_t γ^t r_t of every episode."""
    stage = jnp.arange(reward.shape[-1], dtype=reward.dtype)
    return reward @ jnp.asarray(discount, reward.dtype) ** stage
