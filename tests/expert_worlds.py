"""Small worlds with logs, logs from lists, and values of plans by loops."""

from functools import cache

import jax.numpy as jnp
import numpy as np

from sdm.data.logs import NOTHING, Logs
from sdm.experiments.logged_world import LoggedWorld
from sdm.tasks.models import MDP

T = 3


def world(seed, *, states=4, actions=2, alike=0.0, horizon=T, hidden=1):
    """A random model in which the last two states end the episode, with 1 and 0."""
    generator = np.random.default_rng(seed)
    shape = (states + 2,)
    transition = generator.dirichlet(np.ones(states + 2), (states + 2, actions))
    transition = alike * transition[:, :1] + (1 - alike) * transition
    transition[states:] = np.eye(states + 2)[states:, None]
    arrival = np.eye(*shape * 2)[states]
    reward = transition[..., states].copy()
    reward[states:] = 0
    initial = np.zeros(states + 2)
    initial[:states] = 1 / states
    model = MDP(*map(jnp.asarray, (transition, reward, initial)), 1.0)
    return LoggedWorld(
        model=model,
        expert=generator.dirichlet(np.ones(actions), states + 2),
        arrival=arrival,
        seen=np.arange(states + 2) // hidden,
        observations=tuple(map(str, range((states + 2) // hidden))),
        actions=tuple(map(str, range(actions))),
        horizon=horizon,
    )


def frequencies(logs, horizon, policy=None, chosen=max, missing=0.0):
    """Return the value of a plan for relative frequencies, by loops over episodes.

    Pairs that the logs lack have the value `missing` if there is a policy.
    """
    seen = {}
    for n in range(logs.episodes):
        for t in range(logs.length[n]):
            pair = (logs.observation[n, t], logs.action[n, t])
            last = logs.done[n] and t == logs.length[n] - 1
            then = None if last else logs.observation[n, t + 1]
            seen.setdefault(pair, []).append((logs.reward[n, t], then))

    @cache
    def value(state, t):
        if t == horizon or state is None:
            return 0.0
        worth = {
            a: np.mean([r + value(then, t + 1) for r, then in seen[state, a]])
            for a in range(len(logs.actions))
            if (state, a) in seen
        }
        if policy is None:
            return chosen(worth.values())
        lost = 1 - sum(policy[t, state, a] for a in worth)
        known = sum(policy[t, state, a] * x for a, x in worth.items())
        return known + lost * missing

    return np.mean([value(o, 0) for o in logs.observation[:, 0]])


def table(observation, action, reward, done):
    """Logs of one task, from lists; None where there is nothing."""

    def padded(rows, width, nothing):
        return np.array([[*row, *[nothing] * (width - len(row))] for row in rows])

    width = max(map(len, action))
    return Logs(
        observation=padded(observation, width + 1, NOTHING),
        action=padded(action, width, NOTHING),
        reward=padded(reward, width, 0.0).astype(float),
        done=np.array(done),
        task=np.zeros(len(action), int),
        probability=None,
        observations=tuple(map(str, range(1 + max(map(max, observation))))),
        actions=tuple(map(str, range(1 + max(map(max, action))))),
        tasks=("0",),
    )
