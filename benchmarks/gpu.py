"""Benchmark of fine-tuning a model the size of Llama-2-7B, and of acting, on a GPU.

Prints Markdown. Training: tokens per second, model FLOP utilisation (MFU) and peak
memory of `sdm finetune` on a base with random weights (`--shape llama-2-7b`). LoRA runs
on 4-bit weights (QLoRA) and on bfloat16 weights, each with gradient checkpointing and
two micro-batches per step, as in the recipe, and without checkpointing, one text per
micro-batch. A profile shows the kernels of one step. Random weights change what a model
learns, not its speed or memory. Acting: 100 tasks × 30 episodes × T = 20 with SmolLM2.

A token costs 4 floating-point operations per weight: forward, and backward through the
base without gradients of its weights. Attention is added. MFU is the resulting rate
over `--peak`, the dense bfloat16 rate of the accelerator; the default, 989e12, is that
of an H100 or H200. `--shape small` tests the benchmark on a CPU.
"""

import argparse
import gc
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.data.generation import write_oracle_dataset
from sdm.data.request import OracleConfig
from sdm.evaluation.evaluate import evaluate
from sdm.llm.bases import load_tokenizer
from sdm.llm.devices import compute_dtype, device
from sdm.llm.finetune import finetune
from sdm.llm.recipes import FinetuneConfig
from sdm.llm.tiny import tiny_tokenizer
from sdm.llm.training import prepare_model
from sdm.solvers_jax import EnergyFamily
from sdm.storage.provenance import provenance

SHAPES: dict[str, dict[str, Any]] = {
    "llama-2-7b": {
        "vocab_size": 49_152,  # of SmolLM2, whose tokeniser replaces that of Llama-2
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "small": {
        "vocab_size": 64,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
}


def random_base(shape: str, folder: Path) -> None:
    """Write a Llama of this shape with random weights, and a tokeniser."""
    with torch.device(device()):
        before = torch.get_default_dtype()
        torch.set_default_dtype(compute_dtype())
        model = LlamaForCausalLM(
            LlamaConfig(**SHAPES[shape], max_position_embeddings=4096, pad_token_id=0)
        )
        torch.set_default_dtype(before)
    model.save_pretrained(folder)
    small = shape == "small"
    (tiny_tokenizer() if small else load_tokenizer("smollm2")).save_pretrained(folder)


def flops_per_token(shape: dict[str, int], length: float) -> float:
    """Return the floating-point operations per token of a text of `length` tokens."""
    width, layers = shape["hidden_size"], shape["num_hidden_layers"]
    weights = layers * (4 * width**2 + 3 * width * shape["intermediate_size"])
    weights += width * shape["vocab_size"]
    attention = layers * 2 * width * length / 2  # causal: half of the positions
    # Attention needs gradients of both factors, as neither of them is a frozen weight.
    return 4 * weights + 6 * attention


def train(
    base: Path,
    data: Path,
    shape: str,
    quantize: str | None,
    batch: int,
    peak: float,
    *,
    checkpointing: bool,
) -> None:
    """Fine-tune once and print a row of the table."""
    ends: list[float] = []
    config = FinetuneConfig(
        str(data),
        str(base),
        texts_per_task=8,
        epochs=1,
        batch_size=batch,
        accumulate=math.gcd(2, batch) if checkpointing else batch,
        gradient_checkpointing=checkpointing,
        quantize="nf4" if quantize else "none",
    )
    gc.collect()  # frees the reference cycles of the previous run
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as place:
        report = finetune(
            config,
            Path(place) / "run",
            progress=lambda step, steps: ends.append(time.perf_counter()),
        )
    half = len(ends) // 2  # the first half is the warm-up
    tokens = report.tokens_per_second * report.seconds / report.steps
    rate = tokens * (len(ends) - 1 - half) / (ends[-1] - ends[half])
    cost = flops_per_token(SHAPES[shape], tokens / batch)
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    print(
        f"| {quantize or 'bf16'} | {'yes' if checkpointing else 'no'} | "
        f"{batch // config.accumulate} | {tokens / batch:.0f} | {rate:.0f} | "
        f"{100 * rate * cost / peak:.1f} | {memory / 2**30:.1f} |",
        flush=True,
    )


def where_time_goes(base: Path, quantize: str | None, length: int, batch: int) -> None:
    """Print the kernels that take most of the time of a step."""
    config = FinetuneConfig("", str(base), quantize="nf4" if quantize else "none")
    model, _ = prepare_model(config)
    model.train()
    ids = torch.randint(1, 60, (batch, length), device=model.device)
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)

    def step() -> None:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=len(kinds) > 1):
            model(input_ids=ids, labels=ids).loss.backward()

    step()
    with torch.profiler.profile(activities=kinds) as profile:
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    order = "self_cuda_time_total" if len(kinds) > 1 else "self_cpu_time_total"
    table = profile.key_averages().table(
        sort_by=order, row_limit=12, max_name_column_width=60
    )
    print(f"\n```text\n{quantize or 'bf16'}, {batch} texts of {length}\n{table}\n```\n")


def act(horizon: int, tasks: int) -> None:
    """Print how long SmolLM2 takes to act in all episodes of a test."""
    bed = make_benchmark(EvaluationConfig(EnergyFamily(), horizon, tasks))
    (result,) = evaluate(["icl:smollm2"], bed)
    print(
        f"| smollm2, compact, {tasks} × 30 × {horizon} | {result.seconds:.1f} | "
        f"{tasks * 30 * horizon / result.seconds:.0f} |"
    )


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama-2-7b")
    parser.add_argument(
        "--horizon", type=int, default=20, help="Decisions per episode."
    )
    parser.add_argument("--tasks", type=int, default=60, help="Training tasks.")
    parser.add_argument("--batch", type=int, default=16, help="Texts per step.")
    parser.add_argument("--peak", type=float, default=989e12, help="FLOP/s of the GPU.")
    parser.add_argument("--test-tasks", type=int, default=100, help="Acting tasks.")
    parser.add_argument("--only", choices=("training", "profile", "acting"))
    options = parser.parse_args()
    print(f"On {provenance(by_torch=True)['device']}, torch {torch.__version__}\n")
    if options.only in (None, "acting"):
        print("| acting: tasks × episodes × T | seconds | decisions/s |")
        print("|---|---|---|")
        act(options.horizon, options.test_tasks)
    if options.only == "acting":
        return
    with tempfile.TemporaryDirectory() as place:
        base, data = Path(place) / "base", Path(place) / "data"
        random_base(options.shape, base)
        made = OracleConfig(EnergyFamily(), options.horizon, options.tasks, 15)
        write_oracle_dataset(made, data)
        if options.only != "profile":
            print(
                "| base | checkpointing | micro-batch | tokens per text | tokens/s | "
                "MFU, % | GiB |"
            )
            print("|---|---|---|---|---|---|---|")
            for quantize in ("nf4", None):
                for checkpointing in (True, False):
                    train(
                        base,
                        data,
                        options.shape,
                        quantize,
                        options.batch,
                        options.peak,
                        checkpointing=checkpointing,
                    )
        for quantize in ("nf4", None) if options.only != "training" else ():
            where_time_goes(base, quantize, 512, options.batch // 2)


if __name__ == "__main__":
    main()
