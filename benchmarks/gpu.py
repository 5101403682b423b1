"""Fine-tuning a model of Llama-2-7B's shape, and acting at the paper's size, on a GPU.

Prints Markdown. Training: tokens a second, model FLOP utilisation and peak
memory of `sdm finetune` on a base with random weights (`--shape llama-2-7b`), with LoRA
on 4-bit (QLoRA) and on full weights, with gradient checkpointing in two pieces a batch,
as in the recipe, and without it a text at a time, and where the time of a step goes.
Acting: 100 tasks × 30 episodes × T = 20 with SmolLM2. A random-weight base is trained
and merged as any other, so everything but what it learns is as it will be.

A token costs 4 floating-point operations a weight (forward, and backward through the
base, whose own gradients are not computed); attention is counted in addition.
Utilisation is that over `--peak`, the accelerator's dense bfloat16 rate, by default an
H100's or H200's: 989e12. On a CPU, `--shape small` shows that the benchmark runs.
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
from sdm.data.generation import OracleConfig, write_oracle_dataset
from sdm.evaluation.evaluate import evaluate
from sdm.llm.bases import compute_dtype, device, load_tokenizer, tiny_tokenizer
from sdm.llm.finetune import finetune, prepare_model
from sdm.llm.recipes import FinetuneConfig
from sdm.llm.runs import environment
from sdm.solvers_jax import EnergyFamily

SHAPES: dict[str, dict[str, Any]] = {
    "llama-2-7b": {
        "vocab_size": 49_152,  # SmolLM2's tokeniser stands in for Llama-2's of 32,000
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
    """Write a Llama of this shape with random weights."""
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
    """Floating-point operations that one token of a text of `length` takes."""
    width, layers = shape["hidden_size"], shape["num_hidden_layers"]
    weights = layers * (4 * width**2 + 3 * width * shape["intermediate_size"])
    weights += width * shape["vocab_size"]
    attention = layers * 2 * width * length / 2  # causal: half of the positions
    # Attention has no weights: both of its factors always want gradients.
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
    """Print the row of one run."""
    ends: list[float] = []
    config = FinetuneConfig(
        str(data),
        str(base),
        texts_per_task=8,
        epochs=1,
        batch_size=batch,
        accumulate=math.gcd(2, batch) if checkpointing else batch,
        gradient_checkpointing=checkpointing,
        quantize="nf4" if quantize else None,
    )
    gc.collect()  # what the last run held in circles
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as place:
        report = finetune(
            config,
            Path(place) / "run",
            progress=lambda step, steps: ends.append(time.perf_counter()),
        )
    half = len(ends) // 2  # the first half warms up
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
    """Print the kernels that a step spends most time in."""
    config = FinetuneConfig("", str(base), quantize="nf4" if quantize else None)
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
    """Print how long SmolLM2 takes to play a whole test."""
    bed = make_benchmark(EvaluationConfig(EnergyFamily(), horizon, tasks))
    (result,) = evaluate(["icl:smollm2"], bed)
    print(
        f"| smollm2, compact, {tasks} × 30 × {horizon} | {result.seconds:.1f} | "
        f"{tasks * 30 * horizon / result.seconds:.0f} |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama-2-7b")
    parser.add_argument("--horizon", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=60, help="To train on.")
    parser.add_argument("--batch", type=int, default=16, help="Texts a step.")
    parser.add_argument("--peak", type=float, default=989e12)
    parser.add_argument("--test-tasks", type=int, default=100, help="0: do not act.")
    options = parser.parse_args()
    print(f"On {environment()['device']}, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as place:
        base, data = Path(place) / "base", Path(place) / "data"
        random_base(options.shape, base)
        made = OracleConfig(EnergyFamily(), options.horizon, options.tasks, 15)
        write_oracle_dataset(made, data)
        print(
            "| base | checkpointing | texts at once | tokens a text | tokens/s | "
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
        for quantize in ("nf4", None):
            where_time_goes(base, quantize, 512, options.batch // 2)
    if options.test_tasks:
        print("| acting: tasks × episodes × T | seconds | decisions a second |")
        print("|---|---|---|")
        act(options.horizon, options.test_tasks)


if __name__ == "__main__":
    main()
