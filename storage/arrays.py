"""Read `.npy` and `.npz` files that anybody may have made. Imports no JAX.

Nothing in them is executed, and nothing is unpacked that does not fit the memory.
"""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sdm.storage.memory import MemoryLimitError, check_memory
from sdm.storage.ownership import StorageError


def read_arrays(
    path: str | os.PathLike[str], *, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Return the arrays of an `.npz` file by name.

    Args:
        path: the file.
        names: the only arrays to read; None for all.

    Raises:
        StorageError: if it is not such a file, is damaged, lacks an array or has
            objects.
        MemoryLimitError: if the arrays need more memory than there is.
        OSError: if the file cannot be opened.

    """
    with Path(path).open("rb") as file:
        try:
            with zipfile.ZipFile(file) as members:
                sizes = (member.file_size for member in members.infolist())
                check_memory(sum(sizes), f"`{path}`")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in names or arrays.files}
        except MemoryLimitError:
            raise
        except KeyError as error:
            raise StorageError(f"`{path}`: array missing: {error.args[0]}") from error
        # NumPy and zipfile do not say which errors a damaged file can raise: struct,
        # zlib, overflow and memory errors were seen.
        except Exception as error:
            raise StorageError(
                f"`{path}` is not an .npz file of arrays, or is damaged"
            ) from error


def read_array(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the array of an `.npy` file; raises as `read_arrays`."""
    with Path(path).open("rb") as file:
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:
            raise StorageError(
                f"`{path}` is not an .npy file of an array, or is damaged"
            ) from error
