"""Names that a base model can have. Imports nothing heavy."""

import difflib
import re
from pathlib import Path

ICL = "icl:"  # prefix of a base that acts without fine-tuning
EMBEDDED = ("smollm2", "tiny")
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.gguf")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


HINT = (
    "choose `smollm2`, `tiny`, a Hugging Face id such as `meta-llama/Llama-2-7b-hf` or "
    "`gpt2`, or a folder that holds a model"
)
SIMILAR = 0.7  # least similarity, from 0 to 1, of a misspelt name


class UnknownBaseError(ValueError):
    """A name that no base model can have."""

    def __init__(self, message: str, hint: str = HINT) -> None:
        """Store the message, and a hint on what to choose."""
        super().__init__(message)
        self.hint = hint


def check_base_name(name: str) -> None:
    """Raise `UnknownBaseError` unless `name` can be a base; load nothing."""
    if name in EMBEDDED:
        return
    if name and Path(name).is_dir():
        _check_folder(Path(name))
        return
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        empty = "" if name else ": its name is empty, as in `icl:`"
        raise UnknownBaseError(f"unknown base `{name}`{empty}")
    close = difflib.get_close_matches(name.lower(), EMBEDDED, n=1, cutoff=SIMILAR)
    if close:
        raise UnknownBaseError(
            f"unknown base `{name}`", f"did you mean `{close[0]}`? {HINT}"
        )


def _check_folder(folder: Path) -> None:
    """Raise `UnknownBaseError` for a folder that holds no model."""
    if (folder / "config.yaml").is_file() and (folder / "metrics.jsonl").is_file():
        raise UnknownBaseError(
            f"`{folder}` is a run folder, not a base: pass it as `--policy {folder}`, "
            f"or make a base with `sdm merge {folder} --out MERGED`"
        )
    for what, names in (
        ("config.json", ("config.json",)),
        ("weights", WEIGHTS),
        ("tokenizer", TOKENIZERS),
    ):
        if not any(path for name in names for path in folder.glob(name)):
            raise UnknownBaseError(f"`{folder}` is not a base: it has no {what}")


def stored_name(name: str) -> str:
    """Return the name that a run stores of its base: the full path of a folder."""
    if name in EMBEDDED or not name or not Path(name).is_dir():
        return name
    return str(Path(name).resolve())


def check_backend(name: str, backend: str | None, quantize: str | None) -> None:
    """Raise `ValueError` for a policy that vLLM does not support.

    Args:
        name: name of the policy.
        backend: `vllm`, or anything else for PyTorch.
        quantize: `nf4` for 4-bit weights.

    """
    if backend != "vllm":
        return
    if not name.startswith(ICL):
        raise ValueError(
            f"backend `vllm`: needs a merged model, found `{name}`: run "
            f"`sdm merge {name} --out MERGED`, then pass `--policy icl:./MERGED`"
        )
    if quantize == "nf4":
        raise ValueError(
            "backend `vllm`: needs an unquantized base, found `nf4`: leave out "
            "`--quantize`"
        )
