"""Small models of many architectures with random weights."""

from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
HEADS = {"intermediate_size": 64, "num_key_value_heads": 2}
EXPERTS = {"num_experts_per_tok": 1, "head_dim": 16}
GATED = {
    f"linear_{name}": 2 if name.startswith("num") else 8
    for name in ("key_head_dim", "value_head_dim", "num_key_heads", "num_value_heads")
}

# Configuration class and options. Windows are short, so that texts outgrow them.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 2}),
    "Mistral": ("MistralConfig", {**SIZE, **HEADS, "sliding_window": 48}),
    # Convolutions and recurrent states besides attention.
    "LFM2": (
        "Lfm2Config",
        {
            **SIZE,
            **HEADS,
            "layer_types": ["conv", "full_attention"],
            "block_auto_adjust_ff_dim": False,
        },
    ),
    "Qwen3-Next": (
        "Qwen3NextConfig",
        {
            **SIZE,
            **HEADS,
            **EXPERTS,
            **GATED,
            "layer_types": ["linear_attention", "full_attention"],
            "num_experts": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    # No attention.
    "Mamba": (
        "MambaConfig",
        {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    ),
    # Distances in columns of the cache, where padding counts.
    "MPT": ("MptConfig", {"d_model": 32, "n_heads": 2, "n_layers": 2}),
    "GPT-Neo": (
        "GPTNeoConfig",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 2,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 48,
        },
    ),
    "Llama-4": (
        "Llama4TextConfig",
        {
            **SIZE,
            **HEADS,
            **EXPERTS,
            "intermediate_size_mlp": 64,
            "num_local_experts": 2,
            "attention_chunk_size": 96,
            "layer_types": ["chunked_attention", "full_attention"],
            "no_rope_layers": [1, 0],
        },
    ),
}


def small_model(name: str, seed: int, vocabulary: int) -> PreTrainedModel:
    """Return a model with large random weights, so that its texts decide actions."""
    kind, options = MODELS[name]
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    config = getattr(transformers, kind)(vocab_size=vocabulary, **special, **options)
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.ndim == 2 else 1)
    return model
