"""Texts as token ids with labels; a label of -100 is not trained on."""

from collections.abc import Sequence
from typing import Literal

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from sdm.llm.episode import Episode
from sdm.llm.schema import Schema
from sdm.llm.texts import TrainingText

IGNORED = -100
MOST_SYMBOLS = 100  # observations tried with a tokeniser: all digits are among them
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

    Raises:
        ValueError: if other actions than a text's own are wanted, and the tokeniser
            writes them in other numbers of tokens.

    """
    encoded = tokenizer([t.text for t in texts], return_offsets_mapping=True)
    labels = []
    for text, ids, offsets in zip(
        texts, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        spans = schema.action_spans(text.text)
        learned = list(ids)
        if text.wanted is not None:
            learned = _relabelled(tokenizer, schema, text, offsets, spans)
        everything = loss == "all"
        labels.append(_labels(learned, offsets, None if everything else spans))
    return Dataset.from_dict(
        {
            "input_ids": encoded["input_ids"],
            "labels": labels,
            "length": [len(ids) for ids in encoded["input_ids"]],
        }
    )


def _relabelled(
    tokenizer: PreTrainedTokenizerBase,
    schema: Schema,
    text: TrainingText,
    offsets: list[tuple[int, int]],
    spans: list[tuple[int, int]],
) -> list[int]:
    """The tokens that are to be learned, where they are not the text's own."""
    assert text.wanted is not None and len(text.wanted) == len(spans)
    parts, ignored, end = [], set(), 0
    for (start, stop), action in zip(spans, text.wanted, strict=True):
        own = text.text[start:stop]
        parts += [text.text[end:start], own]
        if action is None:
            ignored |= set(range(start, stop))
        else:
            parts[-1] = schema.answer(action).strip()
        end = stop
    written = tokenizer("".join([*parts, text.text[end:]]), return_offsets_mapping=True)
    if [tuple(x) for x in written["offset_mapping"]] != [tuple(x) for x in offsets]:
        raise ValueError(
            f"the base's tokeniser splits the schema `{schema.name}` in other places "
            "where another action stands: random episodes cannot be queries; choose "
            "another `--schema`, or `--queries optimal`"
        )
    return [
        IGNORED if ignored & set(range(start, stop)) else token
        for token, (start, stop) in zip(written["input_ids"], offsets, strict=True)
    ]


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, schema: Schema) -> None:
    """Raise `ValueError` unless a fast tokeniser has all that a schema writes.

    Some tokenisers make what they lack an unknown token; others leave it out.
    """
    contents = schema.contents
    actions, symbols = len(contents.actions), contents.observations
    rounds = range(max(10, actions, min(symbols, MOST_SYMBOLS)))
    levels = contents.levels
    episode = Episode(
        tuple(i % symbols for i in rounds),
        tuple(i % actions for i in rounds),
        # Rewards have digits and signs.
        tuple(levels[i % len(levels)] if levels else i / 100 - 0.05 for i in rounds),
    )
    text = schema.render(episode) + "\n" + schema.render(episode)
    encoded = tokenizer(text, return_offsets_mapping=True)
    covered = set()
    for token, (start, end) in zip(
        encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        if token != tokenizer.unk_token_id:
            covered |= set(range(start, end))
    for place, character in enumerate(text):
        if place not in covered and character != " ":  # part of the next token
            raise ValueError(
                f"the base's tokeniser has no token for {character!r}, which the "
                f"schema `{schema.name}` writes: choose another `--schema`, or another "
                "base"
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
