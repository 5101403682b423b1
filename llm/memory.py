"""How much memory there is, and what to lower where it runs out."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch


class OutOfMemoryError(RuntimeError):
    """Something that does not fit the accelerator's memory."""

    def __init__(self, message: str, hint: str) -> None:
        """Keep what happened and what to do about it apart."""
        super().__init__(message)
        self.hint = hint


@contextmanager
def memory_explained(hint: str) -> Iterator[None]:
    """Say what to lower where memory runs out."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"out of memory: {str(error).splitlines()[0]}", hint
        ) from error


def memory_of(device: torch.device) -> int:
    """Bytes of memory that a device has, used or not."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)
