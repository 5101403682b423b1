"""Backward induction on the evidence of logs."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from sdm.data.planning.evidence import Evidence
from sdm.data.planning.planner import LogPlan
from sdm.storage.checks import check_horizon

# Returns r(s, a) + γ E V(s') of each pair from the values of all states.
Backup = Callable[[Float[np.ndarray, " S1"]], Float[np.ndarray, "S A"]]
# Returns probabilities of actions from their values.
Choice = Callable[[Float[np.ndarray, "S A"]], Float[np.ndarray, "S A"]]


def plan_backward(
    evidence: Evidence, backup: Backup, choose: Choice, horizon: int
) -> LogPlan:
    """Return the policy that chooses by the values of actions at every stage.

    Observations without decisions in the logs have the worst return and the uniform
    policy.

    Args:
        evidence: what the logs say.
        backup: values of pairs from those of next states.
        choose: probabilities of actions from their values.
        horizon: number of decisions T.

    """
    check_horizon(horizon)
    states, actions = evidence.visits.shape
    unseen = evidence.visits.sum(1) == 0
    value, stages = np.zeros(states), []
    for _ in range(horizon):
        q = np.asarray(backup(evidence.after(value)))
        chosen = np.where(unseen[:, None], 1 / actions, choose(q))
        value = np.where(unseen, evidence.worst, (chosen * q).sum(1))
        stages.append(chosen)
    return LogPlan(np.stack(stages[::-1]), evidence.returned(value))


def frequencies(evidence: Evidence) -> Backup:
    """Return the backup of relative frequencies; unvisited pairs have the worst return.

    It is that of the maximum-likelihood model.
    """
    unseen = evidence.visits == 0

    def backup(after: Float[np.ndarray, " S1"]) -> Float[np.ndarray, "S A"]:
        future = (evidence.rows @ after).reshape(unseen.shape)
        q = evidence.reward + evidence.space.discount * future
        return np.where(unseen, evidence.worst, q)

    return backup


def greedy(allowed: Bool[np.ndarray, "S A"]) -> Choice:
    """Return the choice of the best of the allowed actions, the first one in a tie."""

    def choose(q: Float[np.ndarray, "S A"]) -> Float[np.ndarray, "S A"]:
        best = np.where(allowed, q, -np.inf).argmax(1)
        return np.eye(q.shape[1])[best]

    return choose


def visited(evidence: Evidence, least: int, share: float = 0.0) -> np.ndarray:
    """Return which pairs have enough visits; the most frequent ones where none has.

    Args:
        evidence: what the logs say.
        least: number of visits from which on an action is allowed.
        share: share of the observation's decisions from which on it is allowed.

    """
    visits = evidence.visits
    enough = (visits >= least) & (evidence.behavior >= share)
    most = visits == visits.max(1, keepdims=True)
    return np.where(enough.any(1, keepdims=True), enough, most)
