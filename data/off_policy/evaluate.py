"""Evaluate policies on logs with all estimators, intervals and warnings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdm.data.logs import Logs
from sdm.data.off_policy.behavior import action_counts
from sdm.data.off_policy.bootstrap import LEAST, interval, resampled
from sdm.data.off_policy.by_task import several_tasks
from sdm.data.off_policy.config import OffPolicyConfig
from sdm.data.off_policy.estimator import (
    Diagnosis,
    Estimator,
    Values,
    estimators,
)
from sdm.data.off_policy.logged_policy import LoggedPolicy
from sdm.data.off_policy.sample import Sample, sample_of

# Effective episodes below which intervals are too narrow too often
# (`benchmarks/results/off_policy.md`).
FEW = 50
# Decisions from which on an action's results are known after an observation, and the
# share of decisions with fewer that matters: bootstrap intervals of rare pairs do not
# know what did not happen (`benchmarks/results/off_policy.md`).
OFTEN, SHARE = 30, 0.05
NEGLIGIBLE = 1e-12  # rounding of probabilities

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Result:
    """A policy's value by one estimator.

    Attributes:
        values: the estimate in the first row, then those of the bootstrap resamples.
        diagnosis: how much the logs say about the policy.
        low: smallest possible return.
        high: largest possible return.

    """

    values: Values
    diagnosis: Diagnosis
    low: float
    high: float

    @property
    def identified(self) -> bool:
        """Return whether the logs have enough episodes like those of the policy."""
        return self.diagnosis.effective >= LEAST and not np.isnan(self.values.value[0])

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval; the range of returns if there is too little data.

        It covers every value of unsupported actions.
        """
        if not self.identified:
            return self.low, self.high
        size = self.diagnosis.effective
        low, high = interval(self.values.low, self.values.high, size)
        return max(low, self.low), min(high, self.high)

    def row(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        value = float(self.values.value[0])
        low, high = self.interval()
        known, (low_end, top) = not np.isnan(value), (self.low, self.high)
        return {
            "value": value if known else None,
            "ci_low": low,
            "ci_high": high,
            "bound_low": float(max(self.values.low[0], low_end)) if known else low_end,
            "bound_high": float(min(self.values.high[0], top)) if known else top,
            "effective_sample_size": self.diagnosis.effective,
            "unsupported": self.diagnosis.unsupported,
        }


def chosen_estimators(names: Sequence[str]) -> dict[str, Estimator]:
    """Return estimators by name; all for no names.

    Raises:
        ValueError: if a name is unknown.

    """
    every = estimators()
    for name in names:
        if name not in every:
            raise ValueError(
                f"estimator: must be one of {', '.join(every)}, found `{name}`"
            )
    return {n: each for n, each in every.items() if n in names or not names}


def evaluate_sample(
    sample: Sample,
    config: OffPolicyConfig,
    chosen: Mapping[str, Estimator],
    *,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Result]:
    """Return the result of each estimator that fits the policy.

    Args:
        sample: the logs from the point of view of the policy.
        config: configuration of the evaluation.
        chosen: estimators by name.
        seed: seed of the bootstrap.
        progress: called with the completed and all estimators.

    """
    found, fitting = {}, {n: e for n, e in chosen.items() if not e.refuse(sample)}
    for done, (name, each) in enumerate(fitting.items()):
        progress(done, len(fitting))
        values = resampled(
            each.prepare(sample), sample.logs.episodes, config.resamples, seed
        )
        ranges = sample.ranges
        found[name] = Result(values, each.diagnose(sample), ranges.low, ranges.high)
    progress(len(fitting), len(fitting))
    return found


def evaluate_policy(
    logs: Logs,
    policy: LoggedPolicy,
    config: OffPolicyConfig | None = None,
    *,
    estimators: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Result]:
    """Estimate the expected discounted return of a policy from logs.

    Args:
        logs: episodes that the behavior policy generated.
        policy: the policy.
        config: configuration; None for the defaults.
        estimators: names of estimators; none for all.
        seed: seed of the bootstrap.

    Returns:
        The result of each estimator that fits the policy.

    Raises:
        ValueError: if the policy does not fit the logs, or an estimator is unknown.

    """
    config = config or OffPolicyConfig()
    chosen = chosen_estimators(estimators)
    return evaluate_sample(sample_of(logs, policy, config), config, chosen, seed=seed)


def difference(first: Result, second: Result) -> dict[str, Any]:
    """Return the difference of two policies' values by one estimator, as JSON values.

    Both results must have the same bootstrap weights. If either lacks data, the
    interval is that of two unknown returns.
    """
    a, b = first.values, second.values
    value = float(a.value[0] - b.value[0])
    width = first.high - first.low
    low, high = -width, width
    if first.identified and second.identified:
        size = min(x.diagnosis.effective for x in (first, second))
        low, high = interval(a.low - b.high, a.high - b.low, size)
    return {
        "value": None if np.isnan(value) else value,
        "ci_low": max(low, -width),
        "ci_high": min(high, width),
    }


def warnings_of(results: Mapping[str, Result], logs: Logs) -> list[str]:
    """Return what a reader must know of the results of a policy."""
    said = []
    for name, each in results.items():
        size, lost = each.diagnosis.effective, each.diagnosis.unsupported
        if not each.identified:
            said.append(
                f"{name}: effective sample size {size:.1f} of {logs.episodes} episodes:"
                " too small for an interval, which is the range of possible returns"
            )
        elif size < FEW:
            said.append(
                f"{name}: effective sample size {size:.1f} of {logs.episodes} episodes:"
                " the interval may be too narrow"
            )
        if lost > NEGLIGIBLE:
            said.append(
                f"{name}: {100 * lost:.3g} % of the policy's episodes take an action "
                "that the logs lack: the interval covers every return that they may "
                "have"
            )
    return said


def warnings_of_pairs(sample: Sample) -> list[str]:
    """Return what a reader must know of actions that the policy takes and logs seldom.

    The share of decisions is that of the logged ones, in which the policy would take
    an action that was taken seldom after the same observation.
    """
    logs, count = sample.logs, action_counts(sample.logs)
    seen = np.where(sample.acted, logs.observation[:, : logs.horizon], 0)
    rare = (count > 0) & (count < OFTEN)
    share = np.where(rare[seen], sample.policy, 0.0).sum() / sample.acted.sum()
    if share < SHARE:
        return []
    return [
        f"in {100 * share:.3g} % of the logged decisions, the policy takes an action "
        f"that was taken fewer than {OFTEN} times after that observation: what these "
        "did not have counts as impossible, and intervals may be too narrow"
    ]


def warnings_about(logs: Logs, *, pool_tasks: bool = False) -> list[str]:
    """Return what a reader must know of the logs themselves."""
    said = []
    if several_tasks(logs):
        tasks = len(np.unique(logs.task))
        said.append(
            f"logs: {tasks} tasks count as one: if they differ, estimates of models, "
            "values and the behavior policy are biased, and intervals do not show it"
            if pool_tasks
            else f"logs: {tasks} tasks, each with models, values and a behavior policy "
            "of its own; `--pool-tasks` counts them as one, if they are alike"
        )
    if np.ptp(logs.reward.sum(1)) == 0:
        said.append(
            "logs: all episodes have the same return: a range without width does not "
            "mean that others are impossible; state `--return-low` and `--return-high`"
        )
    if logs.probability is None:
        said.append(
            "behavior policy: not in the logs, estimated from the counts of actions "
            "after each observation, over all stages"
        )
    cut = int((~logs.done & (logs.length < logs.horizon)).sum())
    if cut:
        said.append(
            f"logs: {cut} of {logs.episodes} episodes were cut off before decision "
            f"{logs.horizon}: rewards after that count as 0, except in `model`"
        )
    if len(np.unique(logs.action[logs.action >= 0])) == 1:
        said.append("logs: have one action only, and say nothing of others")
    return said
