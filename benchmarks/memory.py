"""Estimate of the GPU memory for fine-tuning Llama-2-7B, computed on a CPU.

Prints Markdown. The script prepares a Llama of one eighth of the width as `sdm
finetune` does, and adds up the tensors that its layers keep per token for the backward
pass. That number is proportional to the width and to the number of layers. It then adds
weights, the layer that checkpointing recomputes, and logits with their float32
gradients. A validation step, of as many texts, holds logits without gradients, keys and
values, and one layer; the estimate is the larger of the two steps. Memory that PyTorch
reserves beyond its tensors is not included; `benchmarks/gpu.py` measures memory on a
GPU.
"""

import tempfile
from pathlib import Path
from unittest.mock import patch

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sdm.llm.bases import load_tokenizer
from sdm.llm.episode import Episode, render_prompt
from sdm.llm.recipes import FinetuneConfig, recipe
from sdm.llm.schema import make_schema
from sdm.llm.scoring import encode
from sdm.llm.tiny import tiny_tokenizer
from sdm.llm.training import prepare_model
from sdm.solvers_jax import EnergyFamily

WIDTH, MLP, LAYERS, VOCABULARY = 4096, 11_008, 32, 32_000
NARROW = 8
WEIGHTS = 5.0  # GiB: NF4, embeddings in float32, adapters and their AdamW
TEXTS, LENGTH = 16, 256  # large, so that cast weights are a negligible part
LOGITS = 2 + 4 * 4  # bytes: one bfloat16 and four float32 copies, loss and gradient
LOGITS_READ = 2 + 4 * 2  # bytes: one bfloat16 and two float32 copies, no gradient
KEYS = 2 * 2 * WIDTH * LAYERS  # bytes: keys and values in bfloat16


def dropout_of_a_gpu(
    x: torch.Tensor, p: float, training: bool, inplace: bool
) -> torch.Tensor:
    """Apply dropout as a GPU does, with a mask of one byte per number, not four."""
    return torch.native_dropout(x, p, training)[0]


def kept(layers: int, *, checkpointing: bool) -> float:
    """Return the bytes per token that a narrow model of `layers` layers keeps."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=WIDTH // NARROW,
        intermediate_size=MLP // NARROW,
        num_hidden_layers=layers,
        num_attention_heads=4,
        pad_token_id=0,
    )
    with tempfile.TemporaryDirectory() as place:
        LlamaForCausalLM(config).save_pretrained(place)
        tiny_tokenizer().save_pretrained(place)
        model, _ = prepare_model(FinetuneConfig("", str(Path(place)), quantize="nf4"))
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}

    def weigh(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(0, 64, (TEXTS, LENGTH))
    with (
        patch("torch.nn.functional.dropout", dropout_of_a_gpu),
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor),
    ):
        loss = model(input_ids=ids, labels=ids).loss
    assert loss.requires_grad
    return sum(found.values()) / ids.numel()


def tokens_of_a_text(horizon: int) -> int:
    """Return the tokens of a text in the schema `paper` with two demonstrations."""
    episode = Episode((5,) * horizon, (0,) * horizon, (0.56,) * horizon)
    schema = make_schema("paper", EnergyFamily().spaces, "mdp", rewards=True)
    text = render_prompt(schema, [episode] * 2, episode)
    return len(encode(load_tokenizer("smollm2"), [text])[0])


def main() -> None:
    """Estimate and print the table."""
    a_layer = {
        on: NARROW * (kept(3, checkpointing=on) - kept(1, checkpointing=on)) / 2
        for on in (False, True)
    }
    share = recipe("", "meta-llama/Llama-2-7b-hf")
    print("| T | tokens per text | micro-batch | checkpointing | GiB, estimated |")
    print("|---|---|---|---|---|")
    for horizon in (10, 20, 30):
        length = tokens_of_a_text(horizon)
        for texts, on in (
            (share.batch_size // share.accumulate, True),
            (share.batch_size // share.accumulate, False),
            (1, False),
        ):
            # Checkpointing recomputes one layer at a time, which needs full memory.
            step = LAYERS * a_layer[on] + on * a_layer[False] + LOGITS * VOCABULARY
            validation = a_layer[False] + KEYS + LOGITS_READ * VOCABULARY
            total = WEIGHTS + texts * length * max(step, validation) / 2**30
            said = "yes" if on else "no"
            print(f"| {horizon} | {length:,} | {texts} | {said} | {total:.0f} |")


if __name__ == "__main__":
    main()
