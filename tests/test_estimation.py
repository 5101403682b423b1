"""Tabular estimates and ambiguity sets from logs, against counts by hand and draws."""

import dataclasses
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sdm.data.estimation import EstimationConfig, estimate_models, radii
from sdm.data.estimation.estimator import estimators, register_estimator
from sdm.data.estimation.radii import (
    chi_squared_radius,
    credible_radius,
    dirichlet_draws,
    kl_distance,
    l1_distance,
    weissman_radius,
)
from sdm.data.estimation.run import held_out_episodes
from sdm.data.estimation.space import decisions_of, space_of, worst_return
from sdm.data.logs import NOTHING, Logs, LogsError
from sdm.data.logs.simulate import simulate_logs
from sdm.solvers_jax import MDP, solve
from sdm.tasks.models import check_model
from sdm.tasks.policy import uniform_random
from sdm.tasks.transitions import dense

ALL = ("tabular", "l1", "kl", "posterior")


def logs_of(episodes, *, actions=2, observations=3, done=(), task=None):
    """Logs of episodes, which are lists (observation, action, reward, …, last)."""
    count = len(episodes)
    horizon = max(len(x) // 3 for x in episodes)
    seen = np.full((count, horizon + 1), NOTHING)
    acted, paid = np.full((count, horizon), NOTHING), np.zeros((count, horizon))
    for i, flat in enumerate(episodes):
        steps = len(flat) // 3
        for t in range(steps):
            seen[i, t], acted[i, t], paid[i, t] = flat[3 * t : 3 * t + 3]
        if len(flat) % 3:
            seen[i, steps] = flat[-1]
    tasks = np.zeros(count, int) if task is None else np.array(task)
    return Logs(
        observation=seen,
        action=acted,
        reward=paid,
        done=np.isin(np.arange(count), done),
        task=tasks,
        probability=None,
        observations=tuple("xyzuvw"[:observations]),
        actions=tuple("ab"[:actions]),
        tasks=tuple(str(k) for k in range(int(tasks.max()) + 1)),
    )


def small(**options):
    """Four episodes; two end, with the rewards 1 and -1."""
    return logs_of(
        [
            (0, 0, 0.0, 1, 1, 0.5, 2),
            (0, 0, 0.0, 0, 1, 1.0),
            (0, 1, 0.0, 1, 1, -1.0),
            (1, 1, 0.5, 1),
        ],
        done=(1, 2),
        **options,
    )


def made(logs, name="tabular", options=None, **config):
    found, report = estimate_models(
        logs, estimators()[name](**(options or {})), EstimationConfig(**config)
    )
    for model in found.models:
        check_model(model)
    return found, report


def counted(logs, space):
    """Counts of transitions and mean rewards, by loops over episodes."""
    states, actions = space.end + 1, len(space.actions)
    count = np.zeros((states, actions, states))
    paid = [[[] for _ in range(actions)] for _ in range(states)]
    for i in range(logs.episodes):
        steps = int((logs.action[i] != NOTHING).sum())
        for t in range(steps):
            s, a = int(logs.observation[i, t]), int(logs.action[i, t])
            reward, after = float(logs.reward[i, t]), int(logs.observation[i, t + 1])
            if logs.done[i] and t == steps - 1:
                after = space.end
                if len(space.outcomes):
                    after = space.first_outcome + list(space.outcomes).index(reward)
                    reward = 0.0
            paid[s][a].append(reward)
            if after != NOTHING:
                count[s, a, after] += 1
    mean = np.array([[np.mean(x) if x else 0.0 for x in row] for row in paid])
    return count, mean


def random_logs(seed, *, done=True, observations=3):
    generator = np.random.default_rng(seed)
    episodes = []
    for _ in range(12):
        steps = int(generator.integers(1, 5))
        flat = []
        for _ in range(steps):
            flat += [
                int(generator.integers(observations)),
                int(generator.integers(2)),
                float(generator.integers(-1, 2)),
            ]
        episodes.append((*flat, int(generator.integers(observations))))
    ended = range(0, 12, 2) if done else ()
    return logs_of(episodes, observations=observations, done=tuple(ended))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("outcomes", [True, False])
def test_relative_frequencies_are_counts_by_hand(seed, outcomes):
    logs = random_logs(seed)
    found, report = made(logs, prior=0.0, outcomes=outcomes)
    space = space_of(logs, outcomes=outcomes)
    count, mean = counted(logs, space)
    model, visits = found.models[0], count.sum(-1)
    seen = visits[:3] > 0
    # Quotients of the same integers, to rounding.
    expected = count[:3][seen] / visits[:3][seen][:, None]
    np.testing.assert_allclose(model.transition[:3][seen], expected, atol=1e-15)
    np.testing.assert_allclose(model.reward[:3][seen], mean[:3][seen], atol=1e-15)
    starts = np.bincount(logs.observation[:, 0], minlength=space.end + 1)
    np.testing.assert_allclose(model.initial, starts / 12, atol=1e-15)
    assert report["unvisited"] == (~seen).sum() and report["pairs"] == 6
    assert found.states == space.names and len(found.states) == space.end + 1


def test_the_posterior_mean_adds_the_prior_evenly():
    logs = random_logs(1)
    space = space_of(logs)
    count, _ = counted(logs, space)
    found, _ = made(logs, prior=2.0)
    possible = np.append(np.ones(space.end), 0)  # the end follows outcomes only
    both = count + 2 * possible / space.end
    expected = both / both.sum(-1, keepdims=True)
    seen = count[:3].sum(-1) > 0
    np.testing.assert_allclose(
        found.models[0].transition[:3][seen], expected[:3][seen], atol=1e-15
    )
    found, _ = made(logs, prior=2.0, support="seen")
    for s, a in zip(*np.nonzero(seen), strict=True):
        here = count[s, a] > 0
        expected = np.where(here, count[s, a] + 2 / here.sum(), 0)
        np.testing.assert_allclose(
            found.models[0].transition[s, a], expected / expected.sum(), atol=1e-15
        )


def test_outcomes_keep_returns_and_need_one_decision_more():
    logs = small()
    space = space_of(logs, discount=0.5)
    assert space.outcomes.tolist() == [-1.0, 1.0] and space.horizon == 3
    assert space.names[3:] == ("end with -1", "end with 1", "end")
    model = made(logs, discount=0.5)[0].models[0]
    # An outcome pays r/γ one decision later, which is worth r at the end.
    np.testing.assert_array_equal(model.reward[3:], [[-2.0] * 2, [2.0] * 2, [0.0] * 2])
    np.testing.assert_array_equal(model.transition[3:, :, -1], 1)
    decisions = decisions_of(logs, space)
    assert decisions.following.tolist() == [1, 2, 0, 4, 1, 3, 1]
    assert decisions.reward.tolist() == [0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.5]


@pytest.mark.parametrize("outcomes", [True, False])
def test_the_value_of_a_fitted_chain_is_the_mean_return(outcomes):
    """One action and a tree of observations: the logged mean is the model's value."""
    episodes = [(0, 0, 1.0, 1, 0, r) for r in (3.0, 3.0, -1.0)] + [
        (0, 0, 1.0, 2, 0, 5.0)
    ]
    logs = logs_of(episodes, actions=1, done=range(4))
    found, _ = made(logs, prior=0.0, outcomes=outcomes, discount=0.9)
    value = float(solve(found.models[0], horizon=found.horizon).value)
    assert value == pytest.approx(1 + 0.9 * (3 + 3 - 1 + 5) / 4, abs=1e-12)


def test_many_different_rewards_at_the_end_are_no_outcomes():
    logs = logs_of([(0, 0, float(i)) for i in range(1, 25)], done=range(24))
    space = space_of(logs)
    assert not len(space.outcomes) and space.direct and space.horizon == 1
    assert made(logs)[0].models[0].reward[0, 0] == pytest.approx(12.5)


def test_unvisited_rows_are_treated_as_stated():
    logs = small()
    worst = worst_return(logs, 1.0)
    assert worst == -1.0
    ended = made(logs, unvisited="worst")[0].models[0]
    assert (ended.reward[2] == worst).all() and (ended.transition[2, :, -1] == 1).all()
    assert made(logs, worst=-7.0)[0].models[0].reward[1, 0] == -7.0
    prior = made(logs, unvisited="prior")[0].models[0]
    np.testing.assert_allclose(prior.transition[2, 0], [0.2] * 5 + [0], atol=1e-15)
    assert prior.reward[2, 0] == pytest.approx(1.0 / 7)  # of all decisions
    masked = made(logs, unvisited="forbid")[0].models[0].admissible
    # No action of z was taken: all stay possible, and end with the worst return.
    expected = [[1, 1], [0, 1], [1, 1], [1, 1], [1, 1], [1, 1]]
    np.testing.assert_array_equal(masked, np.array(expected, bool))


@pytest.mark.parametrize("by_stage", [False, True])
def test_pessimism_lowers_rewards_by_the_number_of_decisions(by_stage):
    plain = made(small(), options={"by_stage": by_stage})[0].models[0]
    options = {"by_stage": by_stage, "pessimism": 2.0}
    lowered = made(small(), options=options)[0].models[0]
    np.testing.assert_array_equal(lowered.transition, plain.transition)
    difference = np.asarray(plain.reward - lowered.reward)
    if not by_stage:
        # x has both twice, y has b three times; z, outcomes and the end have nothing.
        expected = np.zeros_like(difference)
        expected[0], expected[1, 1] = 2 / 2**0.5, 2 / 3**0.5
        np.testing.assert_allclose(difference, expected, atol=1e-15)
    largest = 2.0 if by_stage else 2 / 2**0.5  # at stages, x and b are once
    assert (difference >= 0).all() and difference.max() == pytest.approx(largest)


def test_pessimism_must_be_a_number_from_zero():
    for value in (-1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match=f"pessimism = {value:g}: must be 0 or"):
            estimators()["tabular"](pessimism=value)


def test_the_worst_return_is_of_decisions_that_happened():
    logs = logs_of([(0, 0, 2.0), (0, 0, 3.0, 1, 1, 4.0)])
    assert worst_return(logs, 0.5) == 2.0  # not 0, after the end of the first episode
    costs = logs_of([(0, 0, -2.0, 1, 1, -4.0, 1, 1, 1.0)])
    assert worst_return(costs, 0.5) == -2 + 0.5 * -3.5


def test_the_least_number_of_visits_is_a_support_constraint():
    found, report = made(small(), unvisited="forbid", min_visits=3)
    assert report["unvisited"] == 5  # only y and b have three decisions
    np.testing.assert_array_equal(
        found.models[0].admissible[:3], [[True, True], [False, True], [True, True]]
    )
    assert (found.models[0].transition[0, :, -1] == 1).all()


@pytest.mark.parametrize("outcomes", [True, False])
def test_stages_are_counted_separately(outcomes):
    logs = small()
    found, _ = made(logs, options={"by_stage": True}, prior=0.0, outcomes=outcomes)
    model, steps = found.models[0], found.horizon
    assert model.transition.shape[0] == steps == 2 + outcomes
    np.testing.assert_allclose(model.transition[0, 0, 0, :2], [0.5, 0.5])
    after = 3 + outcomes if outcomes else 3
    assert model.transition[1, 0, 1, after] == 1  # x, b at stage 1: the end with 1
    assert float(solve(model, horizon=steps).value) == pytest.approx(
        # x and a, then x and b (1) or y and b (0.5); starts are x in 3 of 4 episodes,
        # y is worth 0.5 at stage 0 and then the worst return, -1, or more
        0.75 * (0.5 * 1.0 + 0.5 * -0.25) + 0.25 * (0.5 - 0.25),
        abs=1e-12,
    )


def test_tasks_have_models_of_equal_shape():
    logs = random_logs(4)
    both = dataclasses.replace(logs, task=np.arange(12) % 2, tasks=("north", "south"))
    found, report = made(both, prior=0.0)
    space = space_of(both)
    assert len(found.models) == 2 and report["tasks"] == 2
    for k, model in enumerate(found.models):
        count, _ = counted(both.select(both.task == k), space)
        seen = count[:3].sum(-1) > 0
        expected = count[:3][seen] / count[:3][seen].sum(-1, keepdims=True)
        np.testing.assert_allclose(model.transition[:3][seen], expected, atol=1e-15)


def test_the_held_out_score_is_that_of_the_other_episodes():
    logs = random_logs(2)
    config = EstimationConfig()
    _, report = estimate_models(logs, estimators()["tabular"](), config, seed=3)
    test = held_out_episodes(logs, config.held_out, 3)
    assert test.sum() == report["held_out_episodes"] == 2
    space = space_of(logs)
    train, held = (counted(logs.select(x), space)[0] for x in (~test, test))
    smooth = train + np.append(np.ones(space.end), 0) / space.end
    chance = smooth / smooth.sum(-1, keepdims=True)
    used = held > 0
    expected = (held[used] * np.log(chance[used])).sum() / held.sum()
    assert report["held_out_log_likelihood"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("support", ["all", "seen"])
@pytest.mark.parametrize("by_stage", [False, True])
def test_decisions_are_counted_in_blocks(monkeypatch, support, by_stage):
    """Counts and scores do not depend on how many decisions are in memory."""
    logs = dataclasses.replace(
        random_logs(3), task=np.arange(12) % 3, tasks=("a", "b", "c")
    )
    estimator = estimators()["tabular"](by_stage=by_stage)
    config = EstimationConfig(support=support, prior=1.0)
    whole, report = estimate_models(logs, estimator, config)
    monkeypatch.setattr("sdm.data.estimation.space.AT_ONCE", 2 * logs.horizon)
    parts, same = estimate_models(logs, estimator, config)
    assert same == report
    for one, other in zip(whole.models, parts.models, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_impossible_held_out_transitions_are_reported():
    report = made(random_logs(2), prior=0.0)[1]
    assert report["held_out_log_likelihood"] is None
    assert any("probability 0" in text for text in report["warnings"])


def test_weissmans_radius_is_the_inverse_of_its_bound():
    visits, states, delta = np.array([1.0, 40.0, 4000.0]), 5, 0.1
    radius = weissman_radius(visits, states, delta)
    assert radius[0] == 2.0 and weissman_radius(np.zeros(1), 5, 0.1)[0] == 2.0
    for n, r in zip(visits[1:], radius[1:], strict=True):
        bound = (2**states - 2) * math.exp(-n * r**2 / 2)
        assert bound == pytest.approx(delta / 3 / (n * (n + 1)), rel=1e-9)
    assert weissman_radius(np.array([7.0]), 1, 0.1)[0] == 0


def test_a_large_number_of_states_does_not_overflow():
    radius = weissman_radius(np.array([1e6]), 2000, 0.05)
    expected = math.sqrt(2e-6 * (2000 * math.log(2) + math.log(1e6 * (1e6 + 1) / 0.05)))
    assert radius[0] == pytest.approx(expected, rel=1e-9)


def draws_of(truth, n, count, seed):
    return np.random.default_rng(seed).multinomial(n, truth, size=count).astype(float)


def fails(misses, count, delta):
    """Whether so many misses are too many, at a level of 1e-4 of the binomial."""
    return stats.binom.sf(misses - 1, count, delta) < 1e-4


@pytest.mark.parametrize("n", [5, 50, 500])
def test_weissmans_balls_cover(n):
    truth = np.array([0.5, 0.3, 0.2, 0.0])
    found = draws_of(truth, n, 2000, n) / n
    radius = weissman_radius(np.full(1, float(n)), 4, 0.1)[0]
    assert not fails(int((l1_distance(found, truth) > radius).sum()), 2000, 0.1)


@pytest.mark.parametrize("distance", [l1_distance, kl_distance])
def test_credible_balls_cover_draws_of_the_posterior_jointly(distance):
    posterior = np.array(
        [[5.0, 3.0, 0.5, 0.0], [0.25, 0.25, 0.25, 0.25], [80, 9, 1, 1]]
    )
    visited = np.array([True, True, True])
    radius = credible_radius(posterior, visited, 0.1, distance, seed=0, draws=4000)
    drawn = dirichlet_draws(posterior, 4000, np.random.default_rng(1))
    mean = posterior / posterior.sum(-1, keepdims=True)
    outside = (distance(drawn, mean) > radius).any(-1).mean()
    # Two independent samples of 4000 draws: a standard deviation of 0.0067.
    assert abs(outside - 0.1) < 0.03
    assert (radius[0] > radius[2]) and credible_radius(
        posterior, ~visited, 0.1, distance, seed=0
    ).tolist() == [0, 0, 0]


@pytest.mark.parametrize("distance", [l1_distance, kl_distance])
def test_unseen_states_are_drawn_as_parts_of_one(distance, monkeypatch):
    """Size-biased parts of one category have the distribution of all categories."""
    rows = np.full((3, 200), 1 / 200)
    rows[0, 3] += 1
    rows[1, :20] += np.arange(20)
    rows[2, :50] = 0
    quick, plain = [], []
    for sticks, found in ((radii.STICKS, quick), (200, plain)):
        monkeypatch.setattr(radii, "STICKS", sticks)  # 200: no parts
        for row in -np.sort(-rows):
            width = int((row > row[row > 0].min()).sum())
            generator = np.random.default_rng(sticks)
            args = (row[None], width, distance, 4000, generator)
            found.append(radii._drawn_distances(*args)[:, 0])
    for x, y in zip(quick, plain, strict=True):
        # A level of 1e-4 of the two-sample test; equal draws would have p = 1.
        assert 1e-4 < stats.ks_2samp(x, y).pvalue


def test_draws_have_the_moments_of_the_dirichlet_distribution():
    parameters = np.array([[3.0, 1.0, 0.0, 0.02]])
    drawn = dirichlet_draws(parameters, 20_000, np.random.default_rng(0))[:, 0]
    total = parameters.sum()
    mean = parameters[0] / total
    variance = mean * (1 - mean) / (total + 1)
    assert (drawn[:, 2] == 0).all()
    # Five standard errors of a mean of 20,000 draws.
    np.testing.assert_array_less(
        np.abs(drawn.mean(0) - mean), 5 * np.sqrt(variance / 20_000) + 1e-15
    )
    np.testing.assert_allclose(drawn.var(0), variance, rtol=0.1)
    tiny = dirichlet_draws(np.full((1, 50), 1e-4), 100, np.random.default_rng(0))
    assert np.isfinite(tiny).all() and np.allclose(tiny.sum(-1), 1)


def test_the_chi_squared_radius_is_a_quantile():
    radius = chi_squared_radius(np.array([10.0, 0.0]), 4, 0.1)
    assert stats.chi2.sf(2 * 10 * radius[0], 3) == pytest.approx(0.05)
    assert radius[1] == np.inf
    truth = np.array([0.4, 0.3, 0.3])
    found = draws_of(truth, 2000, 4000, 0) / 2000
    one = chi_squared_radius(np.full(1, 2000.0), 3, 0.1)[0]
    missed = (kl_distance(truth, found) > one).mean()
    # Exact as n grows; a standard deviation of 0.0047 in 4000 draws.
    assert abs(missed - 0.1) < 0.02


TRUE = MDP(
    jnp.array([[[[0.1, 0.6, 0.3], [0.5, 0.5, 0]], [[0, 0, 1.0], [0.9, 0, 0.1]],
                [[0, 0, 1.0], [0, 0, 1.0]]]]),
    jnp.array([[[0.0, 0.25], [1.0, 0.0], [0.0, 0.0]]]),
    jnp.array([[1.0, 0, 0]]),
    1.0,
)  # fmt: skip


def simulated(seed, episodes=60):
    return simulate_logs(
        jax.random.key(seed),
        TRUE,
        uniform_random(TRUE, 6),
        horizon=6,
        episodes=episodes,
    )


@pytest.mark.parametrize(
    ("name", "radius"), [("l1", "weissman"), ("l1", "credible"), ("kl", "credible")]
)
def test_robust_values_bound_the_truth_from_below(name, radius):
    """Over 20 data sets, at most the share that the sets may miss."""
    optimum = float(solve(TRUE, horizon=6).value[0])
    missed = 0
    for seed in range(20):
        found, _ = made(simulated(seed), name, {"radius": radius, "confidence": 0.9})
        value = float(solve(found.models[0], horizon=found.horizon).value)
        missed += value > optimum
    # Credible sets are calibrated over the prior, here for one truth.
    assert not fails(missed, 20, 0.1)


@pytest.mark.parametrize("name", ["l1", "kl"])
def test_sets_shrink_to_the_model_and_contain_it(name):
    logs = simulated(0, 4000)
    plain = made(logs)[0].models[0]
    found, report = made(logs, name)
    model = found.models[0]
    robust = float(solve(model, horizon=found.horizon).value)
    exact = float(solve(plain, horizon=found.horizon).value)
    assert robust < exact < robust + 0.6
    assert report["radius"]["max"] < 0.25
    fixed = np.asarray(model.radius)[len(logs.observations) :]
    assert (fixed == 0).all()


def test_random_rewards_have_lower_bounds():
    generator = np.random.default_rng(0)
    rewards = generator.integers(0, 2, 400).astype(float)
    logs = logs_of([(0, 0, float(r), 1, 0, 0.0, 1) for r in rewards])
    found, report = made(logs, "l1", outcomes=False)
    paid = float(found.models[0].reward[0, 0])
    # Hoeffding: P(mean - truth ≥ ε) ≤ exp(-2 n ε²), for δ/2 over 8 pairs and all n.
    share = math.log(400 * 401 * 8 / 0.025)
    assert paid == pytest.approx(rewards.mean() - math.sqrt(share / 800), abs=1e-12)
    assert any("Hoeffding" in text for text in report["notes"])
    same = logs_of([(0, 0, 0.5, 1, 0, 0.0, 1) for _ in range(9)])
    assert float(made(same, "l1")[0].models[0].reward[0, 0]) == 0.5


def test_unvisited_rows_of_balls_may_lead_anywhere():
    for name, radius in (("l1", 2.0), ("kl", np.inf)):
        options = {"radius": "chi-squared"} if name == "kl" else {}
        model = made(small(), name, options, unvisited="prior")[0].models[0]
        assert model.radius[2, 0] == radius
        ended = made(small(), name, options)[0].models[0]
        assert ended.radius[2, 0] == 0 and ended.reward[2, 0] == -1.0


@pytest.mark.parametrize("form", ["robust", "hidden", "apomdp"])
def test_posterior_models_are_draws(form):
    logs = small()
    found, _ = made(logs, "posterior", {"models": 300, "form": form})
    transition = np.asarray(found.models[0].transition)
    if form == "hidden":
        transition = transition.swapaxes(0, 1)
    assert transition.shape[0] == 300
    posterior = counted(logs, space_of(logs))[0] + np.append(np.full(5, 0.2), 0)
    for s, a in ((0, 0), (1, 1)):
        mean = posterior[s, a] / posterior[s, a].sum()
        spread = np.sqrt(mean * (1 - mean) / (posterior[s, a].sum() + 1) / 300)
        # Five standard errors of the mean of 300 draws.
        assert (np.abs(transition[:, s, a].mean(0) - mean) <= 5 * spread + 1e-15).all()
        assert transition[:, s, a].std(0).max() > 0.05
    assert (transition[:, 2, :, -1] == 1).all()  # unvisited


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("support", ["all", "seen"])
def test_every_estimate_is_a_model_that_can_be_solved(name, support):
    found, report = made(random_logs(0), name, support=support)
    assert np.isfinite(float(solve(found.models[0], horizon=found.horizon).value))
    json.dumps(report, allow_nan=False)
    for key in ("states", "actions", "episodes", "unvisited", "radius"):
        assert key in report


def test_equal_seeds_give_equal_models():
    logs = small()
    for name, options in itertools.product(("posterior", "l1"), [{}]):
        first, again = (made(logs, name, options)[0].models[0] for _ in range(2))
        np.testing.assert_array_equal(dense(first.transition), dense(again.transition))


def test_weak_logs_are_reported():
    with pytest.raises(LogsError, match="one episode, must be 2 or more"):
        made(small().select(np.array([0])))
    _, report = made(small(), "l1")
    assert any("set of all distributions" in text for text in report["warnings"])
    _, report = made(small(observations=6))
    assert any("are unvisited" in text for text in report["warnings"])


def test_options_are_checked():
    for wrong, text in (
        ({"discount": 1.5}, "discount = 1.5"),
        ({"prior": -1.0}, "prior = -1"),
        ({"min_visits": 0}, "min_visits = 0"),
        ({"held_out": 1.0}, "held_out = 1"),
    ):
        with pytest.raises(ValueError, match=text):
            EstimationConfig(**wrong)
    with pytest.raises(ValueError, match="no masks of actions"):
        made(small(), "l1", unvisited="forbid")
    with pytest.raises(ValueError, match="no masks of actions"):
        made(small(), "posterior", {"form": "hidden"}, unvisited="forbid")
    with pytest.raises(ValueError, match="set a positive prior"):
        made(small(), "kl", prior=0.0)
    with pytest.raises(ValueError, match="registered already"):
        register_estimator(type("Other", (), {"name": "l1"}))
