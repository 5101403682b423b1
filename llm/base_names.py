"""Names that a base model can have; imports nothing heavy."""

import re
from pathlib import Path

ICL = "icl:"  # in front of a base that acts as it is
EMBEDDED = ("smollm2", "tiny")
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.gguf")
TOKENISERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


class UnknownBaseError(ValueError):
    """A name that no base model can have."""

    hint = (
        "a base is `smollm2`, `tiny`, a Hugging Face id such as "
        "`meta-llama/Llama-2-7b-hf`, or a folder that holds a model"
    )


def check_base_name(name: str) -> None:
    """Raise `UnknownBaseError` unless `name` can be a base; loads nothing."""
    if name in EMBEDDED:
        return
    if name and Path(name).is_dir():
        _check_folder(Path(name))
        return
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise UnknownBaseError(f"unknown base `{name}`")


def _check_folder(folder: Path) -> None:
    """Raise `UnknownBaseError` for a folder that holds no model, and say what it is."""
    if (folder / "config.yaml").is_file() and (folder / "metrics.jsonl").is_file():
        raise UnknownBaseError(
            f"`{folder}` is a run folder, not a base: it is a policy by itself "
            f"(`--policy {folder}`), or a base after `sdm merge {folder} --out MERGED`"
        )
    for what, names in (
        ("model: it has no config.json", ("config.json",)),
        ("model: it has no weights", WEIGHTS),
        ("usable base: it has no tokenizer", TOKENISERS),
    ):
        if not any(path for name in names for path in folder.glob(name)):
            raise UnknownBaseError(f"`{folder}` is no {what}")


def stored_name(name: str) -> str:
    """What a run remembers of its base: of a folder, where it is from anywhere."""
    if name in EMBEDDED or not name or not Path(name).is_dir():
        return name
    return str(Path(name).resolve())


def check_backend(name: str, backend: str | None, quantize: str | None) -> None:
    """Raise `ValueError` for a policy that vLLM does not take.

    Args:
        name: of the policy.
        backend: `vllm`, or anything else for PyTorch.
        quantize: `nf4` for 4-bit weights.

    """
    if backend != "vllm":
        return
    if not name.startswith(ICL):
        raise ValueError(
            f"vLLM takes whole models: `sdm merge {name} --out MERGED`, then "
            "`--policy icl:./MERGED`"
        )
    if quantize == "nf4":
        raise ValueError("vLLM takes a base as it is: leave out `--quantize`")
