"""The device of this process, its threads, and the number format of models on it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Parameters up to which a model computes with one thread. Its operations are so short
# that threads mostly wait for each other, on a busy machine for a long time.
SMALL = 10_000_000
THREADS = "OMP_NUM_THREADS"


def device() -> torch.device:
    """Return this process's accelerator if there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def move(model: torch.nn.Module) -> None:
    """Move a model to this process's device."""
    model.to(device())


@contextmanager
def threads_for(model: torch.nn.Module) -> Iterator[None]:
    """Compute with one thread in the block if a small model is on the CPU.

    `OMP_NUM_THREADS` takes precedence.
    """
    before = torch.get_num_threads()
    size = sum(weights.numel() for weights in model.parameters())
    if size <= SMALL and device().type == "cpu" and THREADS not in os.environ:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compute_dtype() -> torch.dtype:
    """Return the number format in which this process's device computes.

    It is bfloat16 on a GPU that has it, float16 on an older one, which would emulate
    bfloat16, and float32 on a CPU, where both are slower.
    """
    if not torch.cuda.is_available():
        return torch.float32
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16
