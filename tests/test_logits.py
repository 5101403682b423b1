"""Logits in single precision of models that compute in bfloat16."""

from functools import partial

import numpy as np
import pytest
import torch
from small_llama import small_llama
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM

from sdm.llm.cached_rows import CachedRows
from sdm.llm.logits import logits_of
from sdm.llm.whole_rows import WholeRows

VOCABULARY, TEXTS = 50, 60


@pytest.fixture
def model():
    """A model with three actions of large and similar logits, as trained ones have."""
    model = small_llama(0, VOCABULARY, width=32, factor=4)
    with torch.no_grad():
        weight = model.get_output_embeddings().weight
        weight[2:5] = 20 * weight[2] + 0.1 * weight[2:5]
    return model.bfloat16()


def last_hidden(model, ids):
    with torch.no_grad():
        found = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    return found.hidden_states[-1][0, -1].float()


@pytest.mark.parametrize("rows", [CachedRows, WholeRows])
def test_actions_do_not_tie_in_half_precision(model, rows):
    random = np.random.default_rng(0)
    texts = random.integers(2, VOCABULARY, (TEXTS, 12)).tolist()
    answers = [[[2], [3], [4]]] * TEXTS
    scores = rows(model, [[]] * TEXTS).score(texts, answers, range(TEXTS))
    weight = model.get_output_embeddings().weight.float()
    for text, found in zip(texts, scores, strict=True):
        wanted = (weight @ last_hidden(model, text)).log_softmax(-1)[2:5]
        # The hidden states are in bfloat16, in another order of summation.
        np.testing.assert_allclose(found, wanted.detach(), atol=0.2)
    with torch.no_grad():
        half = model(input_ids=torch.tensor(texts)).logits[:, -1, 2:5].float().numpy()
    ties = [sum(len(set(row)) < 3 for row in each.tolist()) for each in (half, scores)]
    assert ties[0] > 0 and ties[1] == 0


def test_the_head_is_multiplied_in_single_precision(model, monkeypatch):
    monkeypatch.setattr("sdm.llm.logits.TOGETHER", 7)  # parts of the vocabulary
    ids = [5, 6, 7, 8]
    for bias in (None, torch.linspace(-1, 1, VOCABULARY).bfloat16()):
        head = model.get_output_embeddings()
        head.bias = None if bias is None else nn.Parameter(bias)
        with torch.no_grad():
            found = logits_of(model, 1, input_ids=torch.tensor([ids]))[0, -1]
        wanted = head.weight.double() @ last_hidden(model, ids).double()
        wanted += 0 if bias is None else bias.double()
        # Single precision, in another order of summation.
        np.testing.assert_allclose(found, wanted.detach(), rtol=1e-5, atol=1e-5)
    with torch.no_grad():  # elsewhere, the model is as it was
        assert model(input_ids=torch.tensor([ids])).logits.dtype == torch.bfloat16


def test_a_model_changes_its_logits_afterwards():
    """Gemma-2 bounds them by 30 tanh(x / 30)."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        pad_token_id=0,
    )
    model = Gemma2ForCausalLM(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(100)
    model.bfloat16()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        plain = model(input_ids=ids).logits[0, -1].float()
        found = logits_of(model, 1, input_ids=ids)[0, -1]
    assert found.dtype == torch.float32 and 25 < found.abs().max() < 30
    np.testing.assert_allclose(found, plain, atol=0.25)  # of bfloat16 near 30


def test_single_precision_is_left_as_it_is(monkeypatch):
    model = small_llama(0, VOCABULARY, width=32, factor=4)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        plain = model(input_ids=ids).logits
        hooked = partial(monkeypatch.setattr, nn.Module, "register_forward_hook")
        hooked(lambda *_: pytest.fail("a hook in single precision"))
        assert torch.equal(logits_of(model, 0, input_ids=ids), plain)
