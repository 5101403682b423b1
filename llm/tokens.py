"""Texts as token ids with labels; a label of -100 is not trained on."""

from collections.abc import Sequence
from itertools import pairwise

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from sdm.llm.recipes import Loss
from sdm.llm.sample_episodes import sample_episode
from sdm.llm.schema import Schema
from sdm.llm.texts import TrainingText

IGNORED = -100
Spans = Sequence[tuple[int, int]]


def tokenise(
    tokenizer: PreTrainedTokenizerBase,
    schema: Schema,
    texts: Sequence[TrainingText],
    *,
    loss: Loss,
) -> Dataset:
    """Return token ids, labels and lengths of every text.

    Args:
        tokenizer: a fast tokeniser, which tells the characters of each token.
        schema: which says where in a text the actions stand.
        texts: what to tokenise.
        loss: `all` labels every token but the first, which nothing precedes; `actions`
            those that share a character with an action, or, where the text of one
            action begins that of another, with the terminator that ends it.

    Raises:
        ValueError: if other actions than a text's own are wanted, and the tokeniser
            writes them in other numbers of tokens.

    """
    encoded = tokenizer([t.text for t in texts], return_offsets_mapping=True)
    more = len(schema.terminator) if _nested(schema) else 0
    labels = []
    for text, ids, offsets in zip(
        texts, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        ended = [(a, b + more) for a, b in schema.action_spans(text.text)]
        learned = list(ids)
        if text.wanted is not None:
            learned = _relabelled(tokenizer, schema, text, ids, offsets)
            places = zip(ended, text.wanted, strict=True)
            ignored = [span for span, action in places if action is None]
            for token in _tokens_in(offsets, ignored):
                learned[token] = IGNORED
        if loss == "actions":
            counted = _tokens_in(offsets, ended)
            for token in set(range(len(ids))) - counted:
                learned[token] = IGNORED
        labels.append(learned)
    return Dataset.from_dict(
        {
            "input_ids": encoded["input_ids"],
            "labels": labels,
            "length": [len(ids) for ids in encoded["input_ids"]],
        }
    )


def _nested(schema: Schema) -> bool:
    """Return whether the text of an action begins that of another."""
    answers = sorted(map(schema.answer, range(len(schema.contents.actions))))
    return any(other.startswith(one) for one, other in pairwise(answers))


def _tokens_in(offsets: Spans, spans: Spans) -> set[int]:
    """Return the tokens that share a character with a span; all are in order."""
    found, span = set(), 0
    for token, (start, end) in enumerate(offsets):
        while span < len(spans) and spans[span][1] <= start:
            span += 1
        if span < len(spans) and start < end and spans[span][0] < end:
            found.add(token)
    return found


def _relabelled(
    tokenizer: PreTrainedTokenizerBase,
    schema: Schema,
    text: TrainingText,
    ids: Sequence[int],
    offsets: Spans,
) -> list[int]:
    """Return the tokens to learn where they are not the text's own.

    Raises:
        ValueError: if another action takes another number of tokens, or changes others.

    """
    spans = schema.action_spans(text.text)
    assert text.wanted is not None and len(text.wanted) == len(spans)
    written, places, end = "", [], 0
    for (start, stop), action in zip(spans, text.wanted, strict=True):
        written += text.text[end:start]
        first, own = len(written), text.text[start:stop]
        written += own if action is None else schema.answer(action).strip()
        places.append((first, len(written)))
        end = stop
    other = tokenizer(written + text.text[end:], return_offsets_mapping=True)
    learned, inside = list(other["input_ids"]), _tokens_in(offsets, spans)
    alike = len(learned) == len(ids) and all(
        token in inside or mine == own
        for token, (mine, own) in enumerate(zip(learned, ids, strict=True))
    )
    if not alike or _tokens_in(other["offset_mapping"], places) != inside:
        raise ValueError(
            f"the base's tokeniser splits the schema `{schema.name}` in other places "
            "where another action stands: random episodes cannot be queries; choose "
            "another `--schema`, or `--queries optimal`"
        )
    return learned


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, schema: Schema) -> None:
    """Raise `ValueError` unless a fast tokeniser has all that a schema writes.

    Some tokenisers make what they lack an unknown token; others leave it out.
    """
    text = schema.render(sample_episode(schema))
    text = f"{text}\n{text}"
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
