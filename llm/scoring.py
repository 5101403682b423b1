"""Tokens of action candidates, and rows in which a language model scores them.

A candidate is scored by the tokens in which the *whole text* with that candidate
differs from the text with another one. Tokenizers merge characters across boundaries,
so a candidate that is encoded alone would have other tokens. The candidates' token
sequences must be prefix-free (none is a prefix of another); otherwise, a short one
would be favoured. If they are not, each candidate is scored together with the
terminator that follows an action in the text.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from sdm.llm.tokens import Tokens as Tokens
from sdm.llm.tokens import encode as encode


@runtime_checkable
class Rows(Protocol):
    """Growing texts, whose continuations a language model scores."""

    def score(
        self,
        targets: Sequence[Tokens],
        suffixes: Sequence[Sequence[Tokens]],
        parents: Sequence[int],
    ) -> Float[np.ndarray, "rows A"]:
        """Return the log-probability of each row's candidates, in nats.

        Args:
            targets: the tokens of the texts so far, one sequence per row.
            suffixes: the tokens of each candidate, which continue the row's target.
            parents: for each row, the index of the row of the last call (in the first
                call, of the prefix) that its text continues.

        Raises:
            ContextError: if a text is longer than the model's context.

        """
        ...


def needs_terminator(
    tokenizer: PreTrainedTokenizerBase, context: str, answers: Sequence[str], end: str
) -> bool:
    """Return whether candidates must be scored together with the terminator.

    They must if one answer is a prefix of another, or if the tokenizer merges an answer
    with its terminator, so that the answer alone never occurs in a text.

    Args:
        tokenizer: the model's tokenizer.
        context: a text before an action.
        answers: the text of each action.
        end: the terminator.

    """
    if not end:
        return False
    alone = encode(tokenizer, [context + answer for answer in answers])
    ended = encode(tokenizer, [context + answer + end for answer in answers])
    merged = any(b[: len(a)] != a for a, b in zip(alone, ended, strict=True))
    nested = any(a is not b and b[: len(a)] == a for a in alone for b in alone)
    return merged or nested


def split_candidates(candidates: Sequence[Tokens]) -> tuple[Tokens, list[Tokens]]:
    """Return the common prefix of the candidate texts, and the other tokens of each."""
    count = min(shared_length(candidates[0], ids) for ids in candidates)
    return candidates[0][:count], [ids[count:] for ids in candidates]


def shared_length(a: Tokens, b: Tokens) -> int:
    """Return the length of the common prefix of two token sequences."""
    if b[: len(a)] == a:
        return len(a)
    differ = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return next(differ, min(len(a), len(b)))
