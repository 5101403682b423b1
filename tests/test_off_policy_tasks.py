"""Off-policy estimates from logs of several tasks.

Tolerance: 1e-12 for sums of a hundred numbers near 1 in double precision.
"""

import dataclasses

import numpy as np
import pytest
from logged_worlds import drawn_logs, random_world

from sdm.data.logs import NOTHING
from sdm.data.off_policy.by_task import by_task, several_tasks
from sdm.data.off_policy.config import OffPolicyConfig
from sdm.data.off_policy.evaluate import evaluate_policy
from sdm.data.off_policy.logged_policy import TablePolicy
from sdm.data.off_policy.report import off_policy_report
from sdm.data.off_policy.sample import sample_of

FEW = OffPolicyConfig(resamples=40)
POOLED = dataclasses.replace(FEW, pool_tasks=True)
MODELS = ("fqe", "model", "pdis", "dr")  # means over episodes; others normalise weights


@dataclasses.dataclass(frozen=True)
class Told:
    """A policy with memory that takes a task's own action."""

    actions: tuple[int, ...]
    table = None

    def probabilities_along(self, logs):
        """Return the probabilities of the actions of all tasks."""
        own = np.eye(len(logs.actions))[np.asarray(self.actions)[logs.task]]
        return np.repeat(own[:, None], logs.horizon, axis=1)


def two_tasks():
    """Logs of two random worlds, of 40 and 80 episodes, without probabilities."""
    worlds = [random_world(seed) for seed in (0, 1)]
    parts = [drawn_logs(w, 0, n) for w, n in zip(worlds, (40, 80), strict=True)]
    names = ("observation", "action", "reward", "done")
    joined = {n: np.concatenate([getattr(x, n) for x in parts]) for n in names}
    logs = dataclasses.replace(
        parts[0],
        **joined,
        task=np.repeat([0, 1], (40, 80)),
        tasks=("north", "south"),
        probability=None,
    )
    return logs, TablePolicy(worlds[0].policy)


def values(logs, policy, config, names=MODELS):
    found = evaluate_policy(logs, policy, config, estimators=names)
    return {name: each.values.value[0] for name, each in found.items()}


def test_the_value_is_the_mean_over_tasks_of_their_own_values():
    logs, policy = two_tasks()
    both = values(logs, policy, FEW)
    parts = [values(logs.select(logs.task == i), policy, FEW) for i in (0, 1)]
    for name in MODELS:
        mean = (40 * parts[0][name] + 80 * parts[1][name]) / 120
        assert both[name] == pytest.approx(mean, abs=1e-12), name


def test_pooled_tasks_are_one():
    logs, policy = two_tasks()
    one = dataclasses.replace(logs, task=np.zeros(120, int), tasks=("all",))
    pooled = values(logs, policy, POOLED)
    assert pooled == values(one, policy, FEW) == values(one, policy, POOLED)
    assert pooled != pytest.approx(values(logs, policy, FEW))


def test_a_policy_that_knows_the_task_is_worth_what_it_gains_there():
    """The good action differs; pooled, both look alike."""
    random = np.random.default_rng(0)
    logs, _ = two_tasks()
    action = random.integers(0, 2, (120, 1))
    logs = dataclasses.replace(
        logs,
        observation=np.stack([np.zeros(120, int), np.full(120, NOTHING)], 1),
        action=action,
        reward=(action == logs.task[:, None]).astype(float),
        done=np.ones(120, bool),
    )
    policy = Told((0, 1))
    found = evaluate_policy(logs, policy, FEW, estimators=["fqe", "wpdis", "dr"])
    for name, each in found.items():
        assert each.values.value[0] == pytest.approx(1.0, abs=1e-12), name
    pooled = evaluate_policy(logs, policy, POOLED, estimators=["fqe"])["fqe"]
    assert pooled.values.value[0] == pytest.approx(logs.reward.mean(), abs=0.1)


def test_observations_are_pairs_that_the_logs_have():
    logs, policy = two_tasks()
    split, table = by_task(logs, policy.table)
    old, new = logs.observation, split.observation
    assert ((old == NOTHING) == (new == NOTHING)).all()
    for n, t in np.argwhere(old != NOTHING):
        name = f"{logs.tasks[logs.task[n]]}: {logs.observations[old[n, t]]}"
        assert split.observations[new[n, t]] == name
        np.testing.assert_array_equal(table[:, new[n, t]], policy.table[:, old[n, t]])
    used = np.unique(new[new != NOTHING])
    assert list(used) == list(range(len(split.observations)))
    assert by_task(logs, None)[1] is None


def test_logs_of_one_task_stay_as_they_are():
    logs, policy = two_tasks()
    one = logs.select(logs.task == 1)
    assert several_tasks(logs) and not several_tasks(one)
    assert sample_of(one, policy, FEW).logs is one


def test_the_report_says_how_tasks_count():
    logs, policy = two_tasks()
    said = {}
    for config in (FEW, POOLED):
        report = off_policy_report(logs, {"x": policy}, config, estimators=["fqe"])
        assert report["tasks"] == 2
        said[config.pool_tasks] = report["log_warnings"][0]
    assert "each with models, values and a behavior policy of its own" in said[False]
    assert "are biased, and intervals do not show it" in said[True]
    one = off_policy_report(
        logs.select(logs.task == 1), {"x": policy}, FEW, estimators=["fqe"]
    )
    assert one["tasks"] == 1 and "tasks" not in one["log_warnings"][0]
