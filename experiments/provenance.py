"""Where a result comes from: versions, device, commit."""

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import sdm

PACKAGES = ("jax", "flax", "optax", "numpy", "torch", "transformers", "peft", "d3rlpy")


@cache
def provenance() -> dict[str, Any]:
    """Versions of what computes, on what, and the commit of this code."""
    found = {name: version for name in PACKAGES if (version := _version(name))}
    return {
        "sdm": sdm.__version__,
        "commit": commit(),
        "device": device(),
        "versions": {"python": platform.python_version(), **found},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def device() -> str:
    """The accelerator if there is one, else the processor and its cores."""
    import jax

    if jax.default_backend() != "cpu":
        return str(jax.devices()[0].device_kind)
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name()
    return f"{_processor()}, {len(os.sched_getaffinity(0))} cores"


def _processor() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of this code, with a `+` if changed since; None if unknown."""
    root = Path(sdm.__file__).parent
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        # Rows are written while an experiment runs: they do not change its code.
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "*.py")
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * bool(changed)


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
