"""A language model as a policy: it reads the demonstrations, then plays by argmax."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from transformers import PreTrainedTokenizerBase

from sdm.llm.bases import CausalModel, check_length
from sdm.llm.scoring import (
    CachedRows,
    encode,
    needs_terminator,
    split_candidates,
)
from sdm.llm.serialize import Episode, Schema, render_prompt
from sdm.solvers_jax.models import Model
from sdm.solvers_jax.rollout import Trajectory


@dataclass
class EpisodeTexts:
    """What a language model remembers while it plays N episodes of B tasks."""

    observations: list[list[int]] = field(default_factory=list)
    actions: list[list[int]] = field(default_factory=list)
    rewards: list[list[float]] = field(default_factory=list)
    rows: CachedRows | None = None


@dataclass(frozen=True)
class LanguageModelPolicy:
    """Takes the action whose text is the most probable next one.

    Attributes:
        model: a causal language model, with or without an adapter.
        tokenizer: its tokeniser.
        schema: how episodes are written.
        support: the demonstrations of each task, one list a task, perhaps empty.
        actions: number of actions to choose from.
        invalid: probability of anything but an action, of every decision so far.

    """

    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    schema: Schema
    support: Sequence[Sequence[Episode]]
    actions: int
    invalid: list[float] = field(default_factory=list)

    def init(self, model: Model) -> EpisodeTexts:
        """Start with empty episodes."""
        return EpisodeTexts()

    def act(
        self,
        memory: EpisodeTexts,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], EpisodeTexts]:
        """Choose the most probable action of every episode; ties go to the lowest."""
        scores = self.action_scores(memory, observation, reward)
        choice = scores.argmax(-1)
        for row, action in enumerate(choice):
            memory.actions[row].append(int(action))
        return jnp.asarray(choice.reshape(observation.shape), jnp.int32), memory

    def action_scores(
        self,
        memory: EpisodeTexts,
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
    ) -> Float[np.ndarray, "rows A"]:
        """Extend the episodes by what was seen and score every action in each."""
        tasks, episodes = observation.shape
        if memory.rows is None:
            rows = range(tasks * episodes)
            memory.observations = [[] for _ in rows]
            memory.actions = [[] for _ in rows]
            memory.rewards = [[] for _ in rows]
            prefixes = encode(self.tokenizer, [self._prefix(s) for s in self.support])
            memory.rows = CachedRows(self.model, prefixes, episodes)
        for row, (seen, earned) in enumerate(
            zip(np.ravel(observation), np.ravel(reward), strict=True)
        ):
            if memory.actions[row]:
                memory.rewards[row].append(float(earned))
            memory.observations[row].append(int(seen))
        targets, suffixes = self._candidates(memory, episodes)
        check_length(
            self.model,
            max(
                len(target) + max(map(len, rows))
                for target, rows in zip(targets, suffixes, strict=True)
            ),
        )
        scores = memory.rows.score(targets, suffixes).cpu().numpy()
        mass = np.exp(scores.astype(np.float64)).sum(-1)
        self.invalid.extend(np.maximum(0.0, 1 - mass).tolist())
        return scores

    def _prefix(self, support: Sequence[Episode]) -> str:
        return "".join(self.schema.render(episode) + "\n" for episode in support)

    def _candidates(self, memory: EpisodeTexts, episodes: int) -> tuple[Any, Any]:
        """Tokens of every row's text so far, and of each candidate after it."""
        contexts = [
            render_prompt(
                self.schema,
                self.support[row // episodes],
                Episode(tuple(seen), tuple(done), tuple(earned)),
            )
            for row, (seen, done, earned) in enumerate(
                zip(memory.observations, memory.actions, memory.rewards, strict=True)
            )
        ]
        answers = [self.schema.answer(action) for action in range(self.actions)]
        end = self.schema.terminator
        if needs_terminator(self.tokenizer, contexts[0], answers, end):
            answers = [answer + end for answer in answers]
        distinct = {context: i for i, context in enumerate(dict.fromkeys(contexts))}
        encoded = encode(
            self.tokenizer, [text + answer for text in distinct for answer in answers]
        )
        split = [
            split_candidates(encoded[i : i + self.actions])
            for i in range(0, len(encoded), self.actions)
        ]
        chosen = [split[distinct[context]] for context in contexts]
        return [shared for shared, _ in chosen], [left for _, left in chosen]


def episodes_of(trajectory: Trajectory) -> list[list[Episode]]:
    """The N complete episodes of each of B tasks, ready to be written as text."""
    arrays = (trajectory.observation, trajectory.action, trajectory.reward)
    tasks = zip(*(np.asarray(x).tolist() for x in arrays), strict=True)
    return [
        [Episode(tuple(o), tuple(a), tuple(r)) for o, a, r in zip(*task, strict=True)]
        for task in tasks
    ]
