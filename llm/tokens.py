"""Tokenization of texts, and of training texts with labels; the loss ignores -100.

Some tokenizers append a token to every text, such as an end of sequence. In training
and in acting, a text goes on after its last token, so these tokens are cut off.
"""

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
Tokens = list[int]


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Tokens]:
    """Return the token ids of every text, special tokens in front included."""
    if not texts:
        return []
    end = appended(tokenizer)
    return [ids[: len(ids) - end] for ids in tokenizer(list(texts))["input_ids"]]


def encode_with_spans(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> tuple[list[Tokens], list[Spans]]:
    """Return the token ids of every text, and the character range of each token."""
    encoded = tokenizer(list(texts), return_offsets_mapping=True)
    end = appended(tokenizer)
    ids, spans = (
        [row[: len(row) - end] for row in encoded[name]]
        for name in ("input_ids", "offset_mapping")
    )
    return ids, spans


def appended(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the number of tokens that the tokenizer appends to every text."""
    mask = tokenizer("0", return_special_tokens_mask=True)["special_tokens_mask"]
    return next((i for i, special in enumerate(reversed(mask)) if not special), 0)


def splits_characters(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether every character is a token, whatever is around it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.normalizer or tokenizer.num_special_tokens_to_add():
        return False
    special = set(tokenizer.all_special_tokens)
    return all(len(token) == 1 or token in special for token in tokenizer.get_vocab())


def tokenise(
    tokenizer: PreTrainedTokenizerBase,
    schema: Schema,
    texts: Sequence[TrainingText],
    *,
    loss: Loss,
) -> Dataset:
    """Return the token ids, labels and length of every text.

    Args:
        tokenizer: a fast tokenizer, which gives the character range of each token.
        schema: text schema, which locates the actions in a text.
        texts: texts to tokenize.
        loss: `all` labels every token except the first, which has no context;
            `actions` labels the tokens that overlap an action and, if the text of one
            action is a prefix of another's, the terminator after it.

    Returns:
        A data set with the columns `input_ids`, `labels` and `length`.

    Raises:
        ValueError: if labels differ from a text's own actions, and the tokenizer splits
            the text with these actions in other places.

    """
    encoded, spans = encode_with_spans(tokenizer, [t.text for t in texts])
    more = len(schema.terminator) if _nested(schema) else 0
    labels = []
    for text, ids, offsets in zip(texts, encoded, spans, strict=True):
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
            "input_ids": encoded,
            "labels": labels,
            "length": [len(ids) for ids in encoded],
        }
    )


def _nested(schema: Schema) -> bool:
    """Return whether the text of one action is a prefix of another's."""
    answers = sorted(map(schema.answer, range(len(schema.contents.actions))))
    return any(other.startswith(one) for one, other in pairwise(answers))


def _tokens_in(offsets: Spans, spans: Spans) -> set[int]:
    """Return the tokens that overlap a span; tokens and spans are in text order."""
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
    """Return the labels of a text with the actions `text.wanted`.

    Raises:
        ValueError: if these actions change the number of tokens, or other tokens.

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
    (learned,), (others,) = encode_with_spans(tokenizer, [written + text.text[end:]])
    inside = _tokens_in(offsets, spans)
    alike = len(learned) == len(ids) and all(
        token in inside or mine == own
        for token, (mine, own) in enumerate(zip(learned, ids, strict=True))
    )
    if not alike or _tokens_in(others, places) != inside:
        raise ValueError(
            f"schema `{schema.name}`: random episodes cannot be queries, since the "
            "base's tokenizer splits the text of the oracle's actions in other places: "
            "pass another `--schema`, or `--queries optimal`"
        )
    return learned


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, schema: Schema) -> None:
    """Raise `ValueError` unless a fast tokenizer covers a schema's characters.

    Some tokenizers replace other characters by the unknown token; some drop them.
    """
    text = schema.render(sample_episode(schema))
    text = f"{text}\n{text}"
    (encoded,), (spans,) = encode_with_spans(tokenizer, [text])
    covered = set()
    for token, (start, end) in zip(encoded, spans, strict=True):
        if token != tokenizer.unk_token_id:
            covered |= set(range(start, end))
    for place, character in enumerate(text):
        if place not in covered and character != " ":  # the next token may include it
            raise ValueError(
                f"the base's tokenizer has no token for {character!r}, which the "
                f"schema `{schema.name}` writes: choose another `--schema`, or another "
                "base"
            )
