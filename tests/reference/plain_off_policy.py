"""Off-policy estimators in plain Python, one decision at a time.

Episodes are lists of (observation, action, reward, behavior probability); `policy` is
a function of an observation and a stage to probabilities.
"""

from collections import defaultdict


def episodes_of(logs):
    """Return logs as lists of decisions."""
    return [
        [
            (
                int(logs.observation[i, t]),
                int(logs.action[i, t]),
                float(logs.reward[i, t]),
                float(logs.probability[i, t]),
            )
            for t in range(logs.length[i])
        ]
        for i in range(logs.episodes)
    ]


def weights(episode, policy, horizon):
    """Return the importance weight up to each decision, and after the end."""
    found, weight = [], 1.0
    for t in range(horizon):
        if t < len(episode):
            s, a, _, chance = episode[t]
            weight *= policy(s, t)[a] / chance
        found.append(weight)
    return found


def importance_sampling(episodes, policy, discount, horizon):
    total = 0.0
    for episode in episodes:
        returned = sum(discount**t * step[2] for t, step in enumerate(episode))
        total += weights(episode, policy, horizon)[-1] * returned
    return total / len(episodes)


def per_decision(episodes, policy, discount, horizon):
    total = 0.0
    for episode in episodes:
        rho = weights(episode, policy, horizon)
        total += sum(discount**t * rho[t] * step[2] for t, step in enumerate(episode))
    return total / len(episodes)


def weighted_per_decision(episodes, policy, discount, horizon):
    rho = [weights(episode, policy, horizon) for episode in episodes]
    total = 0.0
    for t in range(horizon):
        every = sum(row[t] for row in rho)
        for row, episode in zip(rho, episodes, strict=True):
            if t < len(episode):
                total += discount**t * row[t] / every * episode[t][2]
    return total


def fitted(episodes, policy, discount, horizon):
    """Return Q[t][s, a] and, for actions that were not logged there, fill[t][s]."""
    q, fill, overall = [None] * horizon, [None] * horizon, [0.0] * horizon

    def value(t, s):
        return sum(
            p * q[t].get((s, a), fill[t].get(s, overall[t]))
            for a, p in enumerate(policy(s, t))
        )

    for t in reversed(range(horizon)):
        cells, states, every = defaultdict(list), defaultdict(list), []
        for episode in episodes:
            if t < len(episode):
                s, a, reward, _ = episode[t]
                later = value(t + 1, episode[t + 1][0]) if t + 1 < len(episode) else 0.0
                cells[s, a].append(reward + discount * later)
                states[s].append(cells[s, a][-1])
                every.append(cells[s, a][-1])
        q[t] = {key: sum(x) / len(x) for key, x in cells.items()}
        fill[t] = {key: sum(x) / len(x) for key, x in states.items()}
        overall[t] = sum(every) / len(every) if every else 0.0
    return q, fill, overall


def fitted_q(episodes, policy, discount, horizon):
    q, fill, _ = fitted(episodes, policy, discount, horizon)
    total = 0.0
    for episode in episodes:
        s = episode[0][0]
        for a, p in enumerate(policy(s, 0)):
            total += p * q[0].get((s, a), fill[0][s])
    return total / len(episodes)


def crossed(episodes, policy, discount, horizon, actions):
    """Return the cross-fitted Q of every action at every decision."""
    halves = [
        fitted(episodes[1 - own :: 2], policy, discount, horizon) for own in (0, 1)
    ]
    found = []
    for i, episode in enumerate(episodes):
        q, fill, overall = halves[i % 2]
        found.append(
            [
                [q[t].get((s, a), fill[t].get(s, overall[t])) for a in range(actions)]
                for t, (s, *_) in enumerate(episode)
            ]
        )
    return found


def doubly_robust(episodes, policy, discount, horizon, actions, *, weighted):
    q = crossed(episodes, policy, discount, horizon, actions)
    rho = [[1.0, *weights(episode, policy, horizon)] for episode in episodes]
    count = len(episodes)
    total = 0.0
    for t in range(horizon):
        before = sum(row[t] for row in rho) if weighted else count
        now = sum(row[t + 1] for row in rho) if weighted else count
        for i, episode in enumerate(episodes):
            if t < len(episode):
                s, a, reward, _ = episode[t]
                v = sum(p * x for p, x in zip(policy(s, t), q[i][t], strict=True))
                total += discount**t * rho[i][t] / before * v
                total += discount**t * rho[i][t + 1] / now * (reward - q[i][t][a])
    return total
