"""Policies that keep the number and the sum of each arm's rewards.

They learn during an episode and ignore demonstrations. An arm without a reward comes
first, except in Thompson sampling; ties are broken at random.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sdm.tasks.arms_family import ArmsFamily
from sdm.tasks.models import Model

# Returns a score for each arm: of the family, keys [B, N], counts and sums [B, N, K].
Score = Callable[[ArmsFamily, Array, Array, Array], Array]


class Arms(NamedTuple):
    """Memory of an episode.

    Attributes:
        pulls: number of rewards seen of each arm.
        total: their sum.
        action: the last arm.

    """

    pulls: Float[Array, "B N K"]
    total: Float[Array, "B N K"]
    action: Int[Array, "B N"]


class ArmPolicy(eqx.Module):
    """A policy that takes the arm of the highest score.

    Attributes:
        family: the family of the tasks.
        score: scores the arms.
        explore: probability of a uniformly random arm instead.

    """

    family: ArmsFamily = eqx.field(static=True)
    score: Score = eqx.field(static=True)
    explore: float = eqx.field(default=0.0, static=True)

    def init(self, model: Model) -> None:
        """Return None; the first decision makes the memory, for N episodes."""

    def act(
        self,
        memory: Arms | None,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], Arms]:
        """Count the last rewards, and take an arm."""
        count, total = counted(self.family, memory, observation, reward)
        arms = count.shape[-1]
        own, tie, other, which = _split(key, 4)
        score = self.score(self.family, own, count, total)
        best = score == score.max(-1, keepdims=True)
        among = _uniforms(tie, arms, count.dtype)
        action = jnp.where(best, among, -1).argmax(-1)
        if self.explore:
            instead = _uniforms(which, arms, count.dtype).argmax(-1)
            random = _uniforms(other, 1, count.dtype)[..., 0] < self.explore
            action = jnp.where(random, instead, action)
        action = action.astype(jnp.int32)
        return action, Arms(count, total, action)


def counted(
    family: ArmsFamily,
    memory: Arms | None,
    observation: Int[Array, "B N"],
    reward: Float[Array, "B N"],
) -> tuple[Float[Array, "B N K"], Float[Array, "B N K"]]:
    """Return the number and the sum of each arm's rewards so far."""
    if memory is None:
        nothing = jnp.zeros((*observation.shape, family.arms), reward.dtype)
        return nothing, nothing
    if family.shows_all:
        seen = family.shown(observation).astype(reward.dtype)
        return memory.pulls + 1, memory.total + seen
    own = jax.nn.one_hot(memory.action, family.arms, dtype=reward.dtype)
    return memory.pulls + own, memory.total + own * reward[..., None]


def _split(key: Key[Array, "B N"], number: int) -> list[Array]:
    keys = jax.vmap(jax.vmap(partial(jax.random.split, num=number)))(key)
    return [keys[..., i] for i in range(number)]


def _uniforms(key: Key[Array, "B N"], arms: int, kind: jnp.dtype) -> Array:
    return jax.vmap(jax.vmap(lambda k: jax.random.uniform(k, (arms,), kind)))(key)


def empirical_mean(
    family: ArmsFamily,
    key: Key[Array, "B N"],
    count: Float[Array, "B N K"],
    total: Float[Array, "B N K"],
) -> Float[Array, "B N K"]:
    """Return the mean reward of each arm; infinite for an arm without a reward."""
    return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.inf)


def upper_bound(
    family: ArmsFamily,
    key: Key[Array, "B N"],
    count: Float[Array, "B N K"],
    total: Float[Array, "B N K"],
) -> Float[Array, "B N K"]:
    """Return the mean reward of each arm plus √(1/n)."""
    mean = empirical_mean(family, key, count, total)
    return mean + jnp.sqrt(1 / jnp.maximum(count, 1))


def sampled_mean(
    family: ArmsFamily,
    key: Key[Array, "B N"],
    count: Float[Array, "B N K"],
    total: Float[Array, "B N K"],
) -> Float[Array, "B N K"]:
    """Return a mean of each arm, sampled from its posterior."""
    return family.sample_mean(key, count, total)
