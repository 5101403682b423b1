"""The device of this process, and the number format of models on it."""

import os

import torch


def device() -> torch.device:
    """Return this process's accelerator if there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def move(model: torch.nn.Module) -> None:
    """Move a model to this process's device."""
    model.to(device())


def compute_dtype() -> torch.dtype:
    """Return the number format in which this process's device computes.

    It is bfloat16 on a GPU that has it, float16 on an older one, which would emulate
    bfloat16, and float32 on a CPU, where both are slower.
    """
    if not torch.cuda.is_available():
        return torch.float32
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16
