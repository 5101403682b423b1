"""Episodes of scenarios: of uniformly random actions, and of a model that samples."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from sdm.data.solved_tasks import Tasks, sample_tasks
from sdm.evaluation.stepwise import (
    ROWS_TOGETHER,
    play_in_groups,
    play_stepwise,
    played_of,
)
from sdm.llm.acting import PolicyMaker, Situation, policy_maker
from sdm.llm.bases import CausalModel, load_base
from sdm.llm.run_folder import is_run
from sdm.llm.runs import load_run
from sdm.llm.schema import make_schema
from sdm.llm.self_training.config import SelfTrainConfig
from sdm.tasks.family import TaskFamily
from sdm.tasks.models import states_observed
from sdm.tasks.policy import Policy, RandomPolicies, uniform_random
from sdm.tasks.rollout import Trajectory, rollout, task_keys
from sdm.tasks.streams import Stream, stream_key
from sdm.tasks.transitions import take_tasks

Progress = Callable[[int, int], None]
CHECKED = 4  # random episodes of a task by which a model's cache is checked


class SelfPlay(NamedTuple):
    """Episodes of an iteration's scenarios.

    Attributes:
        family: family of the scenarios.
        first: index of the first scenario.
        tasks: the S scenarios.
        random: D random episodes of each, from which demonstrations are drawn.
        played: L episodes of each, of which the best are kept.
        invalid: mean probability of any text but an action; None for random play.
        seconds: seconds of acting.

    """

    family: TaskFamily
    first: int
    tasks: Tasks
    random: Trajectory
    played: Trajectory
    invalid: float | None
    seconds: float


def random_play(config: SelfTrainConfig) -> SelfPlay:
    """Play `keep` episodes of random play in each scenario of the start."""
    indices = config.scenarios_of(0)
    tasks = draw(config, indices, 0)
    keys, own = _keys(config, indices, 0), None
    if config.start_play == "policies":
        stream = stream_key(config.seed, Stream.RANDOM_POLICIES)
        own = task_keys(stream, len(indices), first=indices.start)
    played = _random(config, tasks, keys, config.keep, policies=own)
    random, family = _demonstrations(config, tasks, indices), config.family_of(0)
    return SelfPlay(family, indices.start, tasks, random, played, None, 0.0)


def self_play(
    config: SelfTrainConfig,
    iteration: int,
    policy: str,
    *,
    kept: Path | None = None,
    progress: Progress = lambda done, tasks: None,
) -> SelfPlay:
    """Let a model play `episodes` episodes in each scenario of an iteration.

    The prompt of all episodes of a scenario has the same random demonstrations.

    Args:
        config: configuration of the self-training.
        iteration: number of the iteration, from 1.
        policy: run folder, or name of a base.
        kept: prefix of the files that store played groups of scenarios; None to store
            nothing.
        progress: called with the number of completed scenarios and of all.

    Raises:
        StorageError: if a run folder cannot be read.
        BaseModelError: if a base is unavailable.
        ValueError: if the schema cannot write the tasks.

    """
    indices = config.scenarios_of(iteration)
    tasks = draw(config, indices, iteration)
    random = _demonstrations(config, tasks, indices)
    keys = _keys(config, indices, iteration)
    paid = np.asarray(tasks.world.reward)
    situation = Situation(
        support=jax.tree.map(lambda x: x[:, : config.support], random),
        played=_random(config, tasks, keys, CHECKED),
        reward=(float(paid.min()), float(paid.max())),
    )
    maker = _maker(config, policy, situation)

    def play(group: slice) -> dict[str, np.ndarray]:
        return play_stepwise(
            keys[group],
            take_tasks(tasks.world, group),
            lambda: maker(group),
            horizon=config.horizon,
            episodes=config.episodes,
        )

    found = play_in_groups(
        play,
        len(indices),
        together=max(1, min(maker.rows, ROWS_TOGETHER) // config.episodes),
        kept=kept,
        progress=progress,
    )
    played = jax.tree.map(lambda x: x[:, 0], played_of(found))  # in one model
    invalid = float(found["invalid"].mean())
    seconds = float(found["seconds"].sum())
    family = config.family_of(iteration)
    return SelfPlay(family, indices.start, tasks, random, played, invalid, seconds)


def draw(config: SelfTrainConfig, indices: range, iteration: int) -> Tasks:
    """Draw an iteration's scenarios by their indices."""
    drawn = config.tasks(len(indices), iteration)
    return sample_tasks(indices.start, config=drawn, size=len(indices))


def _maker(config: SelfTrainConfig, policy: str, situation: Situation) -> PolicyMaker:
    """Load a model, and return the factory of its sampling policy."""
    model: CausalModel
    if is_run(Path(policy)):
        run = load_run(Path(policy))
        model, tokenizer, schema = run.model, run.tokenizer, run.header.config.schema
    else:
        training = config.finetuning("data", policy)
        schema = training.schema
        model, tokenizer = load_base(
            policy,
            quantize=training.quantize,
            seed=config.seed,
            trust_remote_code=training.trust_remote_code,
        )
    written = make_schema(
        schema,
        config.family.spaces,
        config.kind,
        rewards=config.test.rewards_seen,
    )
    made = policy_maker(situation, written, tokenizer, model.eval(), policy)
    return dataclasses.replace(made, temperature=config.temperature)


def _demonstrations(
    config: SelfTrainConfig, tasks: Tasks, indices: range
) -> Trajectory:
    """Play the random episodes of which demonstrations are drawn.

    They are those of `sdm solve --random-trajectories` with the same seed.
    """
    stream = stream_key(config.seed, Stream.TRAIN_RANDOM)
    keys = task_keys(stream, len(indices), first=indices.start)
    if not config.demonstrations:
        return jax.tree.map(lambda x: x[:, :0], _random(config, tasks, keys, 1))
    return _random(config, tasks, keys, config.demonstrations)


def _random(
    config: SelfTrainConfig,
    tasks: Tasks,
    keys: Key[Array, " S"],
    episodes: int,
    *,
    policies: Key[Array, " S"] | None = None,
) -> Trajectory:
    """Play episodes of uniformly random actions, or of the policies of these keys."""
    uniform = uniform_random(states_observed(tasks.world), config.horizon)
    policy: Policy = uniform
    if policies is not None:
        own = jax.vmap(lambda key: jax.random.split(key, episodes))(policies)
        policy = RandomPolicies(own, uniform.probabilities)
    return rollout(keys, tasks.world, policy, horizon=config.horizon, episodes=episodes)


def _keys(config: SelfTrainConfig, indices: range, iteration: int) -> Key[Array, " S"]:
    """Return the keys of the episodes of an iteration's scenarios."""
    stream = stream_key(config.seed, Stream.SELF_PLAY)
    own = jax.random.fold_in(stream, jnp.int32(iteration))
    return task_keys(own, len(indices), first=indices.start)
