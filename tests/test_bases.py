"""Base models: the tiny one, the embedded one, and what is said when there is none."""

import pytest
import torch
from plain_schemas import ALL

from sdm.llm.base_names import UnknownBaseError, check_base_name
from sdm.llm.bases import BaseModelError, load_base, smollm2_folder
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
    wider, _ = load_base("tiny", initializer_range=0.088)
    for found, wanted in ((first, 0.02), (wider.state_dict(), 0.088)):
        # Of 44,000 numbers: the relative error of a deviation is 0.3 %.
        assert found[name].std().item() == pytest.approx(wanted, rel=0.02)


def test_loading_a_base_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    tiny_model(0)
    assert torch.equal(torch.rand(1), wanted)


@pytest.mark.parametrize("name", ["gpt2", "distilgpt2", "owner/model", "openai-gpt"])
def test_an_id_with_or_without_an_owner_can_be_a_base(name):
    check_base_name(name)


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("smolm2", "smollm2"),
        ("SmolLM2", "smollm2"),
        ("tinny", "tiny"),
        ("Tiny", "tiny"),
    ],
)
def test_a_misspelt_base_is_named(name, close):
    with pytest.raises(UnknownBaseError, match=f"unknown base `{name}`") as caught:
        check_base_name(name)
    assert caught.value.hint.startswith(f"did you mean `{close}`?")


@pytest.mark.parametrize("name", ["", "a/b/c", "./gone", "two words", "../up"])
def test_a_name_that_no_base_can_have_is_refused(name):
    with pytest.raises(UnknownBaseError) as caught:
        check_base_name(name)
    assert caught.value.hint.startswith("choose `smollm2`")


def test_an_unknown_id_is_refused_when_it_is_loaded():
    with pytest.raises(BaseModelError, match="cannot load the base `foo`") as caught:
        load_base("foo")
    assert "`foo`: no folder of this name in " in str(caught.value)


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
