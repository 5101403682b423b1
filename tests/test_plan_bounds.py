"""Bounds on plans from logs: held-out episodes, missing actions, cut-offs."""

import dataclasses
import json

import numpy as np
import pytest
from expert_worlds import T, frequencies, table, world
from scipy import stats
from typer.testing import CliRunner

from sdm.cli import app
from sdm.data.logs import NOTHING
from sdm.data.logs.write import write_logs
from sdm.data.planning import cross_fitted_bounds, evidence_of
from sdm.data.planning.config import PlanningConfig
from sdm.data.planning.files import plan_from_logs
from sdm.data.planning.fold_value import value_as_seen
from sdm.data.planning.planner import planners

ROUNDING = 1e-12  # of sums of at most a few hundred terms of size 1, in doubles


def of_noise(seed, episodes=400, actions=20):
    """One decision, whose reward is noise whatever the action."""
    random = np.random.default_rng(seed)
    chosen = random.integers(0, actions, (episodes, 1))
    paid = random.normal(size=(episodes, 1))
    return table(np.zeros((episodes, 1), int), chosen, paid, [True] * episodes)


def test_the_estimate_is_of_episodes_that_the_plan_was_not_made_from():
    """All plans are worth 0, and the best of 20 means looks better than that."""
    planner, claimed, estimate = planners()["naive"](), [], []
    for seed in range(20):
        logs = of_noise(seed)
        claimed.append(planner.plan(evidence_of(logs), horizon=1, seed=0).value)
        found = cross_fitted_bounds(logs, planner, horizon=1)
        estimate.append(found.estimate)
        lower = found.estimate - stats.norm.ppf(0.95) * found.error
        assert found.lower == pytest.approx(lower)
    # The largest of 20 means of 20 numbers each is 0.42 on average; estimates are 0
    # with a standard error of 0.05, since a fold has about four of the chosen action.
    assert np.mean(claimed) > 0.3 and abs(np.mean(estimate)) < 0.15


def test_missing_actions_have_the_worst_return_and_are_counted():
    drawn = world(1)
    logs = drawn.logs(12, 0)
    evidence = evidence_of(logs)
    assert (evidence.visits[:4] == 0).any() and (evidence.visits[:4] > 0).any()
    policy = np.random.default_rng(0).dirichlet(np.ones(2), (T, 6))
    for worst in (0.0, -2.0):
        found, missing = value_as_seen(evidence, policy, worst)
        want = frequencies(logs, T, policy=policy, missing=worst)
        assert found.value == pytest.approx(want, abs=ROUNDING)
    # Without rewards, only missing decisions pay.
    silent = dataclasses.replace(logs, reward=np.zeros_like(logs.reward))
    want = frequencies(silent, T, policy=policy, missing=1.0)
    assert 0 < missing == pytest.approx(want, abs=ROUNDING)


def test_the_error_without_missing_actions_is_that_of_the_jackknife():
    logs = world(2).logs(150, 0)
    policy = np.random.default_rng(1).dirichlet(np.ones(2), (T, 6))
    space, every = evidence_of(logs).space, np.arange(logs.episodes)
    made, missing = value_as_seen(evidence_of(logs), policy, 0.0)
    left = [
        value_as_seen(evidence_of(logs.select(every != n), space=space), policy, 0.0)
        for n in every
    ]
    jackknife = np.sqrt((len(every) - 1) * np.var([each.value for each, _ in left]))
    # Both are consistent; their difference is of the order 1/N.
    assert missing == 0 and made.error == pytest.approx(jackknife, rel=0.1)


def test_a_plan_of_missing_actions_only_has_the_worst_return_for_certain():
    logs = of_noise(0, actions=1)
    evidence = evidence_of(dataclasses.replace(logs, actions=("0", "1")))
    other = np.array([[[0.0, 1.0]]])
    made, missing = value_as_seen(evidence, other, -3.0)
    assert (made.value, made.error, missing) == (-3, 0, 1)


def by_experts(episodes, seed):
    """Twelve states; those who act nearly always take the good of three actions."""
    random = np.random.default_rng(seed)
    state = random.integers(0, 12, (episodes, 1))
    good = random.random((episodes, 1)) < 0.9
    action = np.where(good, 0, random.integers(1, 3, (episodes, 1)))
    return table(state, action, (action == 0) * 1.0, [True] * episodes)


def test_rare_actions_of_experts_are_not_taken_for_average():
    """What is not in the held-out episodes pays nothing, the others pay one."""

    class Rare:
        name = "rare"

        def plan(self, evidence, *, horizon, seed):
            from sdm.data.planning import LogPlan

            return LogPlan(np.broadcast_to(np.eye(3)[2], (1, 12, 3)), 0.0)

    found = cross_fitted_bounds(by_experts(150, 0), Rare(), horizon=1)
    assert found.unseen > 0.3
    assert found.lower > 0 and found.lower_observed <= 0  # the truth is 0
    for episodes, often in ((150, True), (20_000, False)):
        report = plan_from_logs(
            by_experts(episodes, 0), Rare(), PlanningConfig(), seed=0
        )[1]
        assert any("`lower_observed` takes" in x for x in report["warnings"]) is often


def test_the_bound_of_missing_actions_has_the_error_of_all_folds():
    """By hand, from the folds' values with the worst return for missing actions."""
    drawn = world(1)
    logs = drawn.logs(60, 0)
    planner, worst = planners()["naive"](), -1.0
    found = cross_fitted_bounds(logs, planner, horizon=T, worst=worst, seed=3)
    fold = np.random.default_rng(3).permutation(60) % 5
    space = evidence_of(logs).space
    values = []
    for k in range(5):
        train, test = (
            evidence_of(logs.select(x), space=space) for x in (fold != k, fold == k)
        )
        plan = planner.plan(train, horizon=T, seed=3).probabilities
        values.append(value_as_seen(test, plan, worst))
    mean = np.mean([value.value for value, _ in values])
    error = np.sqrt(sum(value.error**2 for value, _ in values)) / 5
    assert 0 < found.unseen == pytest.approx(np.mean([x for _, x in values]))
    want = mean - stats.norm.ppf(0.95) * error
    assert worst < found.lower_observed == pytest.approx(want)
    assert found.lower_observed < found.lower - 0.01


def test_rare_actions_and_missing_returns_are_pointed_out():
    """After one of two observations, the plan's action has 20 decisions."""
    random = np.random.default_rng(0)
    seen = np.arange(400) % 2
    paid = random.random((400, 1))

    class Second:
        name = "second"

        def plan(self, evidence, *, horizon, seed):
            from sdm.data.planning import LogPlan

            return LogPlan(np.array([[[0.0, 1.0], [1.0, 0.0]]]), 0.0)

    for number, often in ((20, True), (99, True), (100, False)):
        action = ((np.arange(400) < 2 * number) & (seen == 0)).astype(int)
        logs = table(seen[:, None], action[:, None], paid, [True] * 400)
        for worst in (None, -1.0):
            config = PlanningConfig(worst=worst)
            report = plan_from_logs(logs, Second(), config, seed=0)[1]
            said = "\n".join(report["warnings"])
            rare = "in 50% of the logged decisions, the plan takes an action with"
            assert (rare in said) is often
            missing = f"returns below {paid.min():.4g} are not in the logs"
            assert (missing in said) is (worst is None)
            assert ("in one of 133 episodes" in said) is (worst is None)
            assert report["worst"] == (paid.min() if worst is None else worst)


def test_rare_disasters_do_not_break_the_bound_on_anything():
    """One of a hundred dies; the plan is what was done, so that 0.94 is its value."""
    held, normal = 0, 0
    planner = planners()["behavior"]()
    for seed in range(40):
        dies = np.random.default_rng(seed).random((60, 1)) < 0.01
        paid = np.where(dies, -5.0, 1.0)
        logs = table(np.zeros((60, 1), int), np.zeros((60, 1), int), paid, [True] * 60)
        found = cross_fitted_bounds(logs, planner, horizon=1, worst=-5.0)
        held += found.lower_confounded <= 0.94
        normal += found.lower <= 0.94
        assert found.lower_confounded > 0.1  # and it says something
    assert held >= 36 and normal < 30  # 36 or more with probability 0.95


def test_what_is_left_can_be_less_than_the_smallest_return():
    """All earn 5, and half lose it again; the plan's second action was never taken."""
    seen, actions = [[0, 1, 1]] * 40, [[0, 0]] * 39 + [[1, 0]]
    logs = table(seen, actions, [[5.0, -5.0], [5.0, 5.0]] * 20, [True] * 40)

    class Other:
        name = "other"

        def plan(self, evidence, *, horizon, seed):
            from sdm.data.planning import LogPlan

            first, second = np.eye(2)[[0, 0]], np.eye(2)[[1, 1]]
            return LogPlan(np.stack([first, second]), 0.0)

    # -5 after 5; a stated return of -9 can be all that is left.
    for worst, want in ((None, 0), (0.0, 0), (-9.0, -4)):
        found = cross_fitted_bounds(logs, Other(), horizon=2, worst=worst)
        assert found.unseen == 1 and found.lower_observed == pytest.approx(want)


def decisions_that_cost(episodes=300, horizon=15):
    """Every decision costs 1, and follow-up ends at random."""
    random = np.random.default_rng(0)
    length = random.integers(1, horizon + 1, episodes)
    action = [random.integers(0, 2, n) for n in length]
    seen = [np.zeros(n + 1, int) for n in length]
    return table(seen, action, [np.full(n, -1.0) for n in length], [False] * episodes)


@pytest.mark.parametrize("longest", [15, 9])
def test_bounds_hold_if_follow_up_ends_early(longest):
    """Every plan is worth -15, also if nobody was followed as long as that."""
    logs = decisions_that_cost(horizon=longest)
    made, report = plan_from_logs(
        logs, planners()["behavior"](), PlanningConfig(horizon=15), seed=0
    )
    assert report["lower_confounded"] == pytest.approx(-15)
    assert report["lower_observed"] == pytest.approx(-15)
    assert report["behavior"] == pytest.approx(-15) and report["cut"] > 200
    assert any("were cut off before decision 15" in x for x in report["warnings"])
    assert made.value == pytest.approx(-15)
    worse = PlanningConfig(horizon=15, worst=-20.0)
    found = plan_from_logs(logs, planners()["behavior"](), worse, seed=0)[1]
    assert found["lower_confounded"] == pytest.approx(-20, abs=longest == 15 and 5)


def test_one_action_shows_no_improvement():
    logs = decisions_that_cost()
    alone = np.where(logs.action == NOTHING, NOTHING, 0)
    report = plan_from_logs(
        dataclasses.replace(logs, action=alone),
        planners()["naive"](),
        PlanningConfig(),
        seed=0,
    )[1]
    said = " ".join(report["warnings"])
    assert "one action only" in said and "an improvement is not shown" in said


def test_equal_returns_are_pointed_out(tmp_path):
    """Nobody died, which does not mean that nobody will."""
    logs = of_noise(0, 60)
    silent = dataclasses.replace(logs, reward=np.zeros_like(logs.reward))
    write_logs(silent, tmp_path / "logs.csv")
    found = CliRunner().invoke(app, ["plan", str(tmp_path / "logs.csv"), "--json"])
    assert found.exit_code == 0, found.output
    warnings = json.loads(found.stdout)["warnings"]
    assert any("state the smallest with `--worst`" in x for x in warnings)
