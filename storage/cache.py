"""The user's cache folder, and what its contents depend on. Imports nothing heavy."""

import hashlib
import os
import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def cache_folder() -> Path:
    """Return the cache folder: `$SDM_CACHE`, else `~/.cache/sdm`."""
    return Path(os.environ.get("SDM_CACHE") or Path.home() / ".cache" / "sdm")


def processor() -> str:
    """Return a short name of the processor and its instructions.

    Compiled programs of one processor may stop another with an illegal instruction.
    """
    about = [platform.machine(), platform.processor()]
    if CPU_INFO.exists():
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
        names = ("model name", "flags", "Features")
        about += sorted({line for line in lines if line.startswith(names)})
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:12]
