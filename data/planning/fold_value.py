r"""The value of a policy in the model of episodes that it was not chosen from.

The model has the row w P̂(· | s, a) + (1 - w) m_s of each pair, where P̂ and m_s are the
frequencies of next states after s and a, and after s, and w = n/(n + c) with a small c:
pairs that these episodes lack behave like their observation on average. For a policy
that was chosen from other episodes, the model's value has no bias of first order in the
errors of the rows.

Standard error, by the delta method. The derivative of the value in the direction of one
transition (s, a, r, s') of an episode is

    Σ_t γ^t d_t(s) π_t(a | s) w [ r + γ V_{t+1}(s') - Q̂_t(s, a) ] / n(s, a),

with the share d_t of each observation at stage t under the policy, and the value Q̂ of
the frequencies. An episode contributes the sum over its transitions, and V_0 of its
first observation less the value, divided by the number of episodes. The share of pooled
rows, Σ_a π_t(a | s) (1 - w), contributes in the same way with m_s and n(s).

That missing pairs are average is an assumption: rare actions of those who chose well
are worse. `value_as_seen` does without it. There, w = 1, and a pair that the episodes
lack has the worst return.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import sparse

from sdm.data.logs import NOTHING
from sdm.data.planning.evidence import Evidence

FEW = 0.5  # the concentration c


@dataclass(frozen=True)
class FoldValue:
    """Value of a policy in a model, with its standard error.

    Attributes:
        value: expected return from the logged first observations.
        error: standard error.

    """

    value: float
    error: float


def value_in_model(evidence: Evidence, policy: Float[np.ndarray, "T S A"]) -> FoldValue:
    """Return a policy's value in the model of some episodes."""
    weight = evidence.visits / (evidence.visits + FEW)
    rows, reward = evidence.pooled_rows, evidence.pooled_reward
    stages = [_Stage.of(evidence, weight, each, rows, reward) for each in policy]
    return _valued(evidence, weight, policy, stages, evidence.worst, pooled=True)


def value_as_seen(
    evidence: Evidence, policy: Float[np.ndarray, "T S A"], worst: float
) -> tuple[FoldValue, float]:
    """Return a value without averages for missing pairs, and their probability.

    Args:
        evidence: what some episodes say.
        policy: probabilities of actions.
        worst: return from a decision on that the episodes lack.

    Returns:
        The value, and the probability that an episode has such a decision.

    """
    weight = (evidence.visits > 0).astype(float)
    none = sparse.csr_array(evidence.pooled_rows.shape)
    reward = np.full(len(weight), worst)
    stages = [_Stage.of(evidence, weight, each, none, reward) for each in policy]
    share, missing = evidence.initial, 0.0
    for stage, chosen in zip(stages, policy, strict=True):
        missing += float(share @ (chosen * (1 - weight)).sum(1))
        share = (share @ stage.rows)[: len(share)]
    found = _valued(evidence, weight, policy, stages, worst, pooled=False)
    return found, missing


def _valued(
    evidence: Evidence,
    weight: Float[np.ndarray, "S A"],
    policy: Float[np.ndarray, "T S A"],
    stages: "list[_Stage]",
    worst: float,
    *,
    pooled: bool,
) -> FoldValue:
    """Return the value of a policy whose transitions are known, and its error."""
    values = _values(evidence, stages, worst)
    share, shares = evidence.initial, []
    for stage in stages:
        shares.append(share)
        share = (share @ stage.rows)[: len(share)] * evidence.space.discount
    rest = 1 - weight if pooled else np.zeros_like(weight)
    total = _influences(evidence, (weight, rest), policy, values, np.stack(shares))
    return FoldValue(
        value=evidence.returned(values[0][: len(share)]),
        error=float(np.sqrt((total**2).sum())),
    )


@dataclass(frozen=True)
class _Stage:
    """Transitions and rewards under a policy at one stage."""

    rows: sparse.csr_array
    reward: Float[np.ndarray, " S"]

    @classmethod
    def of(
        cls,
        evidence: Evidence,
        weight: Float[np.ndarray, "S A"],
        chosen: Float[np.ndarray, "S A"],
        other_rows: sparse.csr_array,
        other_reward: Float[np.ndarray, " S"],
    ) -> "_Stage":
        own, (states, actions) = chosen * weight, chosen.shape
        place = np.arange(states * actions)
        take = sparse.csr_array(
            (own.ravel(), (place // actions, place)), shape=(states, len(place))
        )
        rest = (chosen * (1 - weight)).sum(1)
        rows = take @ evidence.rows + sparse.diags_array(rest) @ other_rows
        reward = (own * evidence.reward).sum(1) + rest * other_reward
        return cls(sparse.csr_array(rows), reward)


def _values(
    evidence: Evidence, stages: list[_Stage], worst: float
) -> Float[np.ndarray, "T1 S1"]:
    """Return the values of all states before each stage, and at the end."""
    unseen = evidence.visits.sum(1) == 0
    value = np.zeros(len(unseen))
    found = [evidence.after(value)]
    for stage in reversed(stages):
        value = stage.reward + evidence.space.discount * (stage.rows @ found[-1])
        value = np.where(unseen, worst, value)
        found.append(evidence.after(value))
    return np.stack(found[::-1])


def _influences(
    evidence: Evidence,
    weights: tuple[Float[np.ndarray, "S A"], Float[np.ndarray, "S A"]],
    policy: Float[np.ndarray, "T S A"],
    values: Float[np.ndarray, "T1 S1"],
    shares: Float[np.ndarray, "T S"],
) -> Float[np.ndarray, " N"]:
    """Return the influence of each episode on the value.

    The weights are those of the pairs' own rows and of their observations'.
    """
    weight, other = weights
    made, discount = evidence.decisions, evidence.space.discount
    known = made.following != NOTHING
    state, action, to = (x[known] for x in (made.state, made.action, made.following))
    episode = made.episode[known]
    own = weight[state, action] / evidence.visits[state, action]
    every = 1 / evidence.visits.sum(1)[state]
    paid, total = made.reward[known], np.zeros(len(state))
    for t, chosen in enumerate(policy):
        after, share = values[t + 1], shares[t][:, None]
        got = paid + discount * after[to]
        mean = evidence.reward.ravel() + discount * (evidence.rows @ after)
        pooled = evidence.pooled_reward + discount * (evidence.pooled_rows @ after)
        rest = (share * chosen * other).sum(1)[state]
        lost = got - mean.reshape(weight.shape)[state, action]
        total += own * (share * chosen)[state, action] * lost
        total += every * rest * (got - pooled[state])
    found = np.bincount(episode, total, minlength=evidence.episodes)
    first = made.stage == 0
    start = values[0][made.state[first]]
    found[made.episode[first]] += (start - start.mean()) / evidence.episodes
    return found
