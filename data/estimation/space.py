"""States of an estimated model, and the decisions of logs in these states.

States are the observations, then one *outcome* for each reward at the end of an
episode, then the end. With outcomes, the last reward r of an episode is paid by the
outcome, one decision later, as r/γ, so that its present value stays r: a set of
transition laws then covers what the end pays. A model with outcomes needs one decision
more than the longest episode.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sdm.data.logs import NOTHING, Logs, LogsError

MOST_OUTCOMES = 20  # rewards at the end that are different outcomes
AT_ONCE = 1 << 20  # decisions that are in memory, beside the logs


@dataclass(frozen=True)
class Space:
    """States of an estimated model.

    Attributes:
        observations: names of observations, which are the first states.
        actions: names of actions.
        outcomes: reward at the end of an episode of each outcome; empty if the last
            reward is paid at once.
        direct: whether decisions can lead to the end itself, without an outcome.
        discount: factor per decision.
        horizon: decisions that the longest episode needs in the model.

    """

    observations: tuple[str, ...]
    actions: tuple[str, ...]
    outcomes: Float[np.ndarray, " E"]
    direct: bool
    discount: float
    horizon: int

    @property
    def first_outcome(self) -> int:
        """Return the index of the first outcome, the number of observations."""
        return len(self.observations)

    @property
    def end(self) -> int:
        """Return the index of the end, the last state."""
        return len(self.observations) + len(self.outcomes)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the name of each state."""
        return (*self.observations, *self.endings)

    @property
    def endings(self) -> tuple[str, ...]:
        """Return the names of the outcomes and of the end."""
        taken, found = set(self.observations), []
        for text in (*(f"end with {x:g}" for x in self.outcomes), "end"):
            while text in taken:  # an observation may have this name
                text = f"({text})"
            taken.add(text)
            found.append(text)
        return tuple(found)


@dataclass(frozen=True)
class Decisions:
    """Decisions of logs, one entry each.

    Attributes:
        episode: index of the episode.
        stage: number of the decision in its episode, from 0.
        state: index of the state; `NOTHING` if nothing was observed before it.
        action: index of the action.
        following: index of the next state; `NOTHING` if the log ends before it.
        reward: what the decision pays in the model.

    """

    episode: Int[np.ndarray, " D"]
    stage: Int[np.ndarray, " D"]
    state: Int[np.ndarray, " D"]
    action: Int[np.ndarray, " D"]
    following: Int[np.ndarray, " D"]
    reward: Float[np.ndarray, " D"]


def space_of(logs: Logs, *, discount: float = 1.0, outcomes: bool = True) -> Space:
    """Return the states of a model of logs.

    Args:
        logs: the episodes.
        discount: factor per decision.
        outcomes: whether ends with different rewards are different states, if there are
            not more than `MOST_OUTCOMES` of them.

    """
    last = _last_rewards(logs)
    paid = np.unique(last) if outcomes and discount > 0 else np.zeros(0)
    if len(paid) > MOST_OUTCOMES or not paid.any():
        paid = np.zeros(0)
    return Space(
        observations=logs.observations,
        actions=logs.actions,
        outcomes=paid,
        direct=bool(logs.done.any()) and not len(paid),
        discount=discount,
        horizon=logs.horizon + (len(paid) > 0),
    )


def _last_rewards(logs: Logs) -> Float[np.ndarray, " D"]:
    """Return the reward of the last decision of each episode that ended."""
    ended = np.flatnonzero(logs.done)
    return logs.reward[ended, logs.length[ended] - 1]


def decisions_of(logs: Logs, space: Space) -> Decisions:
    """Return the decisions of logs in the states of a model."""
    episode, stage = np.nonzero(logs.action != NOTHING)
    reward = logs.reward[episode, stage].copy()
    following = logs.observation[episode, stage + 1].astype(np.int64)
    final = logs.done[episode] & (stage == logs.length[episode] - 1)
    following[final] = space.end
    if len(space.outcomes):
        place = np.searchsorted(space.outcomes, reward[final])
        inside = np.minimum(place, len(space.outcomes) - 1)
        if (space.outcomes[inside] != reward[final]).any():
            raise LogsError("logs: an episode ends with a reward of no outcome")
        following[final] = space.first_outcome + inside
        reward[final] = 0.0
    return Decisions(
        episode=episode,
        stage=stage,
        state=logs.observation[episode, stage].astype(np.int64),
        action=logs.action[episode, stage].astype(np.int64),
        following=following,
        reward=reward,
    )


def decision_blocks(logs: Logs, space: Space) -> Iterator[tuple[int, Decisions]]:
    """Yield the decisions of some episodes at a time, and the index of the first."""
    episodes = max(1, AT_ONCE // max(1, logs.horizon))
    for start in range(0, logs.episodes, episodes):
        some = logs.select(slice(start, start + episodes))
        yield start, decisions_of(some, space)


def worst_return(logs: Logs, discount: float) -> float:
    """Return the lowest discounted return from any decision on, in units of reward."""
    ahead, least = np.zeros(logs.episodes), np.inf
    for t in reversed(range(logs.horizon)):
        ahead = logs.reward[:, t] + discount * ahead
        inside = logs.action[:, t] != NOTHING
        if inside.any():
            least = min(least, float(ahead[inside].min()))
    return least
