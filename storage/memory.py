"""Memory that a process can still allocate. This module imports nothing heavy."""

import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # limits of a container


def available_memory() -> int | None:
    """Return the memory that this process can still allocate, in bytes.

    It is the smaller of the free memory of the machine and what the limit of the
    container leaves. Where the free memory is unknown, it is all memory of the machine;
    None if that is unknown too.
    """
    found = [x for x in (_free(), _left_in_container()) if x is not None]
    return min(found) if found else _total()


def _free() -> int | None:
    try:
        lines = MEMINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _left_in_container() -> int | None:
    """Return what the limit of the control group leaves; None without a limit."""
    try:
        limit = (CGROUP / "memory.max").read_text(encoding="utf-8").strip()
        used = int((CGROUP / "memory.current").read_text(encoding="utf-8"))
        stat = (CGROUP / "memory.stat").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    if not limit.isdecimal():  # "max" without a limit
        return None
    cached = (line.split()[1] for line in stat if line.startswith("inactive_file "))
    return int(limit) - used + int(next(cached, "0"))


def _total() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # as on Windows
        return None


def in_words(size: int) -> str:
    """Return a size in bytes as text, such as `3.2 GB`."""
    if size < 10**9:
        return f"{size / 10**6:,.1f} MB"
    return f"{size / 10**9:,.1f} GB"


class MemoryLimitError(ValueError):
    """A model that needs more memory than there is."""


def check_memory(size: int, what: str) -> None:
    """Raise `MemoryLimitError` if `size` bytes for `what` exceed the available memory.

    Call this function before allocating.
    """
    available = available_memory()
    if available is not None and size > available:
        raise MemoryLimitError(
            f"{what} needs {in_words(size)} of memory, found {in_words(available)} "
            "available"
        )
