"""The folder of what can be made again: converted models, compiled programs."""

import hashlib
import os
import platform
from pathlib import Path


def cache_folder() -> Path:
    """Where results are kept between commands: `$SDM_CACHE`, else `~/.cache/sdm`."""
    return Path(os.environ.get("SDM_CACHE") or Path.home() / ".cache" / "sdm")


def compilation_folder() -> Path | None:
    """Where programs compiled by XLA are kept, for this kind of processor.

    None where nothing can be written: every command then compiles anew.
    """
    folder = cache_folder() / f"xla-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _processor() -> str:
    """Short name of the processor's instruction set: programs are compiled for it."""
    about = platform.machine() + platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    about += next((x for x in lines if x.startswith(("flags", "Features"))), "")
    return hashlib.sha256(about.encode()).hexdigest()[:8]
