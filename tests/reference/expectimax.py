"""Exact values of tiny partially observed tasks, by recursion over histories.

As plain as can be: no merging of beliefs, no arrays of them, no code of the package.
Where `rewards` are seen, a history holds what each decision paid.
"""

import numpy as np


def value(models, reward, belief, alpha, discount, horizon, rewards=False):
    """α-MEU of a belief; `models` is a list of (transition [S,A,S'], obs [A,S',O])."""
    if horizon == 0:
        return 0.0
    best = -np.inf
    for a in range(reward.shape[1]):
        # The beliefs, not normalised, that what was paid leaves.
        paid = [belief * (reward[:, a] == r) for r in np.unique(reward[:, a])]
        each = []
        for transition, observation in models:
            total = float(belief @ reward[:, a])
            for left in paid if rewards else [belief]:
                for o in range(observation.shape[2]):
                    joint = (left @ transition[:, a]) * observation[a, :, o]
                    if (chance := joint.sum()) > 0:
                        rest = (models, reward, joint / chance, alpha, discount)
                        after = value(*rest, horizon - 1, rewards)
                        total += discount * chance * after
            each.append(total)
        best = max(best, alpha * min(each) + (1 - alpha) * max(each))
    return best


def initial_value(
    models, firsts, reward, initial, alpha, discount, horizon, rewards=False
):
    """The same before the first observation; `firsts` is a list of [S, O], or None."""
    if firsts is None:
        return value(models, reward, initial, alpha, discount, horizon, rewards)
    each = []
    for first in firsts:
        total = 0.0
        for o in range(first.shape[1]):
            joint = initial * first[:, o]
            if (chance := joint.sum()) > 0:
                rest = (models, reward, joint / chance, alpha, discount, horizon)
                total += chance * value(*rest, rewards)
        each.append(total)
    return alpha * min(each) + (1 - alpha) * max(each)
