"""Hidden-state models by expectation–maximisation; see `baum_welch`."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from sdm.data.estimation.baum_welch import (
    Expected,
    HiddenModel,
    expected_counts,
    fit,
    log_factors,
)
from sdm.data.estimation.config import EstimationConfig
from sdm.data.estimation.estimator import Estimate, Progress, register_estimator
from sdm.data.estimation.hidden_structure import Structure, sequences_of
from sdm.data.estimation.space import Space, space_of, worst_return
from sdm.data.logs import NOTHING, Logs, LogsError
from sdm.storage.checks import check_count, check_tolerance
from sdm.tasks.models import POMDP


@register_estimator
@dataclass(frozen=True)
class HiddenStates:
    """A POMDP whose hidden states explain the observations (Baum–Welch).

    Attributes:
        hidden_states: number of hidden states, or the smallest to try.
        most_hidden_states: largest number to try; held-out episodes choose among them.
        restarts: number of random starts, of which the most likely is kept.
        iterations: largest number of iterations of each start.
        tolerance: relative change of the log likelihood at which iterations end.

    """

    hidden_states: int = 2
    most_hidden_states: int | None = None
    restarts: int = 8
    iterations: int = 500
    tolerance: float = 1e-7

    name: ClassVar[str] = "hidden"

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        check_count("hidden_states", self.hidden_states, 1)
        check_count("restarts", self.restarts, 1)
        check_count("iterations", self.iterations, 2)
        check_tolerance("tolerance", self.tolerance)
        if self.most_hidden_states is not None:
            least = self.hidden_states
            check_count("most_hidden_states", self.most_hidden_states, least)

    def estimate(
        self,
        logs: Logs,
        config: EstimationConfig,
        *,
        held_out: np.ndarray,
        seed: int,
        progress: Progress,
    ) -> Estimate:
        """Return the model of each task; see `Estimator`.

        Raises:
            LogsError: if some episodes have an observation before their first decision,
                and others have none, or no episode is held out to choose a number.
            ValueError: if unvisited actions are to be forbidden.

        """
        opening = self._checked_opening(logs, config, held_out)
        space = space_of(logs, discount=config.discount, outcomes=config.outcomes)
        candidates = self._candidates(logs, space, config, held_out, seed, progress)
        chosen = max(candidates, key=lambda row: row["held_out"] or 0.0)
        structure = Structure(space, chosen["states"])
        worst = config.worst
        if worst is None:
            worst = worst_return(logs, config.discount)
        models, unvisited = [], []
        for k in range(len(logs.tasks)):
            mine = logs.select(logs.task == k)
            model, expected, _ = self._fitted(structure, mine, config, seed)
            made, missing = _pomdp(structure, model, expected, config, worst)
            models.append(made if opening else _without_first(made))
            unvisited.append(missing)
            progress("estimating models", k + 1, len(logs.tasks))
        names = tuple(f"hidden {i}" for i in range(structure.hidden))
        return Estimate(
            models=tuple(models),
            states=(*names, *space.endings),
            actions=space.actions,
            observations=space.names,
            horizon=space.horizon,
            unvisited=tuple(unvisited),
            pairs=structure.hidden * len(space.actions),
            score=chosen["held_out"],
            notes=_notes(structure, config, worst, [x["states"] for x in candidates]),
            measured={"hidden_states": structure.hidden, "candidates": candidates},
        )

    def _checked_opening(
        self, logs: Logs, config: EstimationConfig, held_out: np.ndarray
    ) -> bool:
        """Return whether episodes have an observation before their first decision."""
        if config.unvisited == "forbid":
            raise ValueError(
                "unvisited = 'forbid': what an action is forbidden in is hidden; use "
                "'worst' or 'prior'"
            )
        opening = logs.observation[:, 0] != NOTHING
        if opening.any() and not opening.all():
            raise LogsError(
                f"logs: {int((~opening).sum())} of {logs.episodes} episodes have no "
                "observation before their first decision: all or none must have one",
                "remove these episodes",
            )
        most = self.most_hidden_states or self.hidden_states
        if most > self.hidden_states and not held_out.any():
            raise LogsError(
                "logs: no episode can be held out to choose the number of states",
                "log more episodes, or remove `--most-hidden-states`",
            )
        return bool(opening.all())

    def _candidates(
        self,
        logs: Logs,
        space: Space,
        config: EstimationConfig,
        held_out: np.ndarray,
        seed: int,
        progress: Progress,
    ) -> list[dict[str, Any]]:
        """Return the scores of every number of states, from episodes of all tasks."""
        most = self.most_hidden_states or self.hidden_states
        numbers = range(self.hidden_states, most + 1)
        rows = []
        for done, number in enumerate(numbers, 1):
            structure, train, test = Structure(space, number), [], []
            for k in range(len(logs.tasks)):
                kept = logs.select((logs.task == k) & ~held_out)
                model, _, value = self._fitted(structure, kept, config, seed)
                train.append((value, int((kept.action != NOTHING).sum())))
                others = logs.select((logs.task == k) & held_out)
                if others.episodes:
                    test.append(_score(model, others, space))
            rows.append(
                {
                    "states": number,
                    "train": sum(x for x, _ in train) / sum(n for _, n in train),
                    "held_out": sum(x for x, _ in test) / sum(n for _, n in test)
                    if test
                    else None,
                }
            )
            progress("choosing the number of states", done, len(numbers))
        return rows

    def _fitted(
        self, structure: Structure, logs: Logs, config: EstimationConfig, seed: int
    ) -> tuple[HiddenModel, Expected, float]:
        """Return the most likely model, smoothed, its counts and its log likelihood."""
        data = sequences_of(logs, structure.space)
        if not np.asarray(data.moves).any():
            raise LogsError("logs: a task has no transition", "log longer episodes")
        start = structure.draw(self.restarts, np.random.default_rng(seed))
        models, values, _ = fit(
            start, data, iterations=self.iterations, tolerance=self.tolerance
        )
        best = int(np.argmax(values))
        fields = (models.initial, models.first, models.transition, models.observation)
        expected = expected_counts(HiddenModel(*(x[best] for x in fields)), data)
        smoothed = structure.smoothed(expected.counts, config.prior)
        return smoothed, expected, float(values[best])


def _score(model: HiddenModel, logs: Logs, space: Space) -> tuple[float, int]:
    """Return the log probability of the symbols after decisions, and their number."""
    data = sequences_of(logs, space)
    factors = np.asarray(log_factors(model, data))[:, 1:]
    return float(factors.sum()), int(np.asarray(data.moves).sum())


def _pomdp(
    structure: Structure,
    model: HiddenModel,
    expected: Expected,
    config: EstimationConfig,
    worst: float,
) -> tuple[POMDP, int]:
    """Return the model with rewards, and the number of unvisited hidden pairs."""
    hidden, space = structure.hidden, structure.space
    visits, paid = (np.asarray(x).T for x in (expected.visits, expected.paid))
    reward = np.zeros(visits.shape)
    mean = paid.sum() / max(visits.sum(), 1e-300)
    seen = visits[:hidden] > 1e-9  # expected decisions
    reward[:hidden] = np.where(
        seen, paid[:hidden] / np.where(seen, visits[:hidden], 1.0), mean
    )
    outcomes = slice(hidden, hidden + len(space.outcomes))
    reward[outcomes] = (space.outcomes / space.discount)[:, None]
    transition = np.moveaxis(np.asarray(model.transition), 0, 1).copy()  # [S, A, S]
    unvisited = np.zeros(visits.shape, bool)
    unvisited[:hidden] = visits[:hidden] < config.min_visits
    if config.unvisited == "worst":
        transition[unvisited] = np.eye(structure.states)[-1]
        reward[unvisited] = worst
    made = POMDP(
        transition=jnp.asarray(transition),
        observation=model.observation,
        reward=jnp.asarray(reward),
        initial=model.initial,
        discount=config.discount,
        initial_observation=model.first,
    )
    return made, int(unvisited.sum())


def _without_first(model: POMDP) -> POMDP:
    """Return the model without an observation before the first decision."""
    fields = (model.transition, model.observation, model.reward, model.initial)
    return POMDP(*fields, model.discount)


def _notes(
    structure: Structure, config: EstimationConfig, worst: float, tried: list[int]
) -> tuple[str, ...]:
    chosen = ""
    if len(tried) > 1:
        chosen = ", chosen by held-out log likelihood"
    if len(tried) > 1 and structure.hidden == tried[-1]:
        chosen += ", the largest number that was tried (more may be better)"
    treatment = (
        f"end the episode with the return {worst:g}"
        if config.unvisited == "worst"
        else "have the mean of the prior"
    )
    return (
        f"{structure.hidden} hidden states{chosen}: a local maximum of the likelihood, "
        "whose states need not be those of the world.",
        "Actions depend on what the log shows only: a behavior policy that saw more "
        "would bias the estimate.",
        f"Hidden states and actions with fewer than {config.min_visits} expected "
        f"decisions {treatment}.",
        *(
            (
                f"Outcomes pay one decision later: solve with a horizon of "
                f"{structure.space.horizon}.",
            )
            if len(structure.space.outcomes)
            else ()
        ),
    )
