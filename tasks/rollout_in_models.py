"""Play a policy in every model of ambiguity sets, with common random numbers.

The K models of a task become K tasks of a larger batch, whose episodes have the random
numbers of the task's own. The policy, which knows the task only, sees the episodes of
the K models as more episodes of one task.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.tasks.models import Model, batch_shape
from sdm.tasks.policy import Policy
from sdm.tasks.rollout import Trajectory
from sdm.tasks.transitions import take_tasks
from sdm.tasks.worlds import all_models as all_models


class InEveryModel(eqx.Module):
    """A policy for B tasks that plays in K models of each.

    Attributes:
        policy: the policy.
        models: number K of models.

    """

    policy: Policy
    models: int = eqx.field(static=True)

    def init(self, model: Model) -> Any:
        """Return the policy's memory; `model` has B K tasks, K in a row for each."""
        return self.policy.init(take_tasks(model, np.s_[:: self.models]))

    def act(
        self,
        memory: Any,
        t: int | Int[Array, ""],
        observation: Int[Array, "C N"],
        reward: Float[Array, "C N"],
        key: Key[Array, "C N"],
    ) -> tuple[Int[Array, "C N"], Any]:
        """Choose actions in N episodes of each of the C = B K models."""
        tasks = len(observation) // self.models
        seen, paid, keys = (x.reshape(tasks, -1) for x in (observation, reward, key))
        action, memory = self.policy.act(memory, t, seen, paid, keys)
        return action.reshape(observation.shape), memory


def play_in_models(
    play: Callable[..., Trajectory],
    keys: Key[Array, " B"],
    worlds: Model,
    policy: Policy,
    *,
    horizon: int,
    episodes: int,
) -> Trajectory:
    """Play a policy in the K models of each task.

    Args:
        play: `rollout` or `rollout_on_host`.
        keys: one key per task, from `task_keys`.
        worlds: a batch of B K models, the K models of a task in a row.
        policy: policy for the B tasks.
        horizon: decisions per episode.
        episodes: episodes per model.

    Returns:
        Trajectories [B, K, episodes, horizon].

    """
    models = batch_shape(worlds)[0] // len(keys)
    if models > 1:
        policy = InEveryModel(policy, models)
    played = play(
        jnp.repeat(keys, models), worlds, policy, horizon=horizon, episodes=episodes
    )
    return jax.tree.map(lambda x: x.reshape(len(keys), models, *x.shape[1:]), played)
