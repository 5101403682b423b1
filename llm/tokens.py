"""Texts as token ids with labels; a label of -100 is not trained on."""

from collections.abc import Sequence
from typing import Literal

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from sdm.llm.serialize import Schema
from sdm.llm.texts import TrainingText

IGNORED = -100
Loss = Literal["all", "actions"]


def tokenise(
    tokenizer: PreTrainedTokenizerBase,
    schema: Schema,
    texts: Sequence[TrainingText],
    *,
    loss: Loss,
) -> Dataset:
    """Token ids, labels and lengths of every text.

    Args:
        tokenizer: a fast tokeniser, which tells the characters of each token.
        schema: which says where in a text the actions stand.
        texts: what to tokenise.
        loss: `all` labels every token but the first, which nothing precedes; `actions`
            those that share a character with an action.

    """
    encoded = tokenizer([t.text for t in texts], return_offsets_mapping=True)
    labels = []
    for text, ids, offsets in zip(
        texts, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        spans = schema.action_spans(text.text) if loss == "actions" else None
        labels.append(_labels(ids, offsets, spans))
    return Dataset.from_dict(
        {
            "input_ids": encoded["input_ids"],
            "labels": labels,
            "length": [len(ids) for ids in encoded["input_ids"]],
        }
    )


def _labels(
    ids: list[int],
    offsets: list[tuple[int, int]],
    spans: list[tuple[int, int]] | None,
) -> list[int]:
    """Labels of one text; `spans`, in order, are the characters to train on."""
    if spans is None:
        return list(ids)
    labels, span = [], 0
    for token, (start, end) in zip(ids, offsets, strict=True):
        while span < len(spans) and spans[span][1] <= start:
            span += 1
        inside = span < len(spans) and start < end and spans[span][0] < end
        labels.append(token if inside else IGNORED)
    return labels
