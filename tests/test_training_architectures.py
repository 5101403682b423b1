"""Bases of other architectures than Llama's: what is trained, and what is refused."""

import pytest
import torch
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from plain_schemas import ALL, COMPACT
from training_support import QUIET, SMALL, quick, write_base, write_data
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.evaluation.evaluate import evaluate
from sdm.llm.acting_check import CannotActError, check_acting
from sdm.llm.bases import load_base
from sdm.llm.batching import ResumableTrainer
from sdm.llm.finetune import finetune
from sdm.llm.merge import merge
from sdm.llm.runs import load_run
from sdm.llm.training import prepare_model
from sdm.solvers_jax import EnergyFamily

pytestmark = [
    *QUIET,
    # PEFT looks for experts among modules only, but they are parameters.
    pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning"),
]

FEW = {**SMALL, "num_key_value_heads": 2, "num_experts_per_tok": 2}
MIXTURES = {
    "mixtral": (MixtralForCausalLM, MixtralConfig(**FEW, num_local_experts=4)),
    "qwen3": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig(**FEW, num_experts=4, moe_intermediate_size=32),
    ),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("oracle") / "data")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_of_experts_is_trained_with_dropout(
    data, tmp_path, monkeypatch, name
):
    """In every layer but the experts, whose adapters PEFT allows no dropout."""
    base = write_base(tmp_path / "base", *MIXTURES[name])
    config = quick(data, base, epochs=1, learning_rate=1e-2)
    assert config.lora_dropout == 0.1
    model, _ = prepare_model(config)
    chances = {True: set(), False: set()}
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            dropout = layer.lora_dropout["default"]
            chances[isinstance(layer, ParamWrapper)].add(getattr(dropout, "p", 0.0))
    assert chances == {True: {0.0}, False: {0.1}}
    kept = {}

    class Keeping(ResumableTrainer):
        def train(self, **options):
            super().train(**options)
            state = self.model.state_dict()
            kept.update({name: p.clone() for name, p in state.items()})

    monkeypatch.setattr("sdm.llm.training.ResumableTrainer", Keeping)
    finetune(config, tmp_path / "run")
    run = load_run(tmp_path / "run")
    loaded = run.model.state_dict()
    assert loaded.keys() == kept.keys()
    for key, weight in kept.items():
        torch.testing.assert_close(loaded[key], weight, rtol=0, atol=0)
    merge(tmp_path / "run", tmp_path / "merged")
    merged, tokenizer = load_base(str(tmp_path / "merged"))
    ids = torch.tensor([tokenizer("3a4c")["input_ids"]])
    with torch.no_grad():
        wanted, found = run.model(ids).logits, merged(ids).logits
        plain = load_base(base)[0](ids).logits
    # The adapter's product is added before instead of after: single precision.
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    assert (plain - found).abs().max() > 0.01


STATES = MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2)
HYBRID = Lfm2Config(**FEW, layer_types=["conv", "full_attention"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "config"), [(MambaForCausalLM, STATES), (Lfm2ForCausalLM, HYBRID)]
)
@pytest.mark.filterwarnings("default:.*whole texts are read")
def test_a_base_without_a_usual_cache_is_trained_and_acts(
    data, tmp_path, model, config
):
    base = write_base(tmp_path / "base", model, config)
    options = {"epochs": 1, "lora_rank": 0, "tasks": 6}
    finetune(quick(data, base, **options), tmp_path / "run")
    bed = make_benchmark(EvaluationConfig(EnergyFamily(), 4, 2, 2))
    with pytest.warns(UserWarning, match="states besides keys and values"):
        (result,) = evaluate([str(tmp_path / "run")], bed)
    assert 0 <= result.invalid_mass <= 1


def test_a_base_that_cannot_act_is_refused_before_it_is_trained(
    data, base, tmp_path, monkeypatch
):
    def train(self, **options):
        raise AssertionError("trained")

    def fails(self, **options):
        raise RuntimeError("needs a kernel\nand more")

    monkeypatch.setattr(ResumableTrainer, "train", train)
    monkeypatch.setattr(LlamaForCausalLM, "forward", fails)
    words = r"base `.*`: a llama model can be trained, but .*: needs a kernel$"
    with pytest.raises(CannotActError, match=words) as caught:
        finetune(quick(data, base), tmp_path / "run")
    assert "predicts the next token" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_base_whose_probabilities_are_not_finite_is_refused(base):
    model, tokenizer = load_base(base)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(CannotActError, match="probabilities are not finite"):
        check_acting(base, model, tokenizer, COMPACT)


@pytest.mark.parametrize("quantize", ["none", "nf4"])
@pytest.mark.parametrize("name", ALL)
def test_acting_once_changes_nothing(base, name, quantize):
    """Neither weights, mode nor random numbers."""
    model, tokenizer = load_base(base, quantize=quantize)
    model.train()
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    state = torch.random.get_rng_state()
    check_acting(base, model, tokenizer, ALL[name])
    for layer in model.modules():
        packed = getattr(getattr(layer, "weight", None), "quant_state", None)
        assert not getattr(packed, "packing_format_for_cpu", False)
    assert model.training and torch.equal(torch.random.get_rng_state(), state)
    for key, weight in model.state_dict().items():
        assert torch.equal(weight, before[key])


def test_a_base_with_learned_positions_can_act(tmp_path):
    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2)
    base = write_base(tmp_path / "base", GPT2LMHeadModel, config)
    check_acting(base, *load_base(base), COMPACT)
