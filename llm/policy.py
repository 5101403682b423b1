"""A language model as a policy, which takes the most probable action or samples one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from transformers import PreTrainedTokenizerBase

from sdm.llm.episode import Episode, render_prompt
from sdm.llm.episode import episodes_of as episodes_of
from sdm.llm.schema import Schema
from sdm.llm.scoring import (
    Rows,
    Tokens,
    encode,
    needs_terminator,
    split_candidates,
)
from sdm.llm.tokens import splits_characters
from sdm.tasks.models import Model
from sdm.tasks.policy import draw


@dataclass
class EpisodeTexts:
    """A language model's memory of N episodes of each of B tasks, in B N rows."""

    observations: list[list[int]] = field(default_factory=list)
    actions: list[list[int]] = field(default_factory=list)
    rewards: list[list[float]] = field(default_factory=list)
    rows: Rows | None = None
    row_of: list[int] = field(default_factory=list)  # row of each episode in `rows`


@dataclass(frozen=True)
class LanguageModelPolicy:
    """A policy that acts by the probabilities that a model assigns to actions' texts.

    Attributes:
        begin: makes the rows in which a language model scores continuations of the
            given texts.
        tokenizer: the model's tokenizer.
        schema: text schema of the episodes.
        support: the demonstrations of each task, one possibly empty list per task.
        actions: number of actions to choose from.
        temperature: at 0, the most probable action is taken; above, actions are sampled
            with probabilities proportional to p^(1 / temperature).
        invalid: probability of any text but an action, for every decision so far.

    """

    begin: Callable[[Sequence[Tokens]], Rows]
    tokenizer: PreTrainedTokenizerBase
    schema: Schema
    support: Sequence[Sequence[Episode]]
    actions: int
    temperature: float = 0.0
    invalid: list[float] = field(default_factory=list)

    def init(self, model: Model) -> EpisodeTexts:
        """Return the memory before the first decision."""
        return EpisodeTexts()

    def act(
        self,
        memory: EpisodeTexts,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], EpisodeTexts]:
        """Choose an action in every episode.

        Of equally probable actions, the lowest is taken. Sampled actions depend on the
        probabilities and the keys only.
        """
        scores = self.action_scores(memory, observation, reward)
        if self.temperature:
            choice = sampled(scores, self.temperature, key)
        else:
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
        """Append observations and rewards; return the log-probability of every action.

        Rewards before the first decision are ignored.
        """
        tasks, episodes = observation.shape
        if memory.rows is None:
            rows = range(tasks * episodes)
            memory.observations = [[] for _ in rows]
            memory.actions = [[] for _ in rows]
            memory.rewards = [[] for _ in rows]
            prefixes = encode(self.tokenizer, [self._prefix(s) for s in self.support])
            memory.rows = self.begin(prefixes)
            memory.row_of = [row // episodes for row in rows]
        for row, (seen, earned) in enumerate(
            zip(np.ravel(observation), np.ravel(reward), strict=True)
        ):
            if memory.actions[row]:
                memory.rewards[row].append(float(earned))
            memory.observations[row].append(int(seen))
        contexts = self._contexts(memory, episodes)
        # Episodes with the same text are scored once, in a row that continues the row
        # of the first such episode.
        first: dict[str, int] = {}
        for row, text in enumerate(contexts):
            first.setdefault(text, row)
        targets, suffixes = self.candidates(list(first))
        parents = [memory.row_of[row] for row in first.values()]
        place = {text: i for i, text in enumerate(first)}
        memory.row_of = [place[text] for text in contexts]
        scores = memory.rows.score(targets, suffixes, parents)[memory.row_of]
        mass = np.exp(scores.astype(np.float64)).sum(-1)
        self.invalid.extend(np.maximum(0.0, 1 - mass).tolist())
        return scores

    @cached_property
    def _splits_characters(self) -> bool:
        return splits_characters(self.tokenizer)

    def _prefix(self, support: Sequence[Episode]) -> str:
        return "".join(self.schema.render(episode) + "\n" for episode in support)

    def _contexts(self, memory: EpisodeTexts, episodes: int) -> list[str]:
        """Return every episode's prompt: its demonstrations and its text so far."""
        return [
            render_prompt(
                self.schema,
                self.support[row // episodes],
                Episode(tuple(seen), tuple(done), tuple(earned)),
            )
            for row, (seen, done, earned) in enumerate(
                zip(memory.observations, memory.actions, memory.rewards, strict=True)
            )
        ]

    def candidates(
        self, contexts: Sequence[str]
    ) -> tuple[list[Tokens], list[list[Tokens]]]:
        """Return the tokens of every text, and those of each candidate after it."""
        answers = [self.schema.answer(action) for action in range(self.actions)]
        end = self.schema.terminator
        if needs_terminator(self.tokenizer, contexts[0], answers, end):
            answers = [answer + end for answer in answers]
        if self._splits_characters:  # a fifth of the work with five actions
            shared, left = split_candidates(encode(self.tokenizer, answers))
            texts = encode(self.tokenizer, contexts)
            return [[*text, *shared] for text in texts], [left] * len(texts)
        encoded = encode(
            self.tokenizer, [text + answer for text in contexts for answer in answers]
        )
        split = [
            split_candidates(encoded[i : i + self.actions])
            for i in range(0, len(encoded), self.actions)
        ]
        return [shared for shared, _ in split], [left for _, left in split]


def sampled(
    scores: Float[np.ndarray, "rows A"], temperature: float, key: Key[Array, "B N"]
) -> Int[np.ndarray, " rows"]:
    """Sample an action per row from log-probabilities, at a temperature above 0."""
    uniform = jax.vmap(jax.random.uniform)(key.ravel())
    chances = jax.nn.softmax(jnp.asarray(scores, uniform.dtype) / temperature, axis=-1)
    return np.asarray(draw(chances, uniform))
