"""A small dataset, small bases and short configurations for tests of fine-tuning."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sdm.data.generation import write_oracle_dataset
from sdm.data.request import OracleConfig
from sdm.llm.recipes import recipe
from sdm.llm.tiny import tiny_tokenizer
from sdm.solvers_jax import EnergyFamily

# Warnings of torch, transformers and bitsandbytes about themselves.
QUIET = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*warn_only.*:UserWarning"),
]
SMALL = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}


def write_data(folder, *, tasks=24):
    """Write a dataset of energy tasks of 4 stages, and return its folder."""
    write_oracle_dataset(OracleConfig(EnergyFamily(), 4, tasks, 4, seed=1), folder)
    return folder


def write_base(folder, model=LlamaForCausalLM, config=None, tokenizer=None):
    """Write a small random base, as a user's own would be, and return its folder."""
    torch.manual_seed(0)
    model(config or LlamaConfig(**SMALL)).save_pretrained(folder)
    (tokenizer or tiny_tokenizer()).save_pretrained(folder)
    return str(folder)


def quick(data, base, **changes):
    """Return a short configuration."""
    options = {
        "schema": "compact",
        "texts_per_task": 2,
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 1e-3,
    }
    return recipe(str(data), base, **(options | changes))
