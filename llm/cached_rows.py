"""Rows of tokens that share the key-value cache of a language model.

`CachedRows` keeps one row per distinct text. Episodes with the same text so far share
a row, which is copied when their texts diverge, so the model reads the demonstrations
of a task once. Each stage feeds only new tokens. Rows may differ in length: padding,
and tokens that a later tokenization replaced, stay in the cache as masked columns, and
every token carries its own position. If attention has a window, these columns would
displace tokens from it, so a cache that outgrows the window is refused.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from transformers import DynamicCache

from sdm.llm.bases import CausalModel
from sdm.llm.context import ContextError, check_length
from sdm.llm.logits import logits_of
from sdm.llm.memory import memory_explained, memory_of
from sdm.llm.scoring import Tokens, shared_length

# Shares of the memory besides the weights that keys and values may use. These are
# copied layer by layer as they grow, and other programs use a computer's main memory.
SHARE_OF_GPU, SHARE_OF_COMPUTER = 0.5, 0.25
PROBE = 8  # tokens to read to measure the memory per token
FEWER = (
    "lower `--trajectories`, `--support` or the horizon, or pass `--schema compact` if "
    "the base was not fine-tuned in another schema"
)
# Options of models that limit attention to near tokens, and the layers that they limit.
WINDOWS = {
    "sliding_window": "sliding_attention",
    "attention_chunk_size": "chunked_attention",
    "window_size": "local",
}


class WindowError(ContextError):
    """A cache that is longer than the attention window of its model."""


class CachedRows:
    """Rows of tokens with the key-value cache of a causal language model."""

    @memory_explained(FEWER)
    def __init__(self, model: CausalModel, prefixes: Sequence[Tokens]) -> None:
        """Read each prefix; either all of them are empty, or none is."""
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
        """Return the log-probability of each row's candidates; feed only new tokens."""
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
        """Return the memory of the cache, in bytes."""
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
        """Mask the cached tokens in which a row's new text differs; count the rest."""
        fed = self.ids[row]
        # The last token is always fed, since its output is needed.
        count = min(shared_length(fed, target), len(target) - 1)
        for column in self.columns[row][count:]:
            self.mask[row, column] = 0
        del self.columns[row][count:]
        self.ids[row] = fed[:count]
        return count

    def _forward(
        self, new: Sequence[Tokens], start: Sequence[int], keep: torch.Tensor | int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Feed right-padded tokens; return logits at columns `keep`, and the mask."""
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
        logits = logits_of(
            self.model,
            keep,
            input_ids=block,
            attention_mask=torch.cat([self.mask, valid], dim=1),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        )
        return logits, valid

    def _check_window(self, width: int) -> None:
        """Raise `WindowError` if the cache outgrows the model's attention window."""
        window, columns = window_of(self.model), self.mask.shape[1] + width
        if window is not None and columns > window:
            raise WindowError(
                f"texts: must fit the model's attention window of {window} tokens, "
                f"found {columns} cache columns"
            )

    @torch.no_grad()
    def _feed(self, new: Sequence[Tokens], start: Sequence[int]) -> torch.Tensor:
        """Append tokens to rows; return log-probabilities after each row's last one."""
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
        """Return the log-probability of each row's candidate but its first token."""
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


def window_of(model: CausalModel) -> int | None:
    """Return how many tokens the attention of some layer reaches; None for all."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    kinds = kinds or getattr(config, "attention_layers", None)  # the name in GPT-Neo
    sizes = (
        getattr(config, option, None)
        for option, kind in WINDOWS.items()
        if kinds is None or kind in kinds
    )
    return min((size for size in sizes if size is not None), default=None)


def why_uncached(model: CausalModel) -> str | None:
    """Return why rows of a model cannot share a cache; None if they seem to.

    Padding, copied rows and removed tokens are possible with keys and values only.
    """
    layers = DynamicCache(config=model.config).layers
    if any(hasattr(layer, "recurrent_states") for layer in layers):
        return f"a {model.config.model_type} has states besides keys and values"
    if not CachedRows(model, [[0] * PROBE]).nbytes:
        return f"a {model.config.model_type} has no keys and values"
    return None


def rows_that_fit(model: CausalModel, tokens: int) -> int:
    """Return how many texts of `tokens` tokens fit the memory together, at least 1.

    The number depends on the total memory, not on the free memory, so that a machine
    forms the same groups in every run.
    """
    device = model.device
    share = SHARE_OF_GPU if device.type == "cuda" else SHARE_OF_COMPUTER
    left = share * (memory_of(device) - model.get_memory_footprint())
    a_token = CachedRows(model, [[0] * PROBE]).nbytes / PROBE
    return max(1, int(left / (a_token * tokens)))
