"""What formats of oracle datasets share."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdm.data.shards import read_manifest
from sdm.storage.notes import NOTES

SOURCE = "a dataset of `sdm solve --out`"


def is_dataset(path: Path) -> bool:
    """Return whether a path is a dataset, whole or damaged."""
    return (path / NOTES).is_file()


def identity(path: Path) -> str:
    """Return a digest of a dataset's manifest, which has those of all shards."""
    text = json.dumps(read_manifest(path), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def title(manifest: Mapping[str, Any]) -> str:
    """Return what a dataset contains, in a few words."""
    return (
        f"{manifest['tasks']} tasks of the family {manifest['family']} "
        f"({manifest['kind']}), {manifest['horizon']} decisions"
    )
