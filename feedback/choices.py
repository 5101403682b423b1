"""Log-probabilities that a language model gives to the choices of a question.

Choices are scored as actions are: by the tokens in which the whole text with a choice
differs from the text with another one (`llm.scoring`). Texts that begin alike share the
cache of their common tokens, if the model's cache gives the scores of whole texts.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from sdm.llm.bases import CausalModel
from sdm.llm.cache_check import ComparedRows, RowsInWindow, WrongCacheError
from sdm.llm.cached_rows import why_uncached
from sdm.llm.context import ContextError
from sdm.llm.devices import threads_for
from sdm.llm.memory import OutOfMemoryError
from sdm.llm.scoring import Tokens, encode, shared_length, split_candidates
from sdm.llm.whole_rows import WholeRows

TOGETHER = 32  # texts that are read together
SHORT = 8  # common tokens below which a cache saves nothing


class ChoiceScorer:
    """Scores the choices of questions with a language model."""

    def __init__(self, model: CausalModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Store the model; its cache is checked at the first question."""
        self.model, self.tokenizer = model.eval(), tokenizer
        self._cache: bool | None = None

    def score(
        self, questions: Sequence[str], choices: Sequence[str]
    ) -> Float[np.ndarray, "rows A"]:
        """Return the log-probability of each choice after each question, in nats.

        Args:
            questions: texts before the choices.
            choices: texts of the choices; none begins with another one.

        Raises:
            ContextError: if a text is longer than the model's context.
            ValueError: if the tokens of a choice begin with those of another one.

        """
        found = []
        with threads_for(self.model):
            for first in range(0, len(questions), TOGETHER):
                part = questions[first : first + TOGETHER]
                found.append(self._score(part, choices))
        return np.concatenate(found)

    def _score(
        self, questions: Sequence[str], choices: Sequence[str]
    ) -> Float[np.ndarray, "rows A"]:
        encoded = encode(
            self.tokenizer, [text + choice for text in questions for choice in choices]
        )
        count = len(choices)
        split = [
            split_candidates(encoded[i : i + count])
            for i in range(0, len(encoded), count)
        ]
        targets, suffixes = [shared for shared, _ in split], [left for _, left in split]
        if not all(all(row) for row in suffixes):
            raise ValueError(
                f"choices: none may begin with another one, found {list(choices)}"
            )
        common = min(shared_length(targets[0], target) for target in targets)
        # The last token of a text is read with it.
        prefix = targets[0][: min(common, min(map(len, targets)) - 1)]
        parents = [0] * len(targets)
        if len(prefix) >= SHORT and self._cached(prefix, targets, suffixes):
            rows = RowsInWindow(self.model, [prefix])
            return rows.score(targets, suffixes, parents)
        return WholeRows(self.model).score(targets, suffixes, parents)

    def _cached(
        self,
        prefix: Tokens,
        targets: Sequence[Tokens],
        suffixes: Sequence[Sequence[Tokens]],
    ) -> bool:
        """Return whether the cache gives the scores of whole texts; check it once."""
        if self._cache is None:
            self._cache = why_uncached(self.model) is None
            compared = partial(ComparedRows, self.model, {0}, [prefix])
            if self._cache:
                try:
                    compared().score(targets[:2], suffixes[:2], [0] * len(targets[:2]))
                except (OutOfMemoryError, ContextError):
                    raise
                except WrongCacheError:
                    self._cache = False
                except Exception:  # models without the usual cache fail in many ways
                    self._cache = False
        return self._cache
