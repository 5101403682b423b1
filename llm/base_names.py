"""Names that a base model can have; imports nothing heavy."""

import re
from pathlib import Path


class UnknownBaseError(ValueError):
    """A name that no base model can have."""

    hint = (
        "a base is `smollm2`, `tiny`, a Hugging Face id such as "
        "`meta-llama/Llama-2-7b-hf`, or a folder that holds a model"
    )


def check_base_name(name: str) -> None:
    """Raise `UnknownBaseError` unless `name` can be a base; loads nothing."""
    if name in ("smollm2", "tiny") or Path(name).is_dir():
        return
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise UnknownBaseError(f"unknown base `{name}`")
