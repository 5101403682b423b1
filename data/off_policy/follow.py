"""Follow policies along logged histories, whose actions are not their own."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sdm.data.logs import NOTHING, Logs
from sdm.data.off_policy.logged_policy import ROUNDING
from sdm.tasks.policy import Following, Policy, TabularPolicy

AT_ONCE = 4096  # histories that are followed together


def chances_along(
    policy: Policy,
    logs: Logs,
    rows: Int[np.ndarray, "B N"],
    observations: Int[np.ndarray, " S"],
    actions: Int[np.ndarray, " A"],
) -> Float[np.ndarray, "B N T A"]:
    """Return the probability of each action at each decision of logged episodes.

    Entries after the end of an episode have no meaning.

    Args:
        policy: a policy for B tasks.
        logs: the logs.
        rows: the N episodes in which it acts, for each task.
        observations: its index of each observation of the logs.
        actions: its index of each action of the logs.

    Raises:
        ValueError: if the policy takes an action that the logs do not have, or cannot
            follow actions that are not its own.

    """
    step = max(1, AT_ONCE // len(rows))
    parts = []
    for first in range(0, rows.shape[1], step):
        some = rows[:, first : first + step]
        seen, taken = logs.observation[some, : logs.horizon], logs.action[some]
        over = taken == NOTHING
        chances = _chances(
            policy,
            # Nothing may be observed before the first decision of hidden states.
            np.where(over, 0, np.where(seen == NOTHING, NOTHING, observations[seen])),
            np.where(over, 0, actions[taken]),
            logs.reward[some],
            int(actions.max()) + 1,
        )
        lacking = 1 - chances[..., actions].sum(-1) > ROUNDING
        if (lacking & ~over).any():
            b, n, t = (int(i) for i in np.argwhere(lacking & ~over)[0])
            other = np.setdiff1d(np.flatnonzero(chances[b, n, t]), actions)
            raise ValueError(
                f"policy: takes its action {other[0]} in episode {some[b, n]}, step "
                f"{t}, but the logs have no such action: {', '.join(logs.actions)}"
            )
        parts.append(chances[..., actions])
    return np.concatenate(parts, axis=1)


def _chances(
    policy: Policy,
    seen: Int[np.ndarray, "B N T"],
    taken: Int[np.ndarray, "B N T"],
    paid: Float[np.ndarray, "B N T"],
    size: int,
) -> Float[np.ndarray, "B N T A"]:
    """Return the probabilities of a policy's own actions, `size` at least."""
    if isinstance(policy, TabularPolicy):
        task, _, stage = np.indices(seen.shape)
        return np.asarray(policy.probabilities, np.float64)[task, stage, seen]
    observed, done = (jnp.asarray(x, jnp.int32) for x in (seen, taken))
    chosen = actions_along(policy, observed, done, jnp.asarray(paid))
    return np.eye(max(int(chosen.max()) + 1, size))[np.asarray(chosen)]


def actions_along(
    policy: Policy,
    seen: Int[Array, "B N T"],
    taken: Int[Array, "B N T"],
    paid: Float[Array, "B N T"],
) -> Int[Array, "B N T"]:
    """Return the actions of a deterministic policy with memory along histories.

    Args:
        policy: the policy, for B tasks.
        seen: observation before each decision.
        taken: action of each decision, whatever the policy would have done.
        paid: reward of each decision.

    Raises:
        ValueError: if the policy is not `Following`.

    """
    if not isinstance(policy, Following):
        raise ValueError(
            f"policy: a {type(policy).__name__} cannot follow logged actions, since "
            "what it does depends on random numbers or on its own decisions"
        )
    keys = jax.random.split(jax.random.key(0), seen.shape[:2])  # it draws nothing
    reward, memory, chosen = jnp.zeros_like(paid[..., 0]), None, []

    @eqx.filter_jit
    def act(
        memory: Any, t: Int[Array, ""], seen: Int[Array, "B N"], reward: Array
    ) -> tuple[Int[Array, "B N"], Any]:
        return policy.act(memory, t, seen, reward, keys)

    for t in range(seen.shape[2]):
        action, memory = act(memory, jnp.int32(t), seen[..., t], reward)
        memory, reward = policy.follow(memory, taken[..., t]), paid[..., t]
        chosen.append(action)
    return jnp.stack(chosen, axis=-1)
