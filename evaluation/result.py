"""The results of one policy in a benchmark: gaps, regrets and where they arise."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from sdm.data.agreement import agreement
from sdm.data.benchmark import Benchmark, Regrets, in_model, regrets, task_returns
from sdm.data.optimality_gap import (
    OptimalityGap,
    narrower,
    optimality_gap,
    regret_gap,
)
from sdm.evaluation.measure import measured
from sdm.policies.prepared import PlanBounds
from sdm.solvers_jax.backward_induction import MDPSolution
from sdm.tasks.family import Component
from sdm.tasks.models import APOMDP
from sdm.tasks.rollout import Trajectory

MOST_STATES = 20  # states of which the loss is reported


@dataclass(frozen=True)
class StateLoss:
    """What a policy loses in one state, or after one symbol.

    Attributes:
        name: names and values of the state's components.
        points: its part of the gap by regret, in percentage points.
        visits: share of all decisions.

    """

    name: str
    points: float
    visits: float


@dataclass(frozen=True)
class LostParts:
    """Where a policy loses: parts of its gap by regret, in percentage points.

    Attributes:
        by_stage: parts of the stages; they sum to the gap.
        by_state: parts of the observed states or symbols, the largest first, at most
            `MOST_STATES`.

    """

    by_stage: Float[np.ndarray, " T"]
    by_state: tuple[StateLoss, ...]


@dataclass(frozen=True)
class EveryModel:
    """Returns in every model of ambiguity sets, with common random numbers.

    The oracle maximises the α-MEU of each decision in turn. It need not be optimal for
    any of the following measures, so that their gaps can be negative.

    Attributes:
        alpha: weight of the worst model.
        returns: mean return of the policy in each model of each task.
        optimal: the oracle's.

    """

    alpha: float
    returns: Float[np.ndarray, "B K"]
    optimal: Float[np.ndarray, "B K"]

    def gaps(self) -> dict[str, OptimalityGap]:
        """Return the gaps in the worst model, by α-MEU, and in a random model.

        The worst model is that of each policy: the model with its smallest return.
        """
        return {
            name: optimality_gap(ours, best)
            for (name, ours), best in zip(
                self._measures(self.returns).items(),
                self._measures(self.optimal).values(),
                strict=True,
            )
        }

    def return_means(self) -> dict[str, float]:
        """Return the mean over tasks of the policy's returns by each measure."""
        found = self._measures(self.returns)
        return {name: float(each.mean()) for name, each in found.items()}

    def _measures(self, returns: Float[np.ndarray, "B K"]) -> dict[str, np.ndarray]:
        worst, best = returns.min(-1), returns.max(-1)
        return {
            "worst_model": worst,
            "alpha_meu": self.alpha * worst + (1 - self.alpha) * best,
            "random_model": returns.mean(-1),
        }


@dataclass(frozen=True)
class PolicyResult:
    """The results of one policy.

    Attributes:
        policy: name of the policy.
        by_returns: optimality gap from differences of returns.
        by_regret: optimality gap from regrets; None if the oracle's action values are
            unknown.
        exact_gap: optimality gap of exact values; None if a value is not known exactly.
        return_mean: mean discounted return.
        exact_return_mean: its expectation; None if it is not known exactly.
        optimal_return_mean: mean return of the oracle, with common random numbers.
        agreement: share of decisions that equal the oracle's or, if the family breaks
            ties at random, that are optimal.
        merged_agreement: the same, with duplicates of an action counted as one action;
            None if the family has no duplicates.
        invalid_mass: mean probability that a language model assigns to any text but an
            action; None for other policies.
        seconds: seconds of acting.
        returns: mean return in each task.
        optimal_returns: the oracle's mean return in each task.
        regrets: estimated regret in each task; None without `by_regret`.
        optimal_values: the oracle's expected return in each task; None likewise.
        losses: where the policy loses; None likewise.
        bounds: bounds on the expected return of an approximate plan; None for other
            policies.
        in_every_model: results in all models of the ambiguity sets; None if the tasks
            have one model.
        measures: entries of the measures that apply to the family, by name.

    """

    policy: str
    by_returns: OptimalityGap
    by_regret: OptimalityGap | None
    exact_gap: OptimalityGap | None
    return_mean: float
    exact_return_mean: float | None
    optimal_return_mean: float
    agreement: float
    merged_agreement: float | None
    invalid_mass: float | None
    seconds: float
    returns: Float[np.ndarray, " B"]
    optimal_returns: Float[np.ndarray, " B"]
    regrets: Float[np.ndarray, " B"] | None
    optimal_values: Float[np.ndarray, " B"] | None
    losses: LostParts | None
    bounds: PlanBounds | None = None
    in_every_model: EveryModel | None = None
    measures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def gap(self) -> OptimalityGap:
        """The headline: the estimate with the narrower interval."""
        if self.by_regret is None:
            return self.by_returns
        return narrower(self.by_returns, self.by_regret)

    @property
    def estimator(self) -> str:
        """Estimate that the headline is, `regret` or `returns`."""
        return "returns" if self.gap is self.by_returns else "regret"


def result_of(
    name: str,
    bed: Benchmark,
    episodes: Trajectory,
    seconds: float,
    *,
    value: np.ndarray | None = None,
    invalid: float | None = None,
    bounds: PlanBounds | None = None,
) -> PolicyResult:
    """Return the results of a policy from its episodes in a benchmark.

    Args:
        name: name of the policy.
        bed: the benchmark.
        episodes: its episodes [B, K, N, T] in the benchmark's worlds.
        seconds: seconds of acting.
        value: its exact expected return in each task, if known.
        invalid: mean probability of any text but an action, for a language model.
        bounds: bounds on the expected return of an approximate plan.

    """
    played = in_model(episodes, 0)
    returns, best = task_returns(bed.tasks, played), bed.optimal_returns
    same, lost = agreement(bed, played), regrets(bed, played)
    exact = by_regret = of_task = None
    if value is not None and isinstance(bed.solution, MDPSolution):
        exact = optimality_gap(value, np.asarray(bed.solution.value))
    if lost is not None:
        of_task = lost.lost.sum(-1).mean(-1)
        by_regret = regret_gap(of_task, lost.optimal, lost.slack)
    return PolicyResult(
        policy=name,
        by_returns=optimality_gap(returns, best),
        by_regret=by_regret,
        exact_gap=exact,
        return_mean=float(returns.mean()),
        exact_return_mean=None if value is None else float(value.mean()),
        optimal_return_mean=float(best.mean()),
        agreement=float(same.action.mean()),
        merged_agreement=None if same.merged is None else float(same.merged.mean()),
        invalid_mass=invalid,
        seconds=seconds,
        returns=returns,
        optimal_returns=best,
        regrets=of_task,
        optimal_values=None if lost is None else lost.optimal,
        losses=None if lost is None else where_lost(bed, played, lost),
        bounds=bounds,
        in_every_model=_in_every_model(bed, episodes),
        measures=measured(bed, played),
    )


def _in_every_model(bed: Benchmark, episodes: Trajectory) -> EveryModel | None:
    if bed.models == 1:
        return None
    assert isinstance(bed.tasks.model, APOMDP)
    returns = task_returns(bed.tasks, episodes)
    return EveryModel(float(bed.tasks.model.alpha), returns, bed.optimal_by_model)


def where_lost(bed: Benchmark, played: Trajectory, found: Regrets) -> LostParts:
    """Divide the gap by regret among stages, and among states or symbols.

    If states are hidden, the oracle's own losses, which the regret subtracts, count in
    the symbols that the oracle saw.
    """
    base, config = bed.optimal_losses, bed.config
    assert base is not None
    scale = np.where(found.optimal == 0, np.nan, np.abs(found.optimal))
    unit = 100 / scale[:, None, None] / found.lost.shape[1]
    unit = np.nan_to_num(unit) / np.isfinite(scale).sum()
    seen = np.asarray(played.observation)
    size = config.family.spaces.symbols(config.kind) + 1  # the last is no symbol
    own = (found.lost + base.lost) * unit
    points = _sums(seen, own, size)
    points -= _sums(np.asarray(bed.optimal_played.observation), base.lost * unit, size)
    visits = _sums(seen, np.full(seen.shape, 1 / seen.size), size)
    parts = config.family.spaces.seen(config.kind)
    order = np.argsort(-points, kind="stable")[:MOST_STATES]
    by_state = tuple(
        StateLoss(_name(parts, int(i), size - 1), float(points[i]), float(visits[i]))
        for i in order
        if visits[i] or points[i]
    )
    return LostParts((found.lost * unit).sum((0, 1)), by_state)


def _sums(index: np.ndarray, weight: np.ndarray, size: int) -> np.ndarray:
    """Return the sum of the weights of each index; -1 counts as the last."""
    return np.bincount(index.ravel() % size, weights=weight.ravel(), minlength=size)


def _name(parts: tuple[Component, ...], index: int, size: int) -> str:
    """Return the names and values of a state's or a symbol's components."""
    if index == size:
        return "no symbol yet"
    values = np.unravel_index(index, [part.size for part in parts])
    return ", ".join(
        f"{part.name} {part.values[value] if part.values else value}"
        for part, value in zip(parts, values, strict=True)
    )
