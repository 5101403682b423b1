"""Episodes of many tasks at once, with random numbers that do not depend on the policy.

Every task has its own key; from it each episode draws one uniform number for the
initial state and one for each transition. Two policies that are given the same keys
therefore meet the same luck (common random numbers), however tasks are batched.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sdm.solvers_jax.backward_induction import MDPSolution
from sdm.solvers_jax.models import MDP, Scalar
from sdm.solvers_jax.policies import Policy, draw

Carry = tuple[Array, Array, Any]  # state, last reward, the policy's memory


class Trajectory(eqx.Module):
    """N episodes of each task, T decisions long.

    Attributes:
        observation: what the agent saw before each decision; an MDP's state.
        action: what it did.
        reward: what that paid.

    """

    observation: Int[Array, "*B N T"]
    action: Int[Array, "*B N T"]
    reward: Float[Array, "*B N T"]


class Luck(eqx.Module):
    """All the randomness of N episodes, drawn before any policy acts.

    Attributes:
        initial: uniform numbers that choose the first states.
        transition: uniform numbers that choose the next states.
        policy: keys for policies that randomise.

    """

    initial: Float[Array, "B N"]
    transition: Float[Array, "T B N"]
    policy: Key[Array, "T B N"]


def task_keys(
    key: Key[Array, ""], n: int, *, first: int | Int[Array, ""] = 0
) -> Key[Array, " n"]:
    """One key for each of tasks `first`, ..., `first + n - 1`; slices agree."""
    index = first + jnp.arange(n, dtype=jnp.int32)
    return jax.vmap(partial(jax.random.fold_in, key))(index)


@partial(jax.jit, static_argnames=("episodes", "horizon"))
def draw_luck(keys: Key[Array, " B"], *, episodes: int, horizon: int) -> Luck:
    """Randomness of `episodes` episodes of each task; episode i depends on i only."""

    def one(key: Array, episode: Array) -> tuple[Array, Array, Array]:
        start, move, choose = jax.random.split(jax.random.fold_in(key, episode), 3)
        stage = jnp.arange(horizon)
        uniform = jax.vmap(lambda t: jax.random.uniform(jax.random.fold_in(move, t)))
        fold = jax.vmap(partial(jax.random.fold_in, choose))
        return jax.random.uniform(start), uniform(stage), fold(stage)

    over_episodes = jax.vmap(one, in_axes=(None, 0), out_axes=(0, 1, 1))
    initial, transition, policy = jax.vmap(
        over_episodes, in_axes=(0, None), out_axes=(0, 1, 1)
    )(keys, jnp.arange(episodes))
    return Luck(initial, transition, policy)


def first_state(mdp: MDP, luck: Luck) -> Int[Array, "B N"]:
    """Initial states of every episode."""
    return draw(mdp.initial[:, None, :], luck.initial.astype(mdp.initial.dtype))


@jax.jit
def environment_step(
    mdp: MDP,
    state: Int[Array, "B N"],
    action: Int[Array, "B N"],
    uniform: Float[Array, "B N"],
) -> tuple[Int[Array, "B N"], Float[Array, "B N"]]:
    """Next states and rewards of one decision in every episode."""
    task = jnp.arange(len(mdp.reward))[:, None]
    row = mdp.transition[task, state, action]
    return draw(row, uniform.astype(row.dtype)), mdp.reward[task, state, action]


def rollout(
    keys: Key[Array, " B"], mdp: MDP, policy: Policy, *, horizon: int, episodes: int
) -> Trajectory:
    """Play `episodes` episodes of each task with a policy made of JAX operations.

    Args:
        keys: one key per task, as `task_keys` makes them.
        mdp: a batch of B tasks.
        policy: what chooses the actions; its memory is carried by the scan.
        horizon: decisions per episode.
        episodes: episodes per task.

    Returns:
        Trajectories [B, episodes, horizon].

    """
    luck = draw_luck(keys, episodes=episodes, horizon=horizon)
    state = first_state(mdp, luck)
    nothing = jnp.zeros(state.shape, mdp.reward.dtype)

    def stage(carry: Carry, now: tuple[Array, Array, Array]) -> tuple[Carry, Any]:
        state, reward, memory = carry
        t, uniform, key = now
        action, memory = policy.act(memory, t, state, reward, key)
        next_state, reward = environment_step(mdp, state, action, uniform)
        return (next_state, reward, memory), (state, action, reward)

    start = (state, nothing, policy.init(mdp))
    stages = (jnp.arange(horizon), luck.transition, luck.policy)
    _, played = jax.lax.scan(stage, start, stages)
    return Trajectory(*(jnp.moveaxis(x, 0, -1) for x in played))


def rollout_on_host(
    keys: Key[Array, " B"], mdp: MDP, policy: Policy, *, horizon: int, episodes: int
) -> Trajectory:
    """Play the same episodes as `rollout`, stage by stage from Python.

    For policies that JAX cannot trace, such as a language model.
    """
    luck = draw_luck(keys, episodes=episodes, horizon=horizon)
    state, memory = first_state(mdp, luck), policy.init(mdp)
    reward = jnp.zeros(state.shape, mdp.reward.dtype)
    played: list[tuple[Array, Array, Array]] = []
    for t in range(horizon):
        action, memory = policy.act(memory, t, state, reward, luck.policy[t])
        next_state, reward = environment_step(mdp, state, action, luck.transition[t])
        played.append((state, action, reward))
        state = next_state
    return Trajectory(*(jnp.stack(x, axis=-1) for x in zip(*played, strict=True)))


def discounted_return(
    reward: Float[Array, "*B T"], discount: Scalar
) -> Float[Array, "*B"]:
    """Σ_t γ^t r_t of every episode."""
    stage = jnp.arange(reward.shape[-1], dtype=reward.dtype)
    return reward @ jnp.asarray(discount, reward.dtype) ** stage


def optimal_action(
    solution: MDPSolution, observation: Int[Array, "B N T"]
) -> Int[Array, "B N T"]:
    """What the oracle would have done in every state of a trajectory."""
    stage = jnp.arange(observation.shape[-1])
    task = jnp.arange(observation.shape[0])[:, None, None]
    return solution.policy[task, stage, observation]
