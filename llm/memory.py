"""Memory of a device, and hints for out-of-memory errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch


class OutOfMemoryError(RuntimeError):
    """A computation that does not fit the accelerator's memory."""

    def __init__(self, message: str, hint: str) -> None:
        """Store the message, and a hint on how to use less memory."""
        super().__init__(message)
        self.hint = hint


@contextmanager
def memory_explained(hint: str) -> Iterator[None]:
    """Raise `OutOfMemoryError` with a hint if PyTorch runs out of memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"out of memory: {str(error).splitlines()[0]}", hint
        ) from error


def memory_of(device: torch.device) -> int:
    """Return the total memory of a device in bytes, used or not."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)
