"""The benchmark of policies: tasks, demonstrations and common random numbers.

Test tasks, their demonstrations and their episodes have separate random seed streams,
so the test never repeats a training task.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from sdm.data.regret import Losses, losses
from sdm.data.request import OracleConfig, family_header, sees_rewards
from sdm.data.solved_tasks import Tasks, sample_tasks, solve_sampled
from sdm.tasks.batches import join_tasks
from sdm.tasks.family import Kind, TaskFamily
from sdm.tasks.models import MDP, Model, check_count, states_observed
from sdm.tasks.policy import Policy, uniform_random
from sdm.tasks.rollout import (
    Trajectory,
    discounted_return,
    rollout,
    task_keys,
)
from sdm.tasks.rollout_in_models import play_in_models
from sdm.tasks.streams import Stream, stream_key
from sdm.tasks.worlds import every_world

Demonstrations = Literal["optimal", "random"]
DEMONSTRATIONS: tuple[Demonstrations, ...] = get_args(Demonstrations)


@dataclass(frozen=True)
class EvaluationConfig:
    """Configuration of a benchmark: tasks, episodes and demonstrations.

    Attributes:
        family: family of the test tasks.
        horizon: decisions per episode, T; the family's default, energy 10.
        tasks: number of unseen tasks; the family's default, energy 100.
        trajectories: episodes per task, in each model of an ambiguity set; the family's
            default, energy 30.
        support: demonstrations shown to a policy; the family's default, energy 2.
        seed: random seed of tasks, episodes and demonstrations.
        training_family: family of the prior of policies that have one; `family` unless
            the test is out of distribution.
        kind: kind of model, mdp, pomdp or apomdp.
        demonstrations: actions in demonstrations, the oracle's (`optimal`) or uniformly
            `random` ones.
        believe: model in the oracle's filter (apomdp), 0, the nominal one, to K - 1, or
            `mixture` for all of them.
        every_model: whether episodes are played in every model of an ambiguity set
            (apomdp), or in the nominal one only.
        observes_reward: whether agents, including the oracle, observe their rewards;
            the family's default if not given.

    """

    family: TaskFamily
    horizon: int
    tasks: int = 100
    trajectories: int = 30
    support: int = 2
    seed: int = 0
    training_family: TaskFamily | None = None
    kind: Kind = "mdp"
    demonstrations: Demonstrations = "optimal"
    believe: int | str = "mixture"
    every_model: bool = True
    observes_reward: bool | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        check_count("trajectories", self.trajectories, 1)
        check_count("support", self.support, 0)
        if self.demonstrations not in DEMONSTRATIONS:
            raise ValueError(
                f"demonstrations = {self.demonstrations!r}: must be one of "
                f"{', '.join(DEMONSTRATIONS)}"
            )
        _ = self.oracle  # checks the rest
        most = self.family.available("test")
        if most is not None and self.tasks > most:
            raise ValueError(
                f"tasks = {self.tasks}: must be at most {most}, the test tasks of "
                f"family `{self.family.name}`"
            )

    @property
    def prior_family(self) -> TaskFamily:
        """Return the family of the prior of policies that have one."""
        return self.training_family or self.family

    @property
    def rewards_seen(self) -> bool:
        """Return whether agents observe their rewards."""
        return sees_rewards(self.family, self.kind, self.observes_reward)

    def describe(self) -> dict[str, Any]:
        """Return everything that determines the benchmark, as JSON values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        believed = fields.pop("training_family")
        header = family_header(fields.pop("family"), fields.pop("kind"))
        if believed is not None:
            believed = family_header(believed, self.kind)["family_config"]
        return {**header, **fields, "training_family": believed}

    @property
    def oracle(self) -> OracleConfig:
        """Return the configuration by which tasks are drawn and solved."""
        return OracleConfig(
            self.family,
            self.horizon,
            self.tasks,
            self.trajectories,
            self.seed,
            kind=self.kind,
            believe=self.believe,
            observes_reward=self.observes_reward,
        )


@dataclass(frozen=True)
class Shown:
    """What is shown to a policy that does not know the tasks.

    Attributes:
        config: configuration of the test.
        support: demonstrations of each task.

    """

    config: EvaluationConfig
    support: Trajectory

    @property
    def world(self) -> Model | None:
        """Return the true tasks, to evaluate a policy exactly; None if unknown."""
        return None

    @property
    def states(self) -> MDP | None:
        """Return the true tasks with observed states; None if unknown."""
        return None


@dataclass(frozen=True)
class Benchmark(Shown):
    """Everything that the policies of one test share.

    Attributes:
        tasks: the test tasks and the models that generate episodes.
        keys: random keys of each task's episodes.
        solution: the oracle's solution of the tasks.
        oracle: the oracle's policy.
        optimal_returns: the oracle's mean discounted return in each task, over the
            test's episodes.
        worlds: the models in which episodes are played, K for each task in a row; the
            first is the task's `world`.
        optimal_by_model: the oracle's mean discounted return in each of them.
        optimal_played: the oracle's episodes in the tasks' `world`.
        optimal_losses: what the oracle's decisions lose in them; None for ambiguous
            tasks.

    """

    tasks: Tasks
    keys: Key[Array, " B"]
    solution: Any
    oracle: Policy
    optimal_returns: Float[np.ndarray, " B"]
    worlds: Any
    optimal_by_model: Float[np.ndarray, "B K"]
    optimal_played: Trajectory
    optimal_losses: Losses | None

    @property
    def models(self) -> int:
        """Number K of models in which each task is played."""
        return self.optimal_by_model.shape[1]

    @property
    def world(self) -> Model:
        """Return the true tasks, which generate the episodes."""
        return self.tasks.world

    @property
    def states(self) -> MDP:
        """Return the models that generate episodes, with observed states."""
        return states_observed(self.tasks.world)


def make_benchmark(config: EvaluationConfig) -> Benchmark:
    """Draw and solve the test tasks, and play demonstrations and the oracle's episodes.

    Raises:
        AmbiguityError: if no ambiguity set has the requested radius.

    """
    tasks = sample_tasks(0, config=config.oracle, size=config.tasks, split="test")
    return _played(config, tasks, Stream.TEST_SUPPORT, Stream.TEST_EPISODES)


def validation_benchmark(config: EvaluationConfig, indices: Sequence[int]) -> Benchmark:
    """Return a benchmark of some training tasks, with random numbers of its own.

    Args:
        config: configuration of the benchmark, with the seed of the dataset.
        indices: indices of the tasks in the dataset, as many as `config.tasks`.

    Raises:
        AmbiguityError: if no ambiguity set has the requested radius.

    """
    tasks = join_tasks([sample_tasks(i, config=config.oracle, size=1) for i in indices])
    return _played(config, tasks, Stream.VALIDATION_SUPPORT, Stream.VALIDATION_EPISODES)


def _played(
    config: EvaluationConfig, tasks: Tasks, support: Stream, episodes: Stream
) -> Benchmark:
    """Solve tasks, and play demonstrations and the oracle's episodes."""
    solution, oracle = solve_sampled(tasks.model, config.oracle)
    shown = oracle
    if config.demonstrations == "random":
        shown = uniform_random(states_observed(tasks.world), config.horizon)

    def keys_of(stream: Stream) -> Key[Array, " B"]:
        return task_keys(stream_key(config.seed, stream), config.tasks)

    def play(policy: Policy, stream: Stream, world: Model, n: int) -> Trajectory:
        keys = keys_of(stream)
        return play_in_models(
            rollout, keys, world, policy, horizon=config.horizon, episodes=n
        )

    worlds = every_world(tasks.model) if config.every_model else tasks.world
    demonstrations = play(shown, support, tasks.world, config.support)
    played = play(oracle, episodes, worlds, config.trajectories)
    earned = task_returns(tasks, played)
    best = in_model(played, 0)
    return Benchmark(
        config=config,
        tasks=tasks,
        keys=keys_of(episodes),
        solution=solution,
        oracle=oracle,
        support=in_model(demonstrations, 0),
        optimal_returns=earned[:, 0],
        worlds=worlds,
        optimal_by_model=earned,
        optimal_played=best,
        optimal_losses=losses(solution, oracle, best, _discount(tasks)),
    )


class Regrets(NamedTuple):
    """What a policy loses in each task, compared with the oracle.

    Attributes:
        lost: expected return that each decision loses, averaged over episodes.
        optimal: expected return of the oracle.
        slack: most by which the optimal expected return exceeds `optimal`.

    """

    lost: Float[np.ndarray, "B N T"]
    optimal: Float[np.ndarray, " B"]
    slack: Float[np.ndarray, " B"]


def regrets(bed: Benchmark, played: Trajectory) -> Regrets | None:
    """Return what the decisions in the test's episodes lose; None if it is unknown."""
    found = losses(bed.solution, bed.oracle, played, _discount(bed.tasks))
    if found is None or bed.optimal_losses is None:
        return None
    base = bed.optimal_losses.lost
    optimal = found.promised - base.sum(-1).mean(-1)
    upper = np.asarray(bed.solution.upper, np.float64)
    return Regrets(found.lost - base, optimal, np.maximum(upper - optimal, 0))


def _discount(tasks: Tasks) -> float:
    return float(np.asarray(tasks.world.discount))


def in_model(played: Trajectory, k: int) -> Trajectory:
    """Return the episodes in the k-th model of each task, from those in all models."""
    return jax.tree.map(lambda x: x[:, k], played)


def task_returns(tasks: Tasks, played: Trajectory) -> Float[np.ndarray, "*C"]:
    """Return the mean discounted return of each task's episodes, in each model."""
    returns = discounted_return(played.reward, tasks.world.discount)
    return np.asarray(returns, np.float64).mean(-1)
