"""Cached, incremental scores equal scores of whole texts, whatever the tokeniser."""

import numpy as np
import pytest
import torch
from plain_schemas import ALL, PAPER
from small_llama import small_llama
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from sdm.llm.cache_check import RowsInWindow
from sdm.llm.cached_rows import CachedRows, rows_that_fit, why_uncached
from sdm.llm.context import ContextError
from sdm.llm.episode import Episode, render_prompt
from sdm.llm.memory import OutOfMemoryError
from sdm.llm.policy import LanguageModelPolicy
from sdm.llm.scoring import encode, needs_terminator, split_candidates
from sdm.llm.tiny import tiny_tokenizer
from sdm.llm.tokens import splits_characters
from sdm.llm.whole_rows import WholeRows


def bpe(pre, decoder):
    """A trained BPE tokeniser that merges digits, names and punctuation freely."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre, decoder
    random = np.random.default_rng(0)
    texts = [
        PAPER.render(Episode(tuple(o), tuple(a), tuple(r)))
        for o, a, r in zip(
            random.integers(0, 100, (200, 6)).tolist(),
            random.integers(0, 12, (200, 6)).tolist(),
            random.uniform(-1, 1, (200, 6)).tolist(),
            strict=True,
        )
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>"
    )


TOKENIZERS = {
    "characters": tiny_tokenizer,
    "byte-level": lambda: bpe(
        pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    ),
    "sentencepiece-like": lambda: bpe(pre_tokenizers.Metaspace(), decoders.Metaspace()),
}


@pytest.fixture(scope="module")
def model():
    return small_llama(0, 512, width=32, factor=4, num_key_value_heads=2)


def score_from_scratch(model, tokenizer, context, answers):
    """Log-probability of each answer, one whole text at a time, without a cache."""
    encoded = encode(tokenizer, [context + answer for answer in answers])
    shared, suffixes = split_candidates(encoded)
    scores = []
    for suffix in suffixes:
        ids = torch.tensor([shared + suffix])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0].log_softmax(-1)
        places = range(len(shared), len(shared) + len(suffix))
        scores.append(sum(float(logits[i - 1, ids[0, i]]) for i in places))
    return scores


def play(random, length, actions):
    return Episode(
        tuple(random.integers(0, 100, length + 1).tolist()),
        tuple(random.integers(0, actions, length).tolist()),
        tuple(random.uniform(-1, 1, length).tolist()),
    )


@pytest.mark.parametrize("schema", ALL.values(), ids=ALL)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_candidates_have_the_tokens_of_whole_texts(name, schema):
    tokenizer, random = TOKENIZERS[name](), np.random.default_rng(3)
    actions = len(schema.contents.actions)
    policy = LanguageModelPolicy(WholeRows, tokenizer, schema, [[]], actions)
    contexts = []
    for length in range(4):
        observed = tuple(random.integers(0, 10, length + 1).tolist())
        done = tuple(random.integers(0, actions, length).tolist())
        shown = Episode(observed, done, (0.0,) * length)
        contexts.append(render_prompt(schema, [], shown))
    answers = [schema.answer(action) for action in range(actions)]
    if needs_terminator(tokenizer, contexts[0], answers, schema.terminator):
        answers = [answer + schema.terminator for answer in answers]
    whole = [encode(tokenizer, [text + x for x in answers]) for text in contexts]
    shared, left = policy.candidates(contexts)
    found = [
        [start + end for end in ends] for start, ends in zip(shared, left, strict=True)
    ]
    assert found == whole
    assert all(len({end[0] for end in ends}) > 1 for ends in left)


def test_only_tokenizers_without_context_split_characters():
    assert splits_characters(tiny_tokenizer())
    assert not splits_characters(TOKENIZERS["byte-level"]())
    lower, marked = tiny_tokenizer(), tiny_tokenizer()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert not splits_characters(lower)
    marked.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<unk> $A", special_tokens=[("<unk>", 1)]
    )
    assert not splits_characters(marked)


def complete(episode):
    return Episode(episode.observations[:-1], episode.actions, episode.rewards)


@pytest.mark.parametrize(("support", "actions"), [(0, 3), (2, 12)])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_cached_scores_equal_scores_from_scratch(model, name, actions, support):
    """Ragged rows, several tokens an action, and merges across stages included."""
    tokenizer, random = TOKENIZERS[name](), np.random.default_rng(support)
    shown = [
        [complete(play(random, 2, actions)) for _ in range(support)] for _ in range(2)
    ]
    queries = [play(random, 3, actions) for _ in range(4)]
    prefixes = ["".join(PAPER.render(e) + "\n" for e in task) for task in shown]
    rows = CachedRows(model, encode(tokenizer, prefixes))
    parents = [0, 0, 1, 1]  # of the first stage; then each goes on from itself
    for t in range(3):
        contexts = [
            render_prompt(
                PAPER,
                shown[i // 2],
                Episode(q.observations[: t + 1], q.actions[:t], q.rewards[:t]),
            )
            for i, q in enumerate(queries)
        ]
        answers = [PAPER.answer(a) for a in range(actions)]
        if needs_terminator(tokenizer, contexts[0], answers, PAPER.terminator):
            answers = [a + PAPER.terminator for a in answers]
        encoded = [encode(tokenizer, [c + a for a in answers]) for c in contexts]
        split = [split_candidates(e) for e in encoded]
        scores = rows.score([s for s, _ in split], [left for _, left in split], parents)
        parents = list(range(4))
        wanted = [score_from_scratch(model, tokenizer, c, answers) for c in contexts]
        # float32 through two layers, in another order of summation.
        np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-4)
        assert np.ptp(wanted) > 0.1  # the scores do differ


def test_texts_that_a_window_cuts_are_refused():
    """Padding in the cache would push tokens out of the window."""
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0}
    config = MistralConfig(vocab_size=50, sliding_window=6, **small, **heads)
    torch.manual_seed(0)
    window = MistralForCausalLM(config).eval()
    rows = CachedRows(window, [[1, 2, 3]])
    found = rows.score([[1, 2, 3, 4]], [[[5], [6]]], [0])
    with torch.no_grad():
        ids = torch.tensor([[1, 2, 3, 4]])
        wanted = window(input_ids=ids).logits[0, -1].log_softmax(-1)[[5, 6]]
    # Single precision, in another order of summation.
    np.testing.assert_allclose(found[0], wanted, atol=1e-5)
    with pytest.raises(
        ContextError, match=r"window of 6 tokens, found 7 cache columns"
    ):
        rows.score([[1, 2, 3, 4, 7, 8, 9]], [[[5], [6]]], [0])
    # Where it matters, whole texts are read from there on.
    rows, longer = RowsInWindow(window, [[1, 2, 3]]), [[1, 2, 3, 4, 7, 8, 9]]
    np.testing.assert_array_equal(rows.score([[1, 2, 3, 4]], [[[5], [6]]], [0]), found)
    with pytest.warns(UserWarning, match=r"window of 6 .*: whole texts are read"):
        scores = rows.score(longer, [[[5], [6]]], [0])
    wanted = score_ids(window, longer[0])[[5, 6]]
    np.testing.assert_allclose(scores[0], wanted, atol=1e-5)
    with pytest.warns(UserWarning, match="found 7 cache columns"):
        scores = RowsInWindow(window, longer).score(longer, [[[5], [6]]], [0])
    np.testing.assert_allclose(scores[0], wanted, atol=1e-5)
    full = Qwen2Config(
        vocab_size=50, sliding_window=2, use_sliding_window=False, **small, **heads
    )
    CachedRows(Qwen2ForCausalLM(full).eval(), [[1, 2, 3]])


def test_a_later_tokenisation_may_replace_tokens_that_were_fed(model):
    rows, fresh = CachedRows(model, [[5, 6, 7]]), CachedRows(model, [[5, 6, 7]])
    rows.score([[5, 6, 7, 8, 9]], [[[1], [2]]], [0])
    replaced = rows.score([[5, 6, 10, 11, 12]], [[[1], [2]]], [0])
    wanted = fresh.score([[5, 6, 10, 11, 12]], [[[1], [2]]], [0])
    alone = score_ids(model, [5, 6, 10, 11, 12])[[1, 2]]
    for scores in (replaced, wanted):  # float32, in another order of summation
        np.testing.assert_allclose(scores[0], alone, rtol=1e-4, atol=1e-4)


def score_ids(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)


def test_terminators_are_needed_where_one_answer_begins_another():
    tokenizer = tiny_tokenizer()
    few, many = ([PAPER.answer(a) for a in range(n)] for n in (3, 11))
    assert not needs_terminator(tokenizer, "<A_1>", few, ",")
    assert needs_terminator(tokenizer, "<A_1>", many, ",")
    assert not needs_terminator(tokenizer, "3", ["a", "b"], "")


def test_terminators_are_needed_where_the_tokeniser_merges_them():
    """After training on texts full of `1, <R`, ` 1,` is made of other tokens."""
    vocabulary = {t: i for i, t in enumerate(["<unk>", "x", "1", "2", ",", "1,"])}
    merged = Tokenizer(models.BPE(vocabulary, [("1", ",")], unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=merged, unk_token="<unk>")
    assert needs_terminator(tokenizer, "x", ["1", "2"], ",")
    assert not needs_terminator(tokenizer, "x", ["1", "2"], "x")


@pytest.mark.parametrize("together", [1, 12, 4096])
def test_whole_texts_are_scored_in_batches_of_any_size(model, monkeypatch, together):
    """With candidates of several tokens, one of which begins another's text."""
    monkeypatch.setattr("sdm.llm.whole_rows.TOKENS_TOGETHER", together)
    targets = [[5, 6, 7], [8, 9], [5, 6], [5, 6, 7]]
    suffixes = [
        [[1], [2, 3]],
        [[4, 5, 6], [1]],
        [[7, 1], [7, 2, 3]],
        [[2, 3], [1]],
    ]
    scores = WholeRows(model).score(targets, suffixes, range(4))
    for target, row, found in zip(targets, suffixes, scores, strict=True):
        for suffix, score in zip(row, found, strict=True):
            wanted = sum(
                float(score_ids(model, target + suffix[:i])[token])
                for i, token in enumerate(suffix)
            )
            # float32, in another order of summation.
            np.testing.assert_allclose(score, wanted, rtol=1e-4, atol=1e-4)


def test_rows_part_where_their_texts_do(model):
    """Also where one goes on from another's row, ragged, or ends."""
    rows = CachedRows(model, [[5, 6, 7], [8, 9]])
    answers = [[1], [2]]
    stages = [
        ([[5, 6, 7, 3], [8, 9, 3, 4]], [0, 1]),
        ([[5, 6, 7, 3, 4], [5, 6, 7, 3, 10, 11], [8, 9, 3, 4, 12]], [0, 0, 1]),
        ([[8, 9, 3, 4, 12, 5], [5, 6, 7, 3, 10, 13], [8, 9, 3, 4, 12, 6]], [2, 1, 2]),
    ]
    for targets, parents in stages:
        scores = rows.score(targets, [answers] * len(targets), parents)
        wanted = [score_ids(model, target)[[1, 2]] for target in targets]
        # float32, in another order of summation.
        np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-4)


def test_a_prefix_is_encoded_once_for_all_rows_of_its_task(model):
    fed = []
    handle = model.register_forward_pre_hook(
        lambda _, args, kwargs: fed.append(tuple(kwargs["input_ids"].shape)),
        with_kwargs=True,
    )
    rows = CachedRows(model, [[5, 6, 7, 8], [9, 10, 11, 12]])
    prefix = [[5, 6, 7, 8]] * 10 + [[9, 10, 11, 12]] * 10
    parents = [0] * 10 + [1] * 10
    rows.score([[*ids, 3] for ids in prefix], [[[1], [2]]] * 20, parents)
    rows.score([[*ids, 3, 4] for ids in prefix], [[[1], [2]]] * 20, range(20))
    handle.remove()
    assert fed == [(2, 4), (20, 1), (20, 1)]


def test_a_text_longer_than_the_model_reads_is_refused(model):
    with pytest.raises(ContextError, match="context of 2048 tokens, found 2049"):
        CachedRows(model, [[1] * 2049])
    rows = CachedRows(model, [[]])
    with pytest.raises(ContextError, match="found 2049"):
        rows.score([[1] * 2048], [[[1], [2]]], [0])


# Keys and values of 2 layers, 2 of 4 heads of a width of 32, in float32.
BYTES_OF_A_TOKEN = 2 * 2 * 2 * 8 * 4


@pytest.mark.parametrize(("share", "rows"), [(0.25, 30), (0.1, 12), (1e-9, 1)])
def test_as_many_rows_grow_together_as_fit_the_memory(model, monkeypatch, share, rows):
    """For 30 rows of 100 tokens in a quarter of what the weights leave."""
    room = 4 * 30 * 100 * BYTES_OF_A_TOKEN + model.get_memory_footprint()
    monkeypatch.setattr("sdm.llm.cached_rows.memory_of", lambda device: room)
    monkeypatch.setattr("sdm.llm.cached_rows.SHARE_OF_COMPUTER", share)
    assert rows_that_fit(model, 100) == rows
    held = CachedRows(model, [[5] * 100] * 30)
    assert held.nbytes == 30 * 100 * BYTES_OF_A_TOKEN


def test_acting_that_runs_out_of_memory_says_what_to_lower(model, monkeypatch):
    rows = CachedRows(model, [[5, 6]])

    def full(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")

    monkeypatch.setattr(model, "forward", full)
    for act in (
        lambda: CachedRows(model, [[5]]),
        lambda: rows.score([[5, 6, 7]], [[[1], [2]]], [0]),
    ):
        with pytest.raises(OutOfMemoryError, match="Tried to allocate 9 GiB") as error:
            act()
        assert "--trajectories" in error.value.hint


def test_a_model_without_keys_and_values_has_no_cache(model, monkeypatch):
    assert why_uncached(model) is None
    monkeypatch.setattr(CachedRows, "nbytes", 0)
    assert why_uncached(model) == "a llama has no keys and values"
