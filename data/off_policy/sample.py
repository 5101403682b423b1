r"""What all estimators share: a policy's probabilities along the logs, and weights.

    ρ_it = Π_{k ≤ t} π(a_ik | h_ik) / b(a_ik | h_ik)

is the importance weight of the first t + 1 decisions of episode i. After the end of an
episode, it stays as it is. An action is *supported* if the logs have it after the same
observation, at any stage; what a policy does with other actions is unknown, and enters
every bound with the smallest or largest possible return to go. Observations of two
tasks are different ones, unless tasks are pooled.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from sdm.data.logs import NOTHING, Logs
from sdm.data.off_policy.behavior import action_counts, behavior_probability
from sdm.data.off_policy.by_task import by_task, several_tasks
from sdm.data.off_policy.config import OffPolicyConfig
from sdm.data.off_policy.logged_policy import ROUNDING, LoggedPolicy
from sdm.data.off_policy.ranges import Ranges, ranges_of
from sdm.storage.memory import check_memory

# Of a decision: its numbers, and the policy's probabilities, twice for a moment.
BYTES, BYTES_PER_ACTION = 100, 16


@dataclass(frozen=True)
class Sample:
    """Logged episodes from the point of view of a policy.

    Attributes:
        logs: the episodes, whose observations are those of one task (see `by_task`).
        discount: discount factor γ.
        acted: whether there is a decision.
        policy: π(a | h) of the policy at each decision; 0 after the end.
        table: π_t(a | s) for every observation, or for one stage that stands for all;
            None for a policy with memory.
        ratio: π(a | h) / b(a | h) of each logged action; 1 after the end.
        weight: importance weight ρ of the decisions up to each.
        before: importance weight of the decisions before each.
        unsupported: probability that the policy takes an action at this decision that
            is not supported; 0 after the end.
        ranges: bounds on returns.

    """

    logs: Logs
    discount: float
    acted: Bool[np.ndarray, "N T"]
    policy: Float[np.ndarray, "N T A"]
    table: Float[np.ndarray, "U S A"] | None
    ratio: Float[np.ndarray, "N T"]
    weight: Float[np.ndarray, "N T"]
    before: Float[np.ndarray, "N T"]
    unsupported: Float[np.ndarray, "N T"]
    ranges: Ranges

    @property
    def powers(self) -> Float[np.ndarray, " T"]:
        """Return γ^t."""
        return self.discount ** np.arange(self.logs.horizon)

    @property
    def supported(self) -> Bool[np.ndarray, "S A"]:
        """Return whether the logs have an action after an observation."""
        return action_counts(self.logs) > 0


def sample_of(logs: Logs, policy: LoggedPolicy, config: OffPolicyConfig) -> Sample:
    """Return what estimators need to evaluate a policy on logs.

    Raises:
        ValueError: if the logs have no decision, or a decision without an observation;
            if the policy does not fit them; if numbers are out of their range.
        MemoryLimitError: if the decisions do not fit in memory.

    """
    each = BYTES + BYTES_PER_ACTION * len(logs.actions)
    what = f"an estimate from {logs.episodes:,} logged episodes"
    check_memory(logs.action.size * each, what)
    acted = logs.action != NOTHING
    if not acted.any():
        raise ValueError("logs: must have at least one decision, found none")
    seen = logs.observation[:, : logs.horizon]
    if (acted & (seen == NOTHING)).any():
        i, t = (int(x) for x in np.argwhere(acted & (seen == NOTHING))[0])
        raise ValueError(
            f"logs: every decision must have an observation before it, found none in "
            f"episode {i}, step {t}"
        )
    chances, table = _probabilities(logs, policy), policy.table
    if several_tasks(logs) and not config.pool_tasks:
        logs, table = by_task(logs, table)
        seen = logs.observation[:, : logs.horizon]
    taken = np.where(acted, logs.action, 0)[..., None]
    ratio = np.take_along_axis(chances, taken, -1)[..., 0] / behavior_probability(logs)
    ratio = np.where(acted, ratio, 1.0)
    weight = np.cumprod(ratio, -1)
    chances = np.where(acted[..., None], chances, 0.0)
    lacking = action_counts(logs)[np.where(acted, seen, 0)] == 0
    return Sample(
        logs=logs,
        discount=config.discount,
        acted=acted,
        policy=chances,
        table=table,
        ratio=ratio,
        weight=weight,
        before=np.concatenate([np.ones((logs.episodes, 1)), weight[:, :-1]], -1),
        unsupported=np.where(lacking, chances, 0.0).sum(-1),
        ranges=ranges_of(logs, config),
    )


def _probabilities(logs: Logs, policy: LoggedPolicy) -> Float[np.ndarray, "N T A"]:
    """Return the policy's probabilities along the logs, after a check."""
    found = policy.probabilities_along(logs)
    shape = (logs.episodes, logs.horizon, len(logs.actions))
    if found.shape != shape:
        raise ValueError(
            f"policy: probabilities along the logs must have shape {shape}, found "
            f"{found.shape}"
        )
    wrong = (found < 0).any(-1) | ~(np.abs(found.sum(-1) - 1) <= ROUNDING)
    wrong &= logs.action != NOTHING
    if wrong.any():
        i, t = (int(x) for x in np.argwhere(wrong)[0])
        raise ValueError(
            f"policy: probabilities must be 0 or more and sum to 1, found "
            f"{found[i, t].tolist()} in episode {i}, step {t}"
        )
    return found.astype(np.float64)
