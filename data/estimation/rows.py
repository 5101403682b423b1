"""Complete the rows of an estimated model: outcomes, the end, and unvisited rows."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from sdm.data.estimation.config import EstimationConfig
from sdm.data.estimation.counts import Counts, pseudo_counts


@dataclass(frozen=True)
class Rows:
    """Rows of a model, in the layout of `Counts`.

    Attributes:
        chance: probability of each possible next state, with leading axes *B of models.
        reward: expected reward.
        admissible: actions that can be chosen; None for all.
        unvisited: states and actions in which decisions are possible, with too few.

    """

    chance: Float[np.ndarray, "*B S A N"]
    reward: Float[np.ndarray, "*T S A"]
    admissible: Bool[np.ndarray, "*T S A"] | None
    unvisited: Bool[np.ndarray, "*T S A"]


def posterior_of(
    counts: Counts, config: EstimationConfig
) -> Float[np.ndarray, "*T S A N"]:
    """Return the parameters of the Dirichlet posterior of each row."""
    return counts.count + pseudo_counts(counts, config)


def normalised(weight: Float[np.ndarray, "*B N"]) -> Float[np.ndarray, "*B N"]:
    """Return weights divided by their sum; equal ones in rows without any."""
    total = weight.sum(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, weight / total, 1 / weight.shape[-1])


def complete(
    counts: Counts,
    config: EstimationConfig,
    chance: Float[np.ndarray, "*B S A N"],
    worst: float,
) -> Rows:
    """Return rows in which unvisited rows are treated as `config.unvisited` says.

    Args:
        counts: counts of the task.
        config: treatment of unvisited rows.
        chance: rows of one model or, with leading axes, of several.
        worst: return after an unvisited state and action.

    """
    space, last = counts.space, len(counts.space.outcomes) > 0
    decided = np.broadcast_to(counts.decided, counts.paid.shape).copy()
    reward = np.where(decided, counts.reward, 0.0)
    pay = space.outcomes / space.discount if len(space.outcomes) else space.outcomes
    reward[..., space.first_outcome : space.end, :] = pay[:, None]
    if decided.ndim > 2 and last:  # only outcomes pay after the last decision
        decided[-1] = False
        reward[-1, : space.first_outcome] = 0.0
    unvisited = decided & (counts.visits < config.min_visits)
    ended = _rows_to_end(counts, chance, ~decided)
    rows = Rows(ended, reward, None, unvisited)
    return TREATMENTS[config.unvisited](counts, rows, worst)


def _rows_to_end(
    counts: Counts, chance: Float[np.ndarray, "*B S A N"], chosen: np.ndarray
) -> Float[np.ndarray, "*B S A N"]:
    """Return rows of which the chosen ones lead to the end."""
    place = counts.place(counts.space.end)
    there = place[..., None] == np.arange(chance.shape[-1])
    return np.where(chosen[..., None], there, chance)


def _worst(counts: Counts, rows: Rows, worst: float) -> Rows:
    """End the episode in unvisited rows, with the worst return."""
    return replace(
        rows,
        chance=_rows_to_end(counts, rows.chance, rows.unvisited),
        reward=np.where(rows.unvisited, worst, rows.reward),
    )


def _prior(counts: Counts, rows: Rows, worst: float) -> Rows:
    """Keep the prior in unvisited rows, and pay the mean reward if none was paid."""
    mean = float((counts.reward * counts.paid).sum() / counts.paid.sum())
    blank = rows.unvisited & (counts.paid == 0)
    return replace(rows, reward=np.where(blank, mean, rows.reward))


def _forbid(counts: Counts, rows: Rows, worst: float) -> Rows:
    """Forbid unvisited actions, except in states in which all are unvisited."""
    ended = _worst(counts, rows, worst)
    none = rows.unvisited.all(-1, keepdims=True)
    return replace(ended, admissible=~rows.unvisited | none)


TREATMENTS: dict[str, Callable[[Counts, Rows, float], Rows]] = {
    "worst": _worst,
    "prior": _prior,
    "forbid": _forbid,
}
