"""What estimators of balls around rows share: nominal rows, radii, rewards, notes."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from sdm.data.estimation.config import EstimationConfig
from sdm.data.estimation.counts import Counts
from sdm.data.estimation.estimator import Estimate, Progress
from sdm.data.estimation.radii import Distance, credible_radius
from sdm.data.estimation.rows import Rows, complete, normalised, posterior_of
from sdm.data.estimation.tables import estimate_tasks
from sdm.data.logs import Logs
from sdm.tasks.transitions import dense

# Returns nominal rows and the radius of each, for counts and a probability of failure.
Balls = Callable[[Counts, float], tuple[np.ndarray, np.ndarray]]

REWARD_NOTE = (
    "Rewards of a state and action differ in the logs: the model pays their lower "
    "confidence bounds (Hoeffding), for half of the failure probability, and if all "
    "rewards lie in the range of the logs."
)
CERTAIN_NOTE = (
    "Rewards of a state and action never differ in the logs, and are taken as certain."
)
START_NOTE = "The distribution of the first state is the observed one, without a set."


def estimate_balls(
    kind: Any,
    balls: Balls,
    sets: str,
    confidence: float,
    infinite: float,
    *,
    logs: Logs,
    config: EstimationConfig,
    held_out: Bool[np.ndarray, " N"],
    progress: Progress,
) -> Estimate:
    """Return a model of balls for each task; see `Estimator`.

    Args:
        kind: class of the models.
        balls: nominal rows and radii.
        sets: what the sets cover, in words.
        confidence: probability with which the sets of a task cover the truth.
        infinite: radius of an unvisited row that may lead anywhere.
        logs: the episodes.
        config: what the estimate assumes.
        held_out: the episodes in which an estimate from the others is scored.
        progress: called with the name of a step, work done and all work.

    Raises:
        ValueError: if balls do not support an option.

    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence:g}: must lie between 0 and 1")
    if config.unvisited == "forbid":
        raise ValueError(
            "unvisited = 'forbid': models of balls have no masks of actions; use "
            "'worst' or 'prior'"
        )

    def model(counts: Counts, worst: float) -> tuple[Any, ...]:
        return ball_model(
            kind,
            counts,
            config,
            balls,
            confidence=confidence,
            worst=worst,
            infinite=infinite,
        )

    return estimate_tasks(
        logs,
        config,
        model,
        held_out,
        progress,
        notes=lambda random: _notes(sets, len(logs.tasks), random),
    )


def ball_model(
    kind: Any,
    counts: Counts,
    config: EstimationConfig,
    balls: Balls,
    *,
    confidence: float,
    worst: float,
    infinite: float,
) -> tuple[Any, Rows, Float[np.ndarray, "S A"]]:
    """Return a model of balls, its rows, and the radius of each row.

    Args:
        kind: class of the model.
        counts: counts of the task.
        config: treatment of unvisited rows.
        balls: nominal rows and radii.
        confidence: probability with which the sets cover the truth.
        worst: return after an unvisited state and action.
        infinite: radius of an unvisited row that may lead anywhere.

    """
    delta, random = 1 - confidence, bool(counts.varies.any())
    nominal, radius = balls(counts, delta / 2 if random else delta)
    rows = complete(counts, config, nominal, worst)
    radius = np.where(counts.visits > 0, radius, infinite)
    fixed = ~np.broadcast_to(counts.decided, radius.shape)
    reward = rows.reward
    if config.unvisited == "worst":
        fixed = fixed | rows.unvisited
    if random:
        reward = np.where(fixed, reward, _lower_rewards(counts, delta / 2))
    elif config.unvisited == "prior":
        least = counts.reward[counts.paid > 0].min()
        reward = np.where(~fixed & (counts.paid == 0), least, reward)
    radius = np.where(fixed, 0.0, radius)
    model = kind(
        transition=dense(counts.transition(rows.chance)),
        radius=jnp.asarray(radius),
        reward=jnp.asarray(reward),
        initial=jnp.asarray(normalised(counts.initial)),
        discount=config.discount,
    )
    return model, rows, radius


def _lower_rewards(counts: Counts, delta: float) -> Float[np.ndarray, "S A"]:
    """Return lower confidence bounds on expected rewards (Hoeffding, 1963).

    They hold for all states and actions, and all numbers of visits, at once.
    """
    n = np.maximum(counts.paid, 1.0)
    low, high = counts.lowest, counts.highest
    share = np.log(n * (n + 1) * counts.paid.size / delta)
    lower = counts.reward - (high - low) * np.sqrt(share / (2 * n))
    return np.where(counts.paid > 0, np.maximum(lower, low), low)


def credible(
    counts: Counts,
    config: EstimationConfig,
    delta: float,
    distance: Distance,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return posterior means and credible radii of all rows that a set is for."""
    posterior = posterior_of(counts, config)
    mine = np.broadcast_to(counts.decided, counts.paid.shape)
    least = config.min_visits if config.unvisited == "worst" else 0
    mine = mine & (counts.visits >= least) & (posterior.sum(-1) > 0)
    radius = credible_radius(posterior, mine, delta, distance, seed=seed)
    return normalised(posterior), radius


def _notes(sets: str, tasks: int, random: bool) -> tuple[str, ...]:
    """Return what sets cover, in words."""
    each = " of each task" if tasks > 1 else ""
    return f"{sets}{each}.", REWARD_NOTE if random else CERTAIN_NOTE, START_NOTE
