"""Log-probabilities of action candidates, in context, with a shared key-value cache.

A candidate is scored by the tokens by which the *whole text* with that candidate
differs from the text with another one: tokenisers merge across boundaries, so pieces
encoded alone would be other tokens. The candidates' token sequences must be prefix-free
(none may begin another), or a short one would be favoured; where they are not, each is
scored together with the terminator that follows an action in the text.

`CachedRows` keeps one row per distinct text: episodes whose texts are the same so far
share a row, which is copied where they part, so demonstrations are read once a task.
Each stage feeds only new tokens. Rows may differ in length: padding, and tokens that a
later tokenisation replaced, stay in the cache as masked columns, and every token
carries its own position. A base that attends to a window of tokens would lose some to
those columns: texts that do not fit its window are refused.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from transformers import DynamicCache, PreTrainedTokenizerBase

from sdm.llm.bases import CausalModel
from sdm.llm.context import ContextError, check_length
from sdm.llm.memory import memory_explained, memory_of

Tokens = list[int]

# How much of the memory that the weights leave is for keys and values, which are copied
# a layer at a time as they grow. A computer has other things to do besides.
SHARE_OF_GPU, SHARE_OF_COMPUTER = 0.5, 0.25
PROBE = 8  # tokens that are read to see what a token takes
FEWER = (
    "lower `--trajectories`, `--support` or the horizon; `--schema compact`, where the "
    "base was not trained in another, is shorter"
)


@runtime_checkable
class Rows(Protocol):
    """Texts that grow, and what a language model thinks may follow them."""

    def score(
        self,
        targets: Sequence[Tokens],
        suffixes: Sequence[Sequence[Tokens]],
        parents: Sequence[int],
    ) -> Float[np.ndarray, "rows A"]:
        """Log-probability of each row's candidates.

        Args:
            targets: the texts so far, one a row.
            suffixes: the tokens of each candidate, which continue the row's target.
            parents: for each row, the row of the last call (at first: the prefix) that
                its text goes on from.

        Raises:
            ContextError: if a text is longer than what the model reads.

        """
        ...


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Tokens]:
    """Token ids of every text, with whatever the tokeniser puts in front."""
    return list(tokenizer(list(texts))["input_ids"]) if texts else []


def needs_terminator(
    tokenizer: PreTrainedTokenizerBase, context: str, answers: Sequence[str], end: str
) -> bool:
    """Whether candidates must be scored together with what follows them.

    They must where one answer begins another, and where the tokeniser merges an answer
    with its terminator, so that the answer alone never occurs in a text.
    """
    if not end:
        return False
    alone = encode(tokenizer, [context + answer for answer in answers])
    ended = encode(tokenizer, [context + answer + end for answer in answers])
    merged = any(b[: len(a)] != a for a, b in zip(alone, ended, strict=True))
    nested = any(a is not b and b[: len(a)] == a for a in alone for b in alone)
    return merged or nested


def split_candidates(candidates: Sequence[Tokens]) -> tuple[Tokens, list[Tokens]]:
    """The tokens that all candidate texts share in front, and those left of each."""
    count = min(shared_length(candidates[0], ids) for ids in candidates)
    return candidates[0][:count], [ids[count:] for ids in candidates]


def shared_length(a: Tokens, b: Tokens) -> int:
    """How many tokens two sequences have in common in front."""
    if b[: len(a)] == a:
        return len(a)
    differ = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return next(differ, min(len(a), len(b)))


class CachedRows:
    """Rows of tokens fed to a causal language model, and its cache for them."""

    @memory_explained(FEWER)
    def __init__(self, model: CausalModel, prefixes: Sequence[Tokens]) -> None:
        """Encode each prefix; all must be empty, or none."""
        self.model = model
        self.cache = DynamicCache()
        self.ids: list[Tokens] = [[] for _ in prefixes]
        self.columns: list[list[int]] = [[] for _ in prefixes]
        self.mask = torch.zeros(
            (len(prefixes), 0), dtype=torch.long, device=model.device
        )
        if any(prefixes):
            check_length(model, max(map(len, prefixes)))
            self._feed(prefixes, [0] * len(prefixes))

    @memory_explained(FEWER)
    @torch.no_grad()
    def score(
        self,
        targets: Sequence[Tokens],
        suffixes: Sequence[Sequence[Tokens]],
        parents: Sequence[int],
    ) -> Float[np.ndarray, "rows A"]:
        """Log-probability of each row's candidates; only what is new is fed."""
        longest = (
            len(target) + max(map(len, row))
            for target, row in zip(targets, suffixes, strict=True)
        )
        check_length(self.model, max(longest))
        self._branch(parents)
        kept = [self._keep(row, target) for row, target in enumerate(targets)]
        new = [list(t[k:]) for t, k in zip(targets, kept, strict=True)]
        first = torch.tensor(
            [[s[0] for s in row] for row in suffixes], device=self.model.device
        )
        scores = self._feed(new, kept).gather(1, first)
        for candidate in range(first.shape[1]):
            tails = [list(row[candidate]) for row in suffixes]
            if any(len(tail) > 1 for tail in tails):
                scores[:, candidate] += self._score_tails(tails)
        return scores.cpu().numpy()

    @property
    def nbytes(self) -> int:
        """Memory that the cache takes."""
        return sum(
            x.nbytes
            for layer in self.cache.layers
            for x in (getattr(layer, "keys", None), getattr(layer, "values", None))
            if x is not None
        )

    def _branch(self, parents: Sequence[int]) -> None:
        """Make row i a copy of row `parents[i]`."""
        if list(parents) == list(range(len(self.ids))):
            return
        chosen = torch.tensor(parents, device=self.model.device)
        self.cache.batch_select_indices(chosen)
        self.mask = self.mask[chosen]
        self.ids = [self.ids[parent] for parent in parents]
        self.columns = [list(self.columns[parent]) for parent in parents]

    def _keep(self, row: int, target: Tokens) -> int:
        """Hide cached tokens of a row that its new text does not begin with."""
        fed = self.ids[row]
        # The output after the last token is wanted, so that one is always fed.
        count = min(shared_length(fed, target), len(target) - 1)
        for column in self.columns[row][count:]:
            self.mask[row, column] = 0
        del self.columns[row][count:]
        self.ids[row] = fed[:count]
        return count

    def _forward(
        self, new: Sequence[Tokens], start: Sequence[int], keep: torch.Tensor | int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Feed right-padded tokens; logits at the columns `keep`, and their mask."""
        device = self.model.device
        self._check_window(max(map(len, new)))
        lengths = torch.tensor([len(ids) for ids in new], device=device)
        width = int(lengths.max())
        block = torch.tensor(
            [ids + [0] * (width - len(ids)) for ids in new], device=device
        )
        offsets = torch.arange(width, device=device)
        valid = (offsets < lengths[:, None]).long()
        positions = torch.tensor(start, device=device)[:, None] + offsets
        output = self.model(
            input_ids=block,
            attention_mask=torch.cat([self.mask, valid], dim=1),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        return output.logits.float(), valid

    def _check_window(self, width: int) -> None:
        """Raise `ContextError` where columns outgrow what some layers attend to."""
        config = self.model.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
        if window is None or "sliding_attention" not in kinds:
            return
        columns = self.mask.shape[1] + width
        if columns > window:
            raise ContextError(
                f"texts take {columns} columns of the cache, and the model attends to "
                f"a window of {window}: shorten them by `--schema compact`, a smaller "
                "`--support` or a shorter horizon"
            )

    @torch.no_grad()
    def _feed(self, new: Sequence[Tokens], start: Sequence[int]) -> torch.Tensor:
        """Append tokens to the rows; log-probabilities after each row's last one."""
        last = torch.tensor([len(ids) - 1 for ids in new], device=self.model.device)
        columns, where = last.unique(return_inverse=True)
        logits, valid = self._forward(new, start, columns)
        width = self.mask.shape[1]
        self.mask = torch.cat([self.mask, valid], dim=1)
        for row, ids in enumerate(new):
            self.ids[row] = self.ids[row] + list(ids)
            self.columns[row] += range(width, width + len(ids))
        rows = torch.arange(len(new), device=self.model.device)
        return logits[rows, where].log_softmax(-1)

    def _score_tails(self, tails: Sequence[Tokens]) -> torch.Tensor:
        """Log-probability of all but the first token of each row's candidate."""
        start = [len(ids) for ids in self.ids]
        width = max(len(tail) for tail in tails) - 1
        logits, _ = self._forward([tail[:-1] for tail in tails], start, width)
        self.cache.crop(-width)
        padded = [tail[1:] + [0] * (width + 1 - len(tail)) for tail in tails]
        wanted = torch.tensor(padded, device=logits.device)
        scores = logits.log_softmax(-1).gather(2, wanted[..., None])[..., 0]
        lengths = torch.tensor([len(tail) - 1 for tail in tails], device=logits.device)
        real = torch.arange(width, device=logits.device) < lengths[:, None]
        return (scores * real).sum(1)


def rows_that_fit(model: CausalModel, tokens: int) -> int:
    """How many texts of so many tokens may grow together; one at least.

    It depends on how much memory there is, not on how much is free, so that the same
    machine plays the same groups again.

    Raises:
        ValueError: if the model keeps something else than keys and values.

    """
    device = model.device
    share = SHARE_OF_GPU if device.type == "cuda" else SHARE_OF_COMPUTER
    left = share * (memory_of(device) - model.get_memory_footprint())
    a_token = CachedRows(model, [[0] * PROBE]).nbytes / PROBE
    if not a_token:
        raise ValueError(
            f"a {model.config.model_type} keeps no keys and values of what it reads: "
            "it cannot be scored stage by stage"
        )
    return max(1, int(left / (a_token * tokens)))
