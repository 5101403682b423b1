"""Bases of other architectures than Llama's: what is trained, and what is refused."""

import pytest
import torch
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from training_support import SMALL, quick, write_base, write_data
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from sdm.llm.bases import load_base
from sdm.llm.batching import ResumableTrainer
from sdm.llm.finetune import finetune
from sdm.llm.merge import merge
from sdm.llm.runs import load_run
from sdm.llm.training import prepare_model

# Of torch and transformers about themselves.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
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
