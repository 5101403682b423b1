"""Summary of logs: lengths, coverage of observations and actions, returns."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sdm.data.logs.episodes import NOTHING, Logs

QUANTILES = (0, 5, 25, 50, 75, 95, 100)  # in %
FEW_VISITS = 10
MOST_SHOWN = 10  # rare actions


def describe_logs(
    logs: Logs, *, discount: float = 1.0, few_visits: int = FEW_VISITS
) -> dict[str, Any]:
    """Return a summary of logs, as values that JSON can represent.

    Args:
        logs: the episodes.
        discount: factor per decision of the returns.
        few_visits: an observation and an action are rare together below this number of
            decisions.

    """
    visits = visits_of(logs)
    length, decided = logs.length, logs.action != NOTHING
    seen = visits.sum(1) > 0
    pairs = visits[visits > 0]
    return {
        "episodes": logs.episodes,
        "tasks": len(logs.tasks),
        "decisions": int(length.sum()),
        "length": {
            "min": int(length.min()),
            "mean": float(length.mean()),
            "max": int(length.max()),
        },
        "ended": int(logs.done.sum()),
        "cut_off": int((~logs.done).sum()),
        "observations": len(logs.observations),
        "actions": len(logs.actions),
        "observations_with_decisions": int(seen.sum()),
        "coverage": {
            "pairs": len(pairs),
            "possible": int(seen.sum()) * len(logs.actions),
            "share": len(pairs) / max(1, int(seen.sum()) * len(logs.actions)),
            "few_visits": few_visits,
            "below": int((pairs < few_visits).sum()),
            "median_visits": float(np.median(pairs)) if len(pairs) else 0.0,
        },
        "action_shares": _action_shares(logs, visits),
        "behavior_probability": _probabilities(logs),
        "return": _distribution(returns_of(logs, discount)),
        "reward": {
            "min": float(logs.reward.min(where=decided, initial=np.inf)),
            "max": float(logs.reward.max(where=decided, initial=-np.inf)),
        },
        "warnings": list(_warnings(logs, visits)),
    }


def visits_of(logs: Logs) -> Int[np.ndarray, "O A"]:
    """Return the number of decisions with each observation and action."""
    found = np.zeros((len(logs.observations), len(logs.actions)), int)
    for observation, action in zip(logs.observation.T, logs.action.T, strict=False):
        decision = (action != NOTHING) & (observation != NOTHING)
        np.add.at(found, (observation[decision], action[decision]), 1)
    return found


def returns_of(logs: Logs, discount: float = 1.0) -> Float[np.ndarray, " N"]:
    """Return the discounted return of each episode, in the units of the rewards."""
    return logs.reward @ discount ** np.arange(logs.horizon)


def _distribution(x: Float[np.ndarray, " N"]) -> dict[str, Any]:
    return {
        "mean": float(x.mean()),
        "standard_deviation": float(x.std(ddof=1)) if len(x) > 1 else None,
        "quantiles": {str(q): float(np.percentile(x, q)) for q in QUANTILES},
    }


def _action_shares(logs: Logs, visits: Int[np.ndarray, "O A"]) -> list[dict[str, Any]]:
    """Return the share of each action in all decisions, the rarest first."""
    count = np.bincount(logs.action[logs.action != NOTHING], minlength=visits.shape[1])
    return [
        {
            "action": logs.actions[a],
            "decisions": int(count[a]),
            "share": float(count[a] / count.sum()),
            "observations": int((visits[:, a] > 0).sum()),
        }
        for a in np.argsort(count, kind="stable")
    ]


def _probabilities(logs: Logs) -> dict[str, float] | None:
    if logs.probability is None:
        return None
    inside = logs.probability[logs.action != NOTHING]
    return {"min": float(inside.min()), "median": float(np.median(inside))}


def _warnings(logs: Logs, visits: Int[np.ndarray, "O A"]) -> Iterator[str]:
    """Yield what makes a model or a policy of these logs unreliable."""
    taken = visits.sum(0) > 0
    if logs.episodes < 2:
        yield "one episode: nothing can be held out, and no interval computed"
    if taken.sum() == 1:
        name = logs.actions[int(taken.argmax())]
        yield f"one action only, `{name}`: the effects of actions cannot be compared"
    single = int(((visits > 0).sum(1) == 1).sum())
    seen = int((visits.sum(1) > 0).sum())
    if taken.sum() > 1 and seen and single > seen / 2:
        yield (
            f"{single} of {seen} observations with decisions have one action only: "
            "alternatives cannot be compared there"
        )
    pairs = visits[visits > 0]
    few = int((pairs < FEW_VISITS).sum())
    if few > len(pairs) / 2:
        yield (
            f"{few} of {len(pairs)} pairs of observation and action have fewer than "
            f"{FEW_VISITS} decisions: estimates there are weak"
        )
