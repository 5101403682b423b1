"""Folders with a solution: `save_solution` writes one, `load_solution` reads it.

A folder has two files beside `plan.json`, which says what made it:

- `solution.npz`: the arrays of the solution, by their names, such as `plans.vector`.
- `manifest.json`: `schema`, class and fields of the solution (`solution`), shape and
  dtype of each array (`arrays`), the SHA-256 of `solution.npz`, `provenance` (versions,
  commit, device), and what the caller adds about the model.

Arrays keep every bit, so that a solution that was loaded chooses the same actions.
"""

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sdm.solvers_jax.methods import Solution, methods_for
from sdm.storage.arrays import read_arrays
from sdm.storage.files import (
    StorageError,
    folder_in_progress,
    temporary_name,
    write_atomically,
)
from sdm.storage.ownership import check_finished
from sdm.storage.provenance import provenance
from sdm.tasks.models import MDP

ARRAYS, MANIFEST, SCHEMA = "solution.npz", "manifest.json", 1
AGAIN = "write it again with `sdm solve --model FILE --out FOLDER`"


def save_solution(
    solution: Solution,
    folder: str | os.PathLike[str],
    *,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a solution to a new folder, atomically.

    Args:
        solution: what `solve` returns, of one task or a batch.
        folder: the folder.
        about: entries for the manifest, such as the model's file; JSON types.
        overwrite: whether to replace a folder that sdm wrote.

    Raises:
        StorageError: if the folder exists or cannot be written.
        TypeError: if the solution has fields other than arrays, numbers and texts.

    """
    plan = {"solution": type(solution).__name__}
    with solution_folder(Path(folder), plan, overwrite=overwrite) as partial:
        write_solution(solution, partial, about or {})


@contextmanager
def solution_folder(
    folder: Path,
    plan: Mapping[str, Any],
    *,
    inputs: tuple[Path, ...] = (),
    overwrite: bool = False,
) -> Iterator[Path]:
    """Yield a folder for `write_solution`; it gets its name at the end of the block.

    Raises:
        StorageError: before the block, if the folder exists or cannot be written.

    """
    with folder_in_progress(
        folder, plan, inputs=inputs, overwrite=overwrite, resumable=False
    ) as partial:
        yield partial


def write_solution(solution: Solution, folder: Path, about: Mapping[str, Any]) -> None:
    """Write the two files of a solution to an existing folder."""
    arrays: dict[str, np.ndarray] = {}
    tree = _described(solution, "", arrays)
    with (
        temporary_name(folder / ARRAYS) as temporary,
        temporary.open("wb") as file,
    ):
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    shapes = {
        name: {"shape": x.shape, "dtype": str(x.dtype)} for name, x in arrays.items()
    }
    manifest = {
        "made_by": "sdm",
        "schema": SCHEMA,
        **about,
        "solution": tree,
        "arrays": shapes,
        "sha256": _digest(folder / ARRAYS),
        "provenance": provenance(by_torch=False),
    }
    text = json.dumps(manifest, indent=2, allow_nan=False) + "\n"
    write_atomically(folder / MANIFEST, text)


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the manifest of a folder with a solution.

    Raises:
        StorageError: if there is none, or it has another schema.

    """
    check_finished(Path(folder))
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise StorageError(
            f"`{folder}`: must be a folder with a solution, found no `{MANIFEST}`",
            AGAIN,
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StorageError(f"`{path}`: damaged, found no JSON", AGAIN) from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        version = found.get("schema") if isinstance(found, dict) else None
        raise StorageError(f"`{path}`: schema {version}, expected {SCHEMA}", AGAIN)
    return found


def load_solution(folder: str | os.PathLike[str]) -> Any:
    """Return the solution in a folder, with the same bits as when it was written.

    Returns:
        An object of the class that `solve` returned: `value`, `lower`, `upper` and
        `action(t, x)` for states or beliefs x.

    Raises:
        StorageError: if the folder has no solution, or it is damaged.
        ValueError: if the solution has double precision and JAX has not.

    """
    manifest, path = read_manifest(folder), Path(folder) / ARRAYS
    if not path.is_file() or _digest(path) != manifest.get("sha256"):
        what = "damaged or changed" if path.is_file() else "missing"
        raise StorageError(f"`{path}`: {what}", AGAIN)
    try:
        arrays = read_arrays(path)
        double = any(x.dtype.itemsize == 8 for x in arrays.values())
        if double and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
            raise ValueError(
                f"`{folder}`: has double precision: call "
                '`jax.config.update("jax_enable_x64", True)` before loading it'
            )
        methods_for(MDP)  # imports the modules of all solutions
        return _restored(manifest["solution"], arrays, str(folder))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(f"`{folder}`: damaged: {error}", AGAIN) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _described(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return a value as JSON types; its arrays go to `arrays`."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        arrays[name] = np.asarray(value)
        return {"array": name}
    fields = _fields(value)
    if fields is not None:
        inside = {
            field: _described(x, f"{name}.{field}".lstrip("."), arrays)
            for field, x in fields.items()
        }
        kind = type(value)
        return {"class": f"{kind.__module__}:{kind.__qualname__}", "fields": inside}
    if isinstance(value, tuple | list):
        items = [_described(x, f"{name}.{i}", arrays) for i, x in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, float):
        return {"float": value.hex()}
    if value is None or isinstance(value, bool | int | str):
        return {"value": value}
    raise TypeError(
        f"solution: `{name}` must be an array, a number or a text, found "
        f"{type(value).__name__}"
    )


def _fields(value: Any) -> dict[str, Any] | None:
    """Return the fields of a module or named tuple; None for other values."""
    if isinstance(value, eqx.Module):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: getattr(value, name) for name in names}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return dict(value._asdict())
    return None


def _restored(tree: Any, arrays: Mapping[str, np.ndarray], folder: str) -> Any:
    """Return the value of a description."""
    ((form, inside),) = tree.items() if len(tree) == 1 else (("class", tree),)
    if form == "array":
        return jnp.asarray(arrays[inside])
    if form == "float":
        return float.fromhex(inside)
    if form == "value":
        return inside
    if form in ("tuple", "list"):
        items = [_restored(x, arrays, folder) for x in inside]
        return tuple(items) if form == "tuple" else items
    fields = {n: _restored(x, arrays, folder) for n, x in inside["fields"].items()}
    return _class(inside["class"], folder)(**fields)


def _class(reference: str, folder: str) -> Any:
    """Return a class of a loaded module: a file cannot make Python import others."""
    module, _, name = reference.partition(":")
    found = getattr(sys.modules.get(module), name, None)
    known = isinstance(found, type) and (
        issubclass(found, eqx.Module) or hasattr(found, "_asdict")
    )
    if not known:
        raise StorageError(
            f"`{folder}`: its solution is a `{reference}`, which is not installed",
            "install the package with the method, or the version of sdm that wrote it",
        )
    return found
