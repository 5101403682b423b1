"""Checkpoints of the training of decision-pretrained transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization, traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sdm.storage.files import StorageError, temporary_name


def flat_arrays(tree: Any) -> dict[str, np.ndarray]:
    """Return the arrays of a tree by path."""
    flat = traverse_util.flatten_dict(serialization.to_state_dict(tree), sep="/")
    return {name: np.asarray(array) for name, array in flat.items()}


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write the state of a training atomically."""
    with temporary_name(path) as temporary:
        save_file(flat_arrays(state), temporary)


def restore(like: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Read a state that `save_state` wrote.

    Args:
        like: a state with the same tree of arrays.
        path: the file.

    Raises:
        StorageError: if the file is damaged, or of another network.

    """
    again = "start again with `--overwrite` and without `--resume`"
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"`{path}` is damaged: {error}", again) from error
    plain = serialization.to_state_dict(like)
    flat = traverse_util.flatten_dict(plain, sep="/", keep_empty_nodes=True)
    wanted = {name: array.shape for name, array in flat_arrays(like).items()}
    if wanted != {name: array.shape for name, array in found.items()}:
        raise StorageError(f"`{path}` is a checkpoint of another network", again)
    filled = {name: found.get(name, empty) for name, empty in flat.items()}
    state: dict[str, Any] = serialization.from_state_dict(
        like, traverse_util.unflatten_dict(filled, sep="/")
    )
    return state
