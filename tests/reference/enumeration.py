"""Slow, obvious references, written with loops and without JAX."""

import itertools

import numpy as np


def best_value_of_all_plans(transition, reward, discount, horizon):
    """Value of each start state under the best of all deterministic Markov plans."""
    states, actions = reward.shape
    plans = itertools.product(range(actions), repeat=horizon * states)
    values = [
        value_of_plan(np.reshape(p, (horizon, states)), transition, reward, discount)
        for p in plans
    ]
    return np.max(values, axis=0)


def value_of_plan(plan, transition, reward, discount):
    """Value of each start state under `plan[stage][state]`, by the definition."""
    states = len(reward)
    value = np.zeros(states)
    for rule in plan[::-1]:
        new = np.zeros(states)
        for s in range(states):
            a = rule[s]
            new[s] = reward[s, a]
            for n in range(states):
                new[s] += discount * transition[s, a, n] * value[n]
        value = new
    return value


def value_over_all_paths(probabilities, transition, reward, initial, discount):
    """Expected return of a policy as a sum over every possible path, one by one."""
    horizon, states, actions = probabilities.shape
    total = 0.0
    for path in itertools.product(range(states), repeat=horizon):
        for choice in itertools.product(range(actions), repeat=horizon):
            chance, earned = initial[path[0]], 0.0
            for t in range(horizon):
                s, a = path[t], choice[t]
                chance *= probabilities[t, s, a]
                earned += discount**t * reward[s, a]
                if t + 1 < horizon:
                    chance *= transition[s, a, path[t + 1]]
            total += chance * earned
    return total
