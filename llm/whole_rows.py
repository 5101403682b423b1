"""Rows of tokens that a language model reads from the start at every stage.

This works for every causal model, since it needs no cache, and padding only follows a
text. It takes longer than `CachedRows`.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float

from sdm.llm.bases import CausalModel
from sdm.llm.context import check_length
from sdm.llm.logits import logits_of
from sdm.llm.memory import memory_explained
from sdm.llm.scoring import Tokens

Text = tuple[int, ...]
# For each text, the places and tokens of which the log-probabilities are wanted.
Wanted = dict[Text, dict[tuple[int, int], float]]

TOKENS_TOGETHER = 4096  # with padding; more would not use a processor better
FEWER = (
    "lower `--support` or the horizon, or pass `--schema compact` if the base was not "
    "fine-tuned in another schema"
)


class WholeRows:
    """Rows whose texts a model reads from the start at every stage."""

    def __init__(self, model: CausalModel, prefixes: Sequence[Tokens] = ()) -> None:
        """Store the model; it reads the prefixes with the texts that they begin."""
        self.model = model

    @memory_explained(FEWER)
    @torch.no_grad()
    def score(
        self,
        targets: Sequence[Tokens],
        suffixes: Sequence[Sequence[Tokens]],
        parents: Sequence[int],
    ) -> Float[np.ndarray, "rows A"]:
        """Return the log-probability of each row's candidates; read every text."""
        wanted: Wanted = {}
        for target, row in zip(targets, suffixes, strict=True):
            for suffix in row:
                wanted.setdefault(_read(target, suffix), {}).update(
                    dict.fromkeys(_places(target, suffix), 0.0)
                )
        check_length(self.model, max(map(len, wanted)) + 1)
        for texts in _batches(sorted(wanted, key=len)):
            self._fill(wanted, texts)
        return np.array(
            [
                [
                    sum(
                        wanted[_read(target, suffix)][place]
                        for place in _places(target, suffix)
                    )
                    for suffix in row
                ]
                for target, row in zip(targets, suffixes, strict=True)
            ],
            np.float32,
        )

    def _fill(self, wanted: Wanted, texts: Sequence[Text]) -> None:
        """Compute the wanted log-probabilities in texts that are read together."""
        device, width = self.model.device, max(map(len, texts))
        ids = [[*text, *[0] * (width - len(text))] for text in texts]
        real = [[1] * len(text) + [0] * (width - len(text)) for text in texts]
        asked = [
            (row, *place) for row, text in enumerate(texts) for place in wanted[text]
        ]
        rows, columns, tokens = torch.tensor(asked, device=device).unbind(1)
        kept, where = columns.unique(return_inverse=True)
        logits = logits_of(
            self.model,
            kept,
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(real, device=device),
            use_cache=False,
        )
        found = logits.log_softmax(-1)[rows, where, tokens].tolist()
        for (row, *place), value in zip(asked, found, strict=True):
            column, token = place
            wanted[texts[row]][column, token] = value


def _read(target: Tokens, suffix: Tokens) -> Text:
    """Return the tokens to read: the last one of a candidate is scored only."""
    return (*target, *suffix[:-1])


def _places(target: Tokens, suffix: Tokens) -> Iterable[tuple[int, int]]:
    """Return the column before each token of a candidate, and the token."""
    return ((len(target) - 1 + i, token) for i, token in enumerate(suffix))


def _batches(texts: Sequence[Text]) -> Iterator[list[Text]]:
    """Divide texts in increasing order of length among batches; yield each batch."""
    batch: list[Text] = []
    for text in texts:
        if batch and (len(batch) + 1) * len(text) > TOKENS_TOGETHER:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch
