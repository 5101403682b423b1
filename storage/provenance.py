"""Provenance of a result: versions, device, commit."""

import importlib.metadata
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import sdm
from sdm.storage.processes import usable_cores

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "numpy", "torch", "transformers", "tokenizers"),
    *("peft", "accelerate", "bitsandbytes", "datasets", "d3rlpy"),
)


@cache
def provenance(*, by_torch: bool) -> dict[str, Any]:
    """Return versions, the commit of this code, and the device of PyTorch or JAX."""
    found = {name: version for name in PACKAGES if (version := _version(name))}
    return {
        "sdm": sdm.__version__,
        "commit": commit(),
        "device": device(by_torch=by_torch),
        "versions": {"python": platform.python_version(), **found},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def device(*, by_torch: bool) -> str:
    """Return the name of the accelerator, or of the CPU with its number of cores."""
    if by_torch:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name()
    else:
        import jax

        if jax.default_backend() != "cpu":
            return str(jax.devices()[0].device_kind)
    cores = usable_cores()
    return f"{_processor()}, {cores} core{'s' * (cores > 1)}"


def _processor() -> str:
    """Return the name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def commit() -> str | None:
    """Return the commit of this code, with `+` for local changes; None if unknown."""
    root = Path(sdm.__file__).parent
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        # Ignore other files than code, since an experiment writes rows while it runs.
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "*.py")
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * bool(changed)


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
