"""The base `tiny`: a randomly initialised Llama, and its tokenizer of characters."""

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sdm.llm.devices import move
from sdm.llm.schemas.compact import LETTERS

TINY_CHARACTERS = "\n0123456789" + LETTERS + "<>_, .-OAR"


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of the characters that `compact` and `paper` write."""
    vocabulary = {c: i for i, c in enumerate(["<pad>", "<unk>", *TINY_CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>"
    )


def tiny_model(
    seed: int, *, initializer_range: float | None = None
) -> LlamaForCausalLM:
    """Return a Llama of 0.8 M random parameters: 4 layers of width 128.

    Args:
        seed: random seed of the weights.
        initializer_range: their standard deviation; None for that of Llama, 0.02.

    """
    if initializer_range is None:
        initializer_range = LlamaConfig().initializer_range
    config = LlamaConfig(
        vocab_size=len(TINY_CHARACTERS) + 2,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=8192,
        initializer_range=initializer_range,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    # Weights are drawn on the CPU; without `devices`, every visible GPU is initialized.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = LlamaForCausalLM(config)
    move(model)
    return model
