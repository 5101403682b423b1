"""Bounds on the value of a plan, from episodes that it was not chosen from.

A planner's claim for its own policy is too high as a rule, since it chose the policy by
the same errors. Cross-fitting makes a plan from all but one fold of the episodes,
values it in the model of that fold (`fold_value`), and averages over the folds (Stone,
1974, for cross-validation; Thomas, Theocharous, Ghavamzadeh, 2015, *High-confidence
policy improvement*, for bounds from held-out episodes). The average is about plans
from fewer episodes. That the plan from all episodes is at least as good is an
assumption, as are states that the logs show: for hidden ones there is another bound.

The fold often lacks actions that the plan takes. `lower` gives them the average of
their observation; `lower_observed` gives them the worst return.

**Bound without assumptions on hidden causes.** In episodes whose actions all are those
that the plan would take, everything is as under the plan; of the others, nothing is
assumed but that the return is at least the worst one (Manski, 1990, *Nonparametric
bounds on treatment effects*):

    V(π) ≥ E[ Π_t π_t(a_t | o_t) R ] + (1 - E[ Π_t π_t(a_t | o_t) ]) R_min.

Returns must not lie below R_min. The confidence bound on this mean (`mean_bound`) holds
for every number of episodes, also if what is rare and bad has happened to nobody.

**Episodes that are cut off** before decision T have unknown returns. They count as
R_min in this bound, which then is the return of T decisions with the smallest logged
reward, if that is less than the smallest logged return. The value of the logged policy
over T decisions, for comparison, is then that in the model of all episodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from sdm.data.logs import NOTHING, Logs, LogsError
from sdm.data.planning.evidence import Evidence, evidence_of
from sdm.data.planning.fold_value import FoldValue, value_as_seen, value_in_model
from sdm.data.planning.mean_bound import lower_mean
from sdm.data.planning.planner import Planner
from sdm.storage.checks import check_count


@dataclass(frozen=True)
class Bounds:
    """Bounds on the value of a planner's policy.

    Attributes:
        estimate: mean over folds of the value in the fold's model.
        error: its standard error.
        lower: lower confidence bound, if observations are states, and if actions that
            held-out episodes lack are like the average of their observation.
        lower_observed: the same if such actions have the worst return.
        lower_confounded: lower confidence bound, whatever is hidden.
        unseen: probability that an episode of the plan has such an action.
        worst: the return that counts as the smallest possible one.
        behavior: mean return of the logged episodes, for comparison; if some were cut
            off, the value of the logged frequencies in the model of all episodes.
        cut: number of episodes that were cut off before decision T.
        agreement: mean probability with which the plans take all actions of a held-out
            episode.

    """

    estimate: float
    error: float
    lower: float
    lower_observed: float
    lower_confounded: float
    unseen: float
    worst: float
    behavior: float
    cut: int
    agreement: float


def cross_fitted_bounds(
    logs: Logs,
    planner: Planner,
    *,
    horizon: int,
    discount: float = 1.0,
    folds: int = 5,
    confidence: float = 0.95,
    worst: float | None = None,
    seed: int = 0,
) -> Bounds:
    """Return bounds on the value of the policy that a planner makes from logs.

    Args:
        logs: the episodes.
        planner: makes the policy.
        horizon: number of decisions T.
        discount: factor per decision.
        folds: number of folds, 2 or more.
        confidence: probability of each lower bound, in (0, 1).
        worst: the smallest possible return, in units of reward; the smallest of the
            logs if not given, see above for logs with episodes that are cut off.
        seed: random seed of the folds and of what the planner draws.

    Raises:
        LogsError: if there are fewer episodes than folds, or a fold has no transition.
        ValueError: if `folds` or `confidence` is out of range.

    """
    check_count("folds", folds, 2)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence:g}: must lie between 0 and 1")
    if logs.episodes < 2 * folds:
        raise LogsError(
            f"logs: {logs.episodes} episodes for {folds} folds, must be {2 * folds} or "
            "more",
            "log more episodes",
        )
    evidence = evidence_of(logs, discount=discount)
    order = np.random.default_rng(seed).permutation(logs.episodes)
    fold = order % folds
    total, cut = _returns(logs, discount, horizon), ~logs.done & (logs.length < horizon)
    floor = _floor(logs, discount, horizon) if cut.any() else np.inf
    least = min(float(total.min()), floor) if worst is None else worst
    # What is left can be less than the smallest return, if something was earned before.
    ahead = min(evidence.worst, floor if worst is None else worst)
    found, seen, agree = [], [], np.zeros(logs.episodes)
    for k in range(folds):
        mine = fold == k
        train, test = (
            evidence_of(logs.select(x), space=evidence.space) for x in (~mine, mine)
        )
        policy = planner.plan(train, horizon=horizon, seed=seed).probabilities
        found.append(value_in_model(test, policy))
        seen.append(value_as_seen(test, policy, ahead))
        agree[mine] = _agreement(logs.select(mine), policy)
    quantile = float(stats.norm.ppf(confidence))
    estimate, error = _mean(found)
    lower = estimate - quantile * error
    observed, spread = _mean([each for each, _ in seen])
    sure = np.where(cut, least, agree * total + (1 - agree) * least)
    return Bounds(
        estimate=estimate,
        error=error,
        lower=lower,
        lower_observed=min(lower, max(least, observed - quantile * spread)),
        lower_confounded=lower_mean(sure[order], least, confidence=confidence),
        unseen=float(np.mean([missing for _, missing in seen])),
        worst=least,
        behavior=_behavior(evidence, horizon) if cut.any() else float(total.mean()),
        cut=int(cut.sum()),
        agreement=float(agree.mean()),
    )


def _mean(found: Sequence[FoldValue]) -> tuple[float, float]:
    """Return the mean over folds, and its standard error."""
    error = np.sqrt(np.sum([each.error**2 for each in found])) / len(found)
    return float(np.mean([each.value for each in found])), float(error)


def _behavior(evidence: Evidence, horizon: int) -> float:
    """Return the value of the logged frequencies in the model of all episodes."""
    policy = np.broadcast_to(evidence.behavior, (horizon, *evidence.visits.shape))
    return value_in_model(evidence, policy).value


def _floor(logs: Logs, discount: float, horizon: int) -> float:
    """Return the return of decisions with the smallest logged reward; at most 0."""
    least = min(0.0, float(logs.reward[logs.action != NOTHING].min()))
    return float(least * (discount ** np.arange(horizon)).sum())


def _returns(logs: Logs, discount: float, horizon: int) -> Float[np.ndarray, " N"]:
    """Return the discounted return of each episode in its first decisions."""
    reward = logs.reward[:, :horizon]
    return np.asarray(reward @ discount ** np.arange(reward.shape[1]))


def _agreement(
    logs: Logs, policy: Float[np.ndarray, "T S A"]
) -> Float[np.ndarray, " N"]:
    """Return the probability with which a policy takes all actions of each episode."""
    stages = min(len(policy), logs.horizon)
    action, seen = logs.action[:, :stages], logs.observation[:, :stages]
    inside = action != NOTHING
    chosen = policy[np.arange(stages), np.where(inside, seen, 0), action * inside]
    return np.where(inside, chosen, 1.0).prod(1)
