"""Exploration without demonstrations: a bonus for states that a judge calls new.

The agent knows the transitions of a task but not its rewards. Before each decision it
asks the judge which of the possible next states are new, given the states that it has
visited in this episode. It then plans for the rewards that it has seen so far, plus a
bonus for every state that the judge called new, or of which it has not asked yet. Ties
are broken at random. The bonus 0 is random exploration until the first reward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sdm.feedback.judge import Judge
from sdm.tasks.models import MDP
from sdm.tasks.transitions import dense

NEAR = 0.9  # discount of a plan for bonuses, which prefers near states
DEPTH = 25  # most decisions of such a plan
EQUAL = 1e-9  # difference of values that rounding explains


@dataclass(frozen=True)
class Exploration:
    """One episode in each task.

    Attributes:
        found: stage of the first positive reward; the horizon if there is none.
        returns: discounted return.
        visited: number of different states.
        hits: share of new states that the judge called new; None if none was asked.
        false_alarms: share of visited states that the judge called new.

    """

    found: Int[np.ndarray, " B"]
    returns: Float[np.ndarray, " B"]
    visited: Int[np.ndarray, " B"]
    hits: float | None
    false_alarms: float | None


class Asked:
    """Answers of a judge, each asked once; tasks with the same history share them."""

    def __init__(self, judge: Judge, captions: Sequence[str], seed: int) -> None:
        """Store the judge, the text of each state, and the seed of random answers."""
        self.judge, self.captions, self.seed = judge, captions, seed
        self.answers: dict[tuple[int, tuple[int, ...]], bool] = {}

    def is_new(self, state: int, history: Sequence[int]) -> bool:
        """Return whether the judge calls a state new, given those before it."""
        place = (state, tuple(history))
        if place not in self.answers:
            texts = [self.captions[each] for each in history]
            seed = (self.seed, len(history), state)
            self.answers[place] = self.judge.is_new(
                self.captions[state], texts, seed=seed
            )
        return self.answers[place]

    def share_called_new(self, *, new: bool) -> float | None:
        """Return the share of new, or of visited, states that were called new."""
        found = [
            answer
            for (state, history), answer in self.answers.items()
            if (state not in history) == new
        ]
        return float(np.mean(found)) if found else None


def explore(
    judge: Judge,
    mdp: MDP,
    captions: Sequence[str],
    *,
    horizon: int,
    bonus: float,
    seed: int,
) -> Exploration:
    """Play one episode in each task.

    Args:
        judge: what calls states new.
        mdp: a batch of tasks with rewards that do not depend on the stage.
        captions: text of each state.
        horizon: number of decisions T.
        bonus: bonus of a new state, in units of reward.
        seed: random seed of ties, first and next states, and answers.

    Raises:
        ValueError: if the bonus is negative or not finite.

    """
    if not np.isfinite(bonus) or bonus < 0:
        raise ValueError(f"bonus = {bonus:g}: must be 0 or more")
    asked = Asked(judge, captions, seed)
    move, reward = np.asarray(dense(mdp.transition)), np.asarray(mdp.reward)
    initial = np.asarray(mdp.initial)
    episodes = [
        _episode(asked, move[b], reward[b], initial[b], horizon, bonus)
        for b in range(len(reward))
    ]
    discount = float(np.asarray(mdp.discount)) ** np.arange(horizon)
    paid = np.array([rewards for rewards, _ in episodes])
    some = paid > 0
    return Exploration(
        found=np.where(some.any(-1), some.argmax(-1), horizon),
        returns=paid @ discount,
        visited=np.array([len(set(states)) for _, states in episodes]),
        hits=asked.share_called_new(new=True),
        false_alarms=asked.share_called_new(new=False),
    )


def _episode(
    asked: Asked,
    move: Float[np.ndarray, "S A S"],
    reward: Float[np.ndarray, "S A"],
    initial: Float[np.ndarray, " S"],
    horizon: int,
    bonus: float,
) -> tuple[list[float], list[int]]:
    """Return the rewards and the states of one episode."""
    # One seed for all tasks: their episodes are equal up to the first reward.
    random = np.random.default_rng([asked.seed, 7])
    state = int(random.choice(len(initial), p=initial))
    known, novelty = np.zeros_like(reward), np.ones(len(initial))
    history, rewards = [state], list[float]()
    for t in range(horizon):
        if bonus:
            for following in np.flatnonzero((move[state] > 0).any(0)):
                novelty[following] = asked.is_new(int(following), history)
        values = _action_values(
            move, known + bonus * (move @ novelty), min(DEPTH, horizon - t)
        )[state]
        best = np.flatnonzero(values >= values.max() - EQUAL)
        action = int(random.choice(best))
        rewards.append(float(reward[state, action]))
        known[state, action] = reward[state, action]
        state = int(random.choice(len(initial), p=move[state, action]))
        history.append(state)
    return rewards, history


def _action_values(
    move: Float[np.ndarray, "S A S"], reward: Float[np.ndarray, "S A"], depth: int
) -> Float[np.ndarray, "S A"]:
    """Return action values of the next `depth` decisions."""
    q = reward
    for _ in range(depth - 1):
        q = reward + NEAR * (move @ q.max(-1))
    return q


def measures(found: Exploration, horizon: int) -> dict[str, Any]:
    """Return the means over tasks, as JSON values.

    `found_percent` is the share of tasks with a reward, and `steps_mean` the mean stage
    of the first one, with the horizon in its place if there is none.
    """
    return {
        "found_percent": 100 * float((found.found < horizon).mean()),
        "steps_mean": float(found.found.mean()),
        "return_mean": float(found.returns.mean()),
        "states_mean": float(found.visited.mean()),
        "hits": found.hits,
        "false_alarms": found.false_alarms,
    }
