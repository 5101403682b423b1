"""Baum–Welch with inputs against sums over all hidden paths, and what never changes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdm.data.estimation.baum_welch import (
    HiddenModel,
    Sequences,
    expected_counts,
    fit,
    log_factors,
    maximised,
)

S, A, O = 2, 2, 3  # noqa: E741


def drawn(seed, restarts=()):
    generator = np.random.default_rng(seed)

    def rows(*shape):
        return jnp.asarray(generator.dirichlet(np.ones(shape[-1]), shape[:-1]))

    return HiddenModel(
        rows(*restarts, S),
        rows(*restarts, S, O),
        rows(*restarts, A, S, S),
        rows(*restarts, A, S, O),
    )


EPISODES = [
    # first symbol, then (action, symbol); -1 for no symbol
    (0, [(0, 1), (1, 2), (0, 0)]),
    (-1, [(1, 0)]),
    (2, [(0, -1), (1, 1)]),
    (1, []),
]


def sequences(episodes=EPISODES, weight=None):
    longest = max(len(steps) for _, steps in episodes)
    action, symbol = (np.zeros((len(episodes), longest), int) for _ in range(2))
    reward = np.zeros(action.shape)
    moves = np.zeros(action.shape, bool)
    for i, (_, steps) in enumerate(episodes):
        for t, (a, o) in enumerate(steps):
            action[i, t], symbol[i, t], moves[i, t] = a, o, True
            reward[i, t] = 1 + i + 10 * t
    weights = np.ones(len(episodes)) if weight is None else np.array(weight, float)
    first = np.array([x for x, _ in episodes])
    arrays = (first, action, symbol, reward, moves, moves, weights)
    return Sequences(*map(jnp.asarray, arrays))


def by_enumeration(model, first, steps):
    """Likelihood and expected counts of an episode, by a sum over all hidden paths."""
    initial, opening, moves, shows = map(np.asarray, jax.tree.leaves(model))
    total = 0.0
    counts = [np.zeros(x.shape) for x in (initial, opening, moves, shows)]
    for path in itertools.product(range(S), repeat=len(steps) + 1):
        chance = initial[path[0]] * (opening[path[0], first] if first >= 0 else 1)
        for t, (a, o) in enumerate(steps):
            chance *= moves[a, path[t], path[t + 1]]
            chance *= shows[a, path[t + 1], o] if o >= 0 else 1
        total += chance
        counts[0][path[0]] += chance
        if first >= 0:
            counts[1][path[0], first] += chance
        for t, (a, o) in enumerate(steps):
            counts[2][a, path[t], path[t + 1]] += chance
            if o >= 0:
                counts[3][a, path[t + 1], o] += chance
    return total, [x / total for x in counts]


@pytest.mark.parametrize("seed", range(3))
def test_expected_counts_are_sums_over_hidden_paths(seed):
    model = drawn(seed)
    weight = [1.0, 2.0, 0.5, 1.0]
    found = expected_counts(model, sequences(weight=weight))
    each = [by_enumeration(model, *episode) for episode in EPISODES]
    expected = sum(w * np.log(x[0]) for w, x in zip(weight, each, strict=True))
    # Sums of a few dozen terms, to rounding.
    assert float(found.log_likelihood) == pytest.approx(expected, abs=1e-12)
    for i, count in enumerate(jax.tree.leaves(found.counts)):
        total = sum(w * x[1][i] for w, x in zip(weight, each, strict=True))
        np.testing.assert_allclose(count, total, atol=1e-13)
    separate = log_factors(model, sequences()).sum(-1)
    np.testing.assert_allclose(separate, [np.log(x[0]) for x in each], atol=1e-13)


def test_visits_and_rewards_are_those_of_smoothed_states():
    model = drawn(5)
    found = expected_counts(model, sequences(weight=[1, 2, 0.5, 1]))
    initial, opening, moves, shows = map(np.asarray, jax.tree.leaves(model))
    visits, paid = np.zeros((A, S)), np.zeros((A, S))
    for i, (first, steps) in enumerate(EPISODES):
        whole, _ = by_enumeration(model, first, steps)
        for path in itertools.product(range(S), repeat=len(steps) + 1):
            chance = initial[path[0]] * (opening[path[0], first] if first >= 0 else 1)
            for t, (a, o) in enumerate(steps):
                chance *= moves[a, path[t], path[t + 1]]
                chance *= shows[a, path[t + 1], o] if o >= 0 else 1
            share = [1, 2, 0.5, 1][i] * chance / whole
            for t, (a, _) in enumerate(steps):
                visits[a, path[t]] += share
                paid[a, path[t]] += share * (1 + i + 10 * t)
    np.testing.assert_allclose(found.visits, visits, atol=1e-12)
    np.testing.assert_allclose(found.paid, paid, atol=1e-12)


@pytest.mark.slow
def test_blocks_of_episodes_add_up(monkeypatch):
    model, data = drawn(2), sequences(episodes_of(drawn(0), 0, count=7))
    whole = expected_counts(model, data)
    monkeypatch.setattr("sdm.data.estimation.baum_welch.BLOCK", 3 * 6 * S**2)
    for x, y in zip(*map(jax.tree.leaves, (whole, expected_counts(model, data))),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(x, y, rtol=1e-12)


def episodes_of(model, seed, count=60, steps=6):
    generator = np.random.default_rng(seed)
    initial, opening, moves, shows = map(np.asarray, jax.tree.leaves(model))
    found = []
    for _ in range(count):
        s = generator.choice(S, p=initial)
        first, path = generator.choice(O, p=opening[s]), []
        for _ in range(steps):
            a = generator.integers(A)
            s = generator.choice(S, p=moves[a, s])
            path.append((int(a), int(generator.choice(O, p=shows[a, s]))))
        found.append((int(first), path))
    return found


@pytest.mark.parametrize("seed", range(2))
def test_the_likelihood_never_decreases(seed):
    data = sequences(episodes_of(drawn(seed), seed))
    models, value, path = fit(
        drawn(seed + 10, (4,)), data, iterations=40, tolerance=0.0
    )
    steps = np.diff(np.vstack([path, value]), axis=0)
    # A step at convergence is rounding of a sum of 420 logarithms.
    assert (steps >= -1e-9).all() and (steps[0] > 1e-3).all()
    for x in jax.tree.leaves(models):
        np.testing.assert_allclose(x.sum(-1), 1, atol=1e-12)


def test_zeros_stay_and_rows_without_counts_are_kept():
    model = drawn(1)
    model = HiddenModel(
        model.initial,
        model.first,
        model.transition.at[0].set(jnp.eye(S)),
        model.observation,
    )
    only = sequences([(0, [(0, 1), (0, 2)])] * 3)
    after = maximised(expected_counts(model, only).counts, model)
    np.testing.assert_array_equal(after.transition[0], np.eye(S))
    np.testing.assert_array_equal(after.transition[1], model.transition[1])
    assert not np.allclose(after.observation[0], model.observation[0])


def test_visible_states_are_counted():
    """Symbols that name the states make the expected counts those of transitions."""
    model = HiddenModel(
        jnp.full(S, 0.5), jnp.eye(S, O), jnp.full((A, S, S), 0.5),
        jnp.tile(jnp.eye(S, O), (A, 1, 1)),
    )  # fmt: skip
    data = sequences([(0, [(0, 1), (1, 1), (0, 0)]), (1, [(0, 0), (0, 1)])])
    moved = expected_counts(model, data).counts.transition
    np.testing.assert_allclose(moved, [[[0, 2], [2, 0]], [[0, 0], [0, 1]]], atol=1e-12)


def test_the_iterations_end_when_all_restarts_have_converged():
    data = sequences(episodes_of(drawn(3), 3))
    start = drawn(13, (3,))
    _, value, path = fit(start, data, iterations=500, tolerance=1e-6)
    done = int(np.isfinite(path[:, 0]).sum())
    assert 2 < done < 500 and np.isnan(path[done:]).all()
    _, longer, _ = fit(start, data, iterations=done + 50, tolerance=0.0)
    assert (np.asarray(longer) >= np.asarray(value) - 1e-9).all()
