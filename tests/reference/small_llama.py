"""Small Llama models with large random weights, so that their texts decide actions."""

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def small_llama(
    seed: int, vocabulary: int, width: int, factor: float, **options: Any
) -> LlamaForCausalLM:
    """Return a model of two layers whose matrices are `factor` times the usual ones."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=0,
        **options,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor if parameter.ndim > 1 else 1)
    return model
