"""Configuration of self-training. Imports no PyTorch."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sdm.data.benchmark import EvaluationConfig
from sdm.data.request import OracleConfig, family_header
from sdm.llm.recipes import FinetuneConfig, recipe
from sdm.llm.self_training.selection import check_score
from sdm.storage.checks import (
    check_choice,
    check_count,
    check_finite,
    check_tolerance,
)
from sdm.tasks.family import Kind, TaskFamily

StartPlay = Literal["actions", "policies"]
UNTRAINED = "tiny"  # the base whose weights are random
START_SCENARIOS = 1600  # of its start


@dataclass(frozen=True)
class SelfTrainConfig:
    """Configuration of self-training.

    Attributes:
        family: family of the tasks.
        horizon: decisions per episode, T; the family's default, energy 10.
        support: random demonstrations in a prompt; the family's default, energy 2.
        base: base model, as in `sdm finetune`, or a run folder of it.
        kind: kind of model, mdp, pomdp or apomdp.
        iterations: number of iterations of play, selection and fine-tuning.
        scenarios: training tasks per iteration.
        episodes: episodes that the model plays in each scenario.
        keep: episodes to keep of each scenario, fewer than it plays.
        select: score by which episodes are kept, `regret` (realised, needs no oracle),
            `pseudo-regret` (expected, by the oracle) or `reward` (across scenarios).
        temperature: temperature at which the model samples its actions in play.
        random_trajectories: random episodes of each scenario, from which demonstrations
            are drawn; none without support.
        start_scenarios: scenarios of random play on which the base is trained first;
            1600 for `tiny`, which has random weights, else none.
        start_play: random play of the start, of uniformly random `actions`, or of
            random `policies`, another one in each episode.
        start_family: family of the start's scenarios; `family` if not given. Its texts
            must be of the same spaces.
        invalid_limit: largest mean probability of texts that are no action; a model
            above it is not trained any more.
        test_tasks: unseen tasks in which each iteration is evaluated; the family's
            default, energy 100.
        test_trajectories: episodes per test task; the family's default, energy 30.
        test_temperature: temperature in the test; the gap of the most probable actions
            is reported, too.
        reference: policy to compare with in the test, such as a run folder of oracle
            supervision.
        observes_reward: whether agents observe their rewards; the family's default if
            not given.
        seed: random seed of tasks, episodes, ties and training.
        training: options of `sdm finetune` that differ from the base's recipe; by
            default, each text has another one of the kept episodes. The start has them,
            too, but for `loss`: it learns all tokens.

    """

    family: TaskFamily
    horizon: int
    support: int
    base: str = "tiny"
    kind: Kind = "mdp"
    iterations: int = 8
    scenarios: int = 400
    episodes: int = 16
    keep: int = 4
    select: str = "regret"
    temperature: float = 1.0
    random_trajectories: int = 8
    start_scenarios: int | None = None
    start_play: StartPlay = "actions"
    start_family: TaskFamily | None = None
    invalid_limit: float = 0.2
    test_tasks: int = 100
    test_trajectories: int = 30
    test_temperature: float = 1.0
    reference: str | None = None
    observes_reward: bool | None = None
    seed: int = 0
    training: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        for name, least in LEAST.items():
            check_count(name, getattr(self, name), least)
        if self.keep >= self.episodes:
            raise ValueError(
                f"keep = {self.keep}: must be below episodes = {self.episodes}, else "
                "every episode is kept and nothing is selected"
            )
        check_choice("start_play", self.start_play, get_args(StartPlay))
        check_score(self.select, self.kind)
        for name in ("temperature", "test_temperature", "invalid_limit"):
            check_finite(name, getattr(self, name))
            check_tolerance(name, getattr(self, name))
        if not self.temperature:
            raise ValueError(
                "temperature = 0: must be above 0, else all episodes of a scenario "
                "take the same actions after the same observations"
            )
        if self.support > self.demonstrations:
            raise ValueError(
                f"random_trajectories = {self.random_trajectories}: must be at least "
                f"support = {self.support}"
            )
        self._check_start()
        most = self.family.available("train")
        if most is not None and self.scenarios > most:
            raise ValueError(
                f"scenarios = {self.scenarios}: must be at most {most}, the training "
                f"tasks of family `{self.family.name}`"
            )
        _ = self.test  # checks the rest
        self.finetuning("data", self.base)

    def _check_start(self) -> None:
        """Raise `ValueError` for options of the start that cannot be used."""
        first = self.start_family
        if first is not None and first.spaces != self.family.spaces:
            raise ValueError(
                "start_family: must have the states, actions and rewards of the family "
                f"`{self.family.name}` of self-training, since its texts are the same"
            )
        scenarios = self.random_scenarios
        if scenarios or self.base == UNTRAINED:
            check_count("start_scenarios", scenarios, 2)  # one of them for validation
            return
        for name in ("start_play", "start_family"):
            if getattr(self, name) != getattr(type(self), name):
                raise ValueError(
                    f"{name}: has no effect with base = {self.base!r} and "
                    "start_scenarios = 0, which play nothing before the first iteration"
                )

    @property
    def random_scenarios(self) -> int:
        """Number of scenarios of random play before the first iteration."""
        if self.start_scenarios is not None:
            return self.start_scenarios
        return START_SCENARIOS if self.base == UNTRAINED else 0

    @property
    def demonstrations(self) -> int:
        """Number of random episodes of each scenario."""
        return self.random_trajectories if self.support else 0

    def family_of(self, iteration: int) -> TaskFamily:
        """Return the family of an iteration's scenarios; 0 is the random play."""
        return self.family if iteration else self.start_family or self.family

    def tasks(self, count: int, iteration: int) -> OracleConfig:
        """Return the configuration by which tasks are drawn; nothing is solved."""
        return OracleConfig(
            self.family_of(iteration),
            self.horizon,
            count,
            self.episodes,
            self.seed,
            kind=self.kind,
            observes_reward=self.observes_reward,
        )

    @property
    def test(self) -> EvaluationConfig:
        """The test, in which demonstrations are random, too."""
        return EvaluationConfig(
            self.family,
            self.horizon,
            self.test_tasks,
            self.test_trajectories,
            self.support,
            self.seed,
            kind=self.kind,
            demonstrations="random",
            observes_reward=self.observes_reward,
        )

    def scenarios_of(self, iteration: int) -> range:
        """Return the indices of an iteration's scenarios; 0 is the random play.

        Every iteration has new scenarios. If the family has finitely many, they come
        round again.
        """
        most = self.family_of(iteration).available("train")
        if not iteration:
            return range(min(self.random_scenarios, most or self.random_scenarios))
        first = self._first(iteration, most)
        return range(first, first + self.scenarios)

    def _first(self, iteration: int, most: int | None) -> int:
        if most is None:
            return self.random_scenarios + (iteration - 1) * self.scenarios
        return (iteration - 1) % (most // self.scenarios) * self.scenarios

    def finetuning(
        self, data: str, base: str, start: str | None = None, *, iteration: int = 1
    ) -> FinetuneConfig:
        """Return the configuration of one training.

        Args:
            data: folder of the dataset.
            base: name of the base.
            start: run folder to continue; None for the base's weights.
            iteration: number of the iteration. The start, 0, learns all tokens: those
                of random actions teach nothing.

        """
        options = {"texts_per_task": self.keep, **(self.training or {})}
        if iteration == 0:
            options["loss"] = "all"
        return recipe(
            data,
            base,
            seed=self.seed,
            support=self.support,
            demonstrations="random",
            start=start,
            **options,
        )

    def describe(self) -> dict[str, Any]:
        """Return everything that determines the result, as JSON values."""
        names = (f.name for f in dataclasses.fields(self))
        fields = {name: getattr(self, name) for name in names}
        fields["start_scenarios"] = self.random_scenarios
        kind, start = fields.pop("kind"), fields.pop("start_family")
        header = family_header(fields.pop("family"), kind)
        if start is not None:
            fields["start_family"] = family_header(start, kind)
        return {**header, **fields, "training": dict(self.training or {})}


LEAST = {
    "iterations": 1,
    "scenarios": 2,
    "episodes": 2,
    "keep": 1,
    "random_trajectories": 0,
    "test_tasks": 1,
}
