"""Small MDPs with a behavior policy: all their episodes, and random ones, as logs."""

import itertools
from dataclasses import dataclass

import numpy as np

from sdm.data.logs import NOTHING, Logs


@dataclass(frozen=True)
class World:
    """An MDP; its last state, if `ends`, ends an episode.

    Attributes:
        transition: [S, A, S].
        reward: [S, A].
        initial: [S].
        behavior: [S, A].
        policy: [T, S, A], to evaluate.
        discount: factor per decision.
        ends: whether episodes end in the last state.

    """

    transition: np.ndarray
    reward: np.ndarray
    initial: np.ndarray
    behavior: np.ndarray
    policy: np.ndarray
    discount: float = 0.9
    ends: bool = False

    @property
    def sizes(self):
        """Return the numbers of stages, states and actions."""
        return self.policy.shape

    def value(self, policy=None):
        """Return the exact value by backward recursion."""
        policy = self.policy if policy is None else policy
        value = np.zeros(self.sizes[1])
        for choice in policy[::-1]:
            value = (
                choice * (self.reward + self.discount * self.transition @ value)
            ).sum(-1)
            if self.ends:
                value[-1] = 0.0
        return float(self.initial @ value)


def random_world(seed, stages=3, states=3, actions=2, *, ends=False):
    random = np.random.default_rng(seed)
    initial = random.dirichlet(np.ones(states))
    if ends:
        initial = np.append(initial[:-1] / initial[:-1].sum(), 0.0)
    return World(
        random.dirichlet(np.ones(states), (states, actions)),
        random.normal(size=(states, actions)),
        initial,
        random.dirichlet(np.full(actions, 3.0), states),
        random.dirichlet(np.ones(actions), (stages, states)),
        ends=ends,
    )


def logs_of(world, rows, *, known=True):
    """Return episodes, lists of (s, a), as logs; each ends with its last state."""
    stages, states, actions = world.sizes
    count = len(rows)
    observation = np.full((count, stages + 1), NOTHING)
    action = np.full((count, stages), NOTHING)
    reward, chance = np.zeros((count, stages)), np.ones((count, stages))
    done = np.zeros(count, bool)
    for i, (moves, last) in enumerate(rows):
        for t, (s, a) in enumerate(moves):
            observation[i, t], action[i, t] = s, a
            reward[i, t], chance[i, t] = world.reward[s, a], world.behavior[s, a]
        observation[i, len(moves)] = last
        done[i] = world.ends and last == states - 1
    return Logs(
        observation,
        action,
        reward,
        done,
        np.zeros(count, int),
        chance if known else None,
        tuple(map(str, range(states))),
        tuple(map(str, range(actions))),
        ("0",),
    )


def every_episode(world):
    """Return all possible episodes and their probabilities."""
    stages, states, actions = world.sizes
    rows, chances = [], []

    def go(moves, s, chance):
        over = world.ends and s == states - 1
        if len(moves) == stages or over:
            rows.append((tuple(moves), s))
            chances.append(chance)
            return
        for a, after in itertools.product(range(actions), range(states)):
            p = world.behavior[s, a] * world.transition[s, a, after]
            if p > 0:
                go([*moves, (s, a)], after, chance * p)

    for s in range(states):
        if world.initial[s] > 0:
            go([], s, world.initial[s])
    return rows, np.array(chances)


def drawn_logs(world, seed, episodes, *, known=True):
    """Return random episodes as logs."""
    stages, states, actions = world.sizes
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(episodes):
        s, moves = int(random.choice(states, p=world.initial)), []
        while len(moves) < stages and not (world.ends and s == states - 1):
            a = int(random.choice(actions, p=world.behavior[s]))
            moves.append((s, a))
            s = int(random.choice(states, p=world.transition[s, a]))
        rows.append((tuple(moves), s))
    return logs_of(world, rows, known=known)
