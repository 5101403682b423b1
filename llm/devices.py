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
    """Return bfloat16 on an accelerator, float32 on a CPU, where bfloat16 is slower."""
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32
