"""Base models: the tiny one, the embedded one, and what is said when there is none."""

import pytest
import torch
from plain_schemas import ALL

from sdm.llm.bases import load_base, smollm2_folder
from sdm.llm.episode import Episode
from sdm.llm.tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_the_tiny_tokeniser_knows_every_character_of_every_schema():
    tokenizer = tiny_tokenizer()
    episode = Episode((13, 4), (0, 25), (-0.05, 12.44))
    for schema in ALL.values():
        text = schema.render(episode) + "\n"
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids and len(ids) == len(text)
        assert tokenizer.decode(ids) == text


def test_the_tiny_model_is_small_and_decided_by_its_seed():
    first, again, other = (tiny_model(seed).state_dict() for seed in (0, 0, 1))
    assert 0.7e6 < sum(p.numel() for p in tiny_model(0).parameters()) < 0.9e6
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_loading_a_base_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    tiny_model(0)
    assert torch.equal(torch.rand(1), wanted)


@pytest.fixture(scope="module")
def smollm2():
    """The model, its tokeniser, and when its converted weights were written."""
    before = (smollm2_folder() / "model.safetensors").stat().st_mtime_ns
    return *load_base("smollm2"), before


def test_smollm2_is_converted_once_and_splits_digits(smollm2):
    folder = smollm2_folder()
    model, tokenizer, before = smollm2
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("<A_1> 2, 13a4")["input_ids"])
    assert tokens == ["<", "A", "_", "1", ">", "Ġ", "2", ",", "Ġ", "1", "3", "a", "4"]


def test_smollm2_holds_pretrained_weights(smollm2):
    """It continues English far better than chance, as random weights would not."""
    model, tokenizer, _ = smollm2
    ids = torch.tensor([tokenizer("The capital of France is")["input_ids"]])
    with torch.no_grad():
        best = model(input_ids=ids).logits[0, -1].argmax()
    assert tokenizer.decode(best) == " Paris"
