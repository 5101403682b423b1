"""Common random numbers of episodes, drawn before any policy acts."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


class RandomNumbers(eqx.Module):
    """Common random numbers of N episodes, drawn before any policy acts.

    Attributes:
        initial: uniform numbers that sample the first states.
        transition: uniform numbers that sample the next states.
        observation: uniform numbers that sample the observation before each decision.
        policy: keys for stochastic policies.
        reward: keys for random rewards; None if rewards are certain.

    """

    initial: Float[Array, "B N"]
    transition: Float[Array, "T B N"]
    observation: Float[Array, "T B N"]
    policy: Key[Array, "T B N"]
    reward: Key[Array, "T B N"] | None = None


def task_keys(
    key: Key[Array, ""], n: int, *, first: int | Int[Array, ""] = 0
) -> Key[Array, " n"]:
    """Return the keys of tasks `first`, ..., `first + n - 1`, each from its index."""
    index = first + jnp.arange(n, dtype=jnp.int32)
    return jax.vmap(partial(jax.random.fold_in, key))(index)


@partial(jax.jit, static_argnames=("episodes", "horizon", "rewards"))
def draw_random_numbers(
    keys: Key[Array, " B"], *, episodes: int, horizon: int, rewards: bool = False
) -> RandomNumbers:
    """Draw the random numbers of each task's episodes; episode i depends only on i.

    Args:
        keys: one key per task.
        episodes: episodes per task.
        horizon: decisions per episode.
        rewards: whether rewards are random.

    """
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
    paid = None
    if rewards:
        pay = fold(own, jnp.full(own.shape, 4, jnp.int32))
        stages = jnp.repeat(jnp.arange(horizon, dtype=jnp.int32), len(pay))
        paid = fold(jnp.tile(pay, horizon), stages).reshape(horizon, *shape)
    return RandomNumbers(
        number[: len(start)].reshape(shape),
        later[:, 0],
        later[:, 1],
        of_stage[:, 2],
        paid,
    )
