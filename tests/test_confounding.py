"""Bounds under one confounded decision: a linear program, hidden causes, limits.

Tolerances: 1e-9 for sums in another order; 1e-6 for the solver of linear programs.
"""

import dataclasses
import json

import numpy as np
import plain_off_policy as plain
import pytest
from logged_worlds import drawn_logs, random_world
from scipy.optimize import linprog

from sdm.data.logs import NOTHING, Logs
from sdm.data.off_policy.config import OffPolicyConfig
from sdm.data.off_policy.confounding import (
    MOST,
    Confounding,
    behavior_bound,
    turning_point,
)
from sdm.data.off_policy.evaluate import evaluate_policy
from sdm.data.off_policy.logged_policy import TablePolicy
from sdm.data.off_policy.report import off_policy_report
from sdm.data.off_policy.sample import sample_of


def confounding(logs, table, stage=0, discount=0.9, **options):
    config = OffPolicyConfig(discount=discount, confounded_stage=stage, **options)
    return Confounding(sample_of(logs, TablePolicy(table), config), config)


def worst_mean(chances, returns, factor, sign):
    """The least mean under weights that differ by `factor`, by linear programming.

    The weights are L_j / Σ p L with 1 ≤ L ≤ factor: z in [v, factor v] with Σ p z = 1.
    """
    p, y = np.array(chances), sign * np.array(returns)
    n = len(p)
    cost = np.append(p * y, 0.0)
    above = np.hstack([-np.eye(n), np.ones((n, 1))])  # v ≤ z
    below = np.hstack([np.eye(n), -factor * np.ones((n, 1))])  # z ≤ factor v
    found = linprog(
        cost,
        A_ub=np.vstack([above, below]),
        b_ub=np.zeros(2 * n),
        A_eq=np.append(p, 0.0)[None],
        b_eq=[1.0],
    )
    assert found.status == 0
    return sign * found.fun


def plain_bound(logs, policy, stage, factor, sign, discount=0.9):
    """The bound, decision by decision, for logs with every action of the policy."""
    episodes, horizon = plain.episodes_of(logs), logs.horizon
    choose = lambda s, t: policy[t, s]  # noqa: E731
    rho = [[1.0, *plain.weights(e, choose, horizon)] for e in episodes]
    total = 0.0
    for t in range(stage):
        every = sum(row[t + 1] for row in rho)
        for row, episode in zip(rho, episodes, strict=True):
            if t < len(episode):
                total += discount**t * row[t + 1] / every * episode[t][2]
    cells = {}
    for episode in episodes:
        if stage < len(episode):
            s, a = episode[stage][:2]
            chance, earned = 1.0, 0.0
            for t in range(stage, len(episode)):
                earned += discount ** (t - stage) * episode[t][2]
                if t > stage:
                    chance *= choose(episode[t][0], t)[episode[t][1]] / episode[t][3]
            cells.setdefault(s, {}).setdefault(a, []).append((chance, earned))
    every = sum(row[stage] for row in rho)
    for row, episode in zip(rho, episodes, strict=True):
        if stage < len(episode):
            s = episode[stage][0]
            seen = sum(map(len, cells[s].values()))
            for a, p in enumerate(choose(s, stage)):
                chances, returns = zip(*cells[s][a], strict=True)
                share = len(chances) / seen
                mean = np.average(returns, weights=chances)
                least = worst_mean(chances, returns, factor, sign)
                value = share * mean + (1 - share) * least
                total += discount**stage * row[stage] / every * p * value
    return total


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "ends"), [(0, False), (1, True), (2, False)])
def test_bounds_are_those_of_a_linear_program(stage, ends):
    world = random_world(12, ends=ends)
    logs = drawn_logs(world, 0, 100)
    found = confounding(logs, world.policy, stage)
    for factor, sign in ((1.0, 1), (1.7, 1), (1.7, -1), (6.0, -1)):
        expected = plain_bound(logs, world.policy, stage, factor, sign)
        assert found.bound(factor, sign) == pytest.approx(expected, abs=1e-6)


def test_one_decision_without_confounding_is_the_usual_estimate():
    world = random_world(2, stages=1)
    logs = drawn_logs(world, 0, 80, known=False)
    found = confounding(logs, world.policy)
    usual = evaluate_policy(logs, TablePolicy(world.policy))
    for sign in (1, -1):
        # With estimated probabilities of one decision, both are means by state.
        for name in ("pdis", "fqe"):
            value = usual[name].values.value[0]
            assert found.bound(1.0, sign) == pytest.approx(value, abs=1e-9)


def test_bounds_widen_with_the_factor_up_to_the_extreme_returns():
    world = random_world(3)
    logs = drawn_logs(world, 0, 300)
    found = confounding(logs, world.policy)
    factors = [1.0, 1.1, 1.5, 2.0, 5.0, 20.0, 1e3, 1e9]
    low, high = ([found.bound(f, sign) for f in factors] for sign in (1, -1))
    assert low[0] == pytest.approx(high[0], abs=1e-9)
    assert (np.diff(low) < 0).all() and (np.diff(high) > 0).all()
    # Without a limit, unseen outcomes are the worst seen ones of their group.
    assert low[-1] == pytest.approx(low[-2], abs=0.05)
    returns = logs.reward @ 0.9 ** np.arange(3)
    assert returns.min() < low[-1] and high[-1] < returns.max()


def hidden_cause(seed):
    """One decision whose outcome and action both depend on a hidden u.

    Returns the logs of all kinds of episodes, their probabilities, the policy, its true
    value, and the largest factor by which u changes the odds of an action.
    """
    random = np.random.default_rng(seed)
    prior, policy = random.dirichlet(np.ones(3)), random.dirichlet(np.ones(2))
    chance = random.uniform(0.2, 0.8, 3)  # of action 1, given u
    paid = random.normal(size=(3, 2))
    odds = chance / (1 - chance)
    action, weight, reward = [], [], []
    for u in range(3):
        for a in range(2):
            action.append([a])
            weight.append(prior[u] * (chance[u] if a else 1 - chance[u]))
            reward.append([paid[u, a]])
    count = len(action)
    logs = Logs(
        np.tile([0, NOTHING], (count, 1)),
        np.array(action),
        np.array(reward),
        np.ones(count, bool),
        np.zeros(count, int),
        None,
        ("0",),
        ("0", "1"),
        ("0",),
    )
    value = float(prior @ paid @ policy)
    return logs, np.array(weight), policy[None, None], value, odds.max() / odds.min()


@pytest.mark.parametrize("seed", range(8))
def test_bounds_hold_for_a_hidden_cause(seed):
    logs, weight, policy, value, factor = hidden_cause(seed)
    stage = confounding(logs, policy).stage

    def bounds(factor):
        return [float(stage.bound(factor, s, weight[None])[0]) for s in (1, -1)]

    low, high = bounds(factor)
    assert low < value < high
    plain_low, plain_high = bounds(1.0)
    assert plain_low == pytest.approx(plain_high, abs=1e-9)
    assert abs(plain_low - value) > 1e-6  # without the factor, the estimate is wrong


def test_unsupported_actions_widen_the_bounds_at_every_stage():
    world = random_world(4)
    chance = world.behavior.copy()
    chance[0] = (1.0, 0.0)
    limited = dataclasses.replace(world, behavior=chance)
    logs = drawn_logs(limited, 0, 300)
    never = world.policy.copy()
    never[:, 0] = (1.0, 0.0)
    for stage in range(3):
        none = confounding(logs, never, stage)
        assert none.bound(1.0, 1) == pytest.approx(none.bound(1.0, -1), abs=1e-9)
        for t in range(3):  # only the policy of one stage is unsupported
            table = never.copy()
            table[t] = world.policy[t]
            each = confounding(logs, table, stage)
            assert each.bound(1.0, 1) + 0.01 < each.bound(1.0, -1), (stage, t)


def test_the_ranking_turns_where_bounds_touch():
    world = random_world(5)
    logs = drawn_logs(world, 0, 400)
    other = np.broadcast_to(world.behavior, world.policy.shape).copy()
    first, second = confounding(logs, world.policy), confounding(logs, other)
    for one, two in (
        (first.bound, behavior_bound(first.sample)),
        (first.bound, second.bound),
        (second.bound, first.bound),
    ):
        factor = turning_point(one, two)
        assert 1 < factor < MOST
        sign = 1 if one(1.0, 1) > two(1.0, 1) else -1
        # The root is found to 1e-6 in log Λ, and bounds change by less than 1 there.
        assert one(factor, sign) == pytest.approx(two(factor, -sign), abs=1e-5)
    assert turning_point(first.bound, first.bound) == 1.0
    far = lambda factor, sign: 1e3  # noqa: E731
    assert turning_point(first.bound, far) is None


def test_intervals_cover_the_bounds_and_need_data():
    world = random_world(6)
    logs = drawn_logs(world, 0, 200)
    row = confounding(logs, world.policy, resamples=60).row(1.5, seed=0)
    assert row["ci_low"] < row["low"] < row["high"] < row["ci_high"]
    few = confounding(logs.select(np.arange(4)), world.policy)
    row, ranges = few.row(1.5, seed=0), few.sample.ranges
    assert (row["ci_low"], row["ci_high"]) == (ranges.low, ranges.high)
    sizes = np.arange(10, 200, 10)
    found = [confounding(logs.select(np.arange(n)), world.policy) for n in sizes]
    effective = np.array([each.stage.effective for each in found])
    assert effective.min() < 10 < effective.max()
    for each, size in zip(found, effective, strict=True):
        assert each.identified == (size >= 10)


def test_the_report_of_two_policies_has_every_number():
    world = random_world(7)
    logs = drawn_logs(world, 0, 100)
    policies = {"a": TablePolicy(world.policy), "b": TablePolicy(world.policy[:1])}
    steps = []
    found = off_policy_report(
        logs,
        policies,
        OffPolicyConfig(resamples=50),
        factors=[1.0, 2.0],
        estimators=["wpdis", "model"],
        progress=lambda *step: steps.append(step),
    )
    json.dumps(found, allow_nan=False)
    assert set(found["estimators"]) == set(found["difference"]) == {"wpdis", "model"}
    assert [row["factor"] for row in found["confounding"]["bounds"]] == [1.0, 2.0]
    assert found["against"]["policy"] == "b"
    turn = turning_point(
        *(
            confounding(logs, each.table, discount=1.0).bound
            for each in policies.values()
        )
    )
    assert found["ranking_turns_at"] == pytest.approx(turn)
    assert ("a", 2, 2) in steps and ("confounding of b", 2, 2) in steps
    with pytest.raises(ValueError, match="Λ must be at least 1"):
        off_policy_report(logs, policies, OffPolicyConfig(), factors=[0.5])
    with pytest.raises(ValueError, match="confounded_stage = 3: must be from 0 to 2"):
        confounding(logs, world.policy, 3)
