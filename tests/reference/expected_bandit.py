"""Bandits by enumeration: every policy value as a sum over histories, with loops."""

import itertools


def best_return(prior, rounds, history=()):
    """The highest expected return of a Bernoulli bandit from a history on.

    `prior` lists (probability, means of the arms); a history lists (arm, reward).
    """
    if len(history) == rounds:
        return 0.0
    return max(value_of(arm, prior, rounds, history) for arm in range(len(prior[0][1])))


def value_of(arm, prior, rounds, history):
    """The expected return from an arm on, if all later arms are the best ones."""
    chance = [p * likelihood(means, history) for p, means in prior]
    won = sum(c * m[arm] for c, (_, m) in zip(chance, prior, strict=True))
    won /= sum(chance)
    after = [best_return(prior, rounds, (*history, (arm, r))) for r in (1, 0)]
    return won * (1 + after[0]) + (1 - won) * after[1]


def likelihood(means, history):
    """The probability of the rewards of a history."""
    found = 1.0
    for arm, reward in history:
        found *= means[arm] if reward else 1 - means[arm]
    return found


def return_of(choose, prior, rounds):
    """The expected return of a policy: `choose(history)` is its arm."""
    total = 0.0
    for rewards in itertools.product((1, 0), repeat=rounds):
        history = []
        for reward in rewards:
            history.append((choose(tuple(history)), reward))
        total += sum(rewards) * sum(p * likelihood(m, history) for p, m in prior)
    return total
