"""Trajectory datasets on disk: Parquet shards and a manifest. Imports no JAX.

One row is one episode of one task; its lists run over the T stages. The shards are
plain Parquet, and `pandas`, `pyarrow`, `polars` and `datasets` open the folder by its
name. The manifest records how they were made, the meaning of the columns, and the
SHA-256 of every file. It is one of the folder's notes (`storage.notes`); older datasets
have a `manifest.json`, which only this module skips.

`storage` describes how a dataset is written: a folder with a manifest is complete.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sdm.storage.files import PLAN, StorageError, read_plan, temporary_name
from sdm.storage.notes import NOTES, read_notes, write_notes
from sdm.storage.ownership import check_finished

FORMAT = "sdm trajectories"
SCHEMA_VERSION = 4
MANIFEST = "manifest"  # name of the note
OLDER = "manifest.json"
PARAMETERS = "parameters"
# Columns without values if nobody solved the tasks, and the label of an action that the
# oracle would have chosen otherwise or that nobody knows.
UNKNOWN = ("value", "lower", "upper", "error", "oracle_value", "random_value")
NO_ACTION = -1

SHARD_NAME = re.compile(r"shard-\d+\.parquet")

# The entries of a manifest that readers need.
NEEDED = (
    ("kind", str),
    ("family", str),
    ("observes_reward", bool),
    ("horizon", int),
    ("tasks", int),
    ("trajectories", int),
    ("family_config", dict),
    ("shards", list),
)

# Column -> (type, axes, description). Lists have one entry per stage.
COLUMNS: dict[str, tuple[pa.DataType, str, str]] = {
    "task": (pa.int32(), "", "index of the task"),
    "episode": (pa.int32(), "", "index of the episode within its task"),
    "random": (pa.bool_(), "", "whether its actions are random, not the oracle's"),
    "value": (
        pa.float64(),
        "",
        "optimal value: return, or α-MEU of an APOMDP",
    ),
    "lower": (pa.float64(), "", "certified lower bound on the value; NaN if none"),
    "upper": (pa.float64(), "", "certified upper bound on the value; NaN if none"),
    "error": (
        pa.float64(),
        "",
        "width of the bounds, or estimated error",
    ),
    "oracle_value": (pa.float64(), "", "return of the oracle in the environment"),
    "random_value": (pa.float64(), "", "return of random actions in the environment"),
    "divergence": (pa.list_(pa.float64()), "K", "KL divergence of each model, in nats"),
    "observation": (pa.list_(pa.int32()), "T", "observation before each decision"),
    "action": (pa.list_(pa.int32()), "T", "action of each decision"),
    "reward": (pa.list_(pa.float64()), "T", "reward of each decision"),
    "optimal_action": (
        pa.list_(pa.int32()),
        "T",
        "the oracle's action at each decision",
    ),
}


def write_shard(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write one shard atomically.

    Args:
        path: the file.
        columns: every name of `COLUMNS`, and `parameters.NAME` for each parameter of
            the tasks; the latter are written as one struct column, `parameters`.

    """
    arrays = {
        name: pa.array(list(columns[name]) if axes else columns[name], type=kind)
        for name, (kind, axes, _) in COLUMNS.items()
    }
    prefix = f"{PARAMETERS}."
    fields = {
        name.removeprefix(prefix): _parameter(array)
        for name, array in columns.items()
        if name.startswith(prefix)
    }
    arrays[PARAMETERS] = pa.StructArray.from_arrays(
        list(fields.values()), names=list(fields)
    )
    with temporary_name(path) as temporary:
        pq.write_table(pa.table(arrays), temporary, write_page_checksum=True)


def _parameter(array: np.ndarray) -> pa.Array:
    """Return the column of a parameter, with nested lists for further axes."""
    return pa.array(array if array.ndim == 1 else array.tolist())


def parameters(table: pa.Table) -> dict[str, np.ndarray]:
    """Return the parameters by name; the first axis is rows."""
    column = table[PARAMETERS].combine_chunks()
    found = {}
    for index in range(column.type.num_fields):
        name = column.type.field(index).name
        values = column.field(index)
        plain = values.to_pylist() if pa.types.is_list(values.type) else values
        found[name] = np.asarray(plain)
    return found


def shard_path(folder: Path, index: int) -> Path:
    """Return the path of the shard with this index."""
    return folder / f"shard-{index:05d}.parquet"


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the manifest of the complete shards of a folder, and its plan beside it.

    Args:
        folder: the folder with the shards.
        about: how they were made; further entries of the manifest.

    """
    paths = sorted(folder.glob("shard-*.parquet"))
    shards = [
        {
            "file": path.name,
            "rows": pq.read_metadata(path).num_rows,
            "sha256": _digest(path),
        }
        for path in paths
    ]
    manifest = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        **about,
        "rows": sum(shard["rows"] for shard in shards),
        "columns": {
            name: {"type": str(kind), "axes": axes, "about": text}
            for name, (kind, axes, text) in COLUMNS.items()
        },
        "shards": shards,
    }
    texts = {MANIFEST: manifest, PLAN: read_plan(folder)}
    notes = {name: json.dumps(text, indent=2) + "\n" for name, text in texts.items()}
    write_notes(folder, pq.read_schema(paths[0]), notes)
    (folder / PLAN).unlink(missing_ok=True)  # Parquet files only, for other readers


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a dataset.

    Raises:
        StorageError: if `folder` is not a dataset, its manifest is damaged, or it has
            another schema version.

    """
    make = "make one with `sdm solve --out FOLDER`"
    if not folder.is_dir():
        raise StorageError(f"there is no folder `{folder}`", make)
    check_finished(folder)
    path, text = _manifest_text(folder)
    if text is None:
        raise StorageError(f"`{folder}` is not a dataset: it has no {MANIFEST}", make)
    try:
        manifest: dict[str, Any] = json.loads(text)
        found = (manifest["format"], manifest["schema_version"])
    except KeyError as error:
        raise StorageError(f"`{path}` is damaged: it has no {error}", make) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise StorageError(f"`{path}` is damaged: it is not JSON", make) from error
    if found[0] != FORMAT:
        raise StorageError(
            f"`{folder}`: format {found[0]!r}, expected `{FORMAT}`", make
        )
    if found[1] != SCHEMA_VERSION:
        raise StorageError(
            f"`{folder}`: schema version {found[1]}, expected {SCHEMA_VERSION}",
            f"regenerate it with `sdm solve … --out {folder} --overwrite`",
        )
    shards = manifest.get("shards")
    for key, kind in NEEDED:
        if not isinstance(manifest.get(key), kind):
            raise StorageError(
                f"`{path}` is damaged: `{key}` is missing or has the wrong type", make
            )
    if not shards or not all(_is_entry(shard) for shard in shards):
        raise StorageError(f"`{path}` is damaged: it does not list its shards", make)
    return manifest


def _is_entry(shard: Any) -> bool:
    """Return whether a manifest's entry names a shard in the dataset's own folder."""
    if not isinstance(shard, dict):
        return False
    name, digest = shard.get("file"), shard.get("sha256")
    named = isinstance(name, str) and SHARD_NAME.fullmatch(name) is not None
    return named and isinstance(digest, str)


def _manifest_text(folder: Path) -> tuple[Path, str | None]:
    """Return the file with a dataset's manifest, and its text; None if it has none.

    Raises:
        StorageError: if the file is damaged.

    """
    path, older = folder / NOTES, folder / OLDER
    try:
        if not path.is_file() and older.is_file():
            return older, older.read_text(encoding="utf-8")
        return path, read_notes(folder).get(MANIFEST)
    except (OSError, ValueError) as error:
        raise StorageError(
            f"`{path}` is damaged: it cannot be read",
            "make the dataset again with `sdm solve --out FOLDER`",
        ) from error


def damaged_shards(folder: Path) -> list[tuple[Path, str]]:
    """Return the shards of a complete dataset that are missing or changed, and why.

    Raises:
        StorageError: if `folder` is not a dataset, or its manifest is damaged.

    """
    found = []
    for shard in read_manifest(folder)["shards"]:
        path = folder / shard["file"]
        if not path.is_file():
            found.append((path, "is missing"))
            continue
        digest = _digest(path)
        if digest != shard["sha256"]:
            expected = shard["sha256"][:12]
            why = f"is damaged: expected SHA-256 {expected}…, found {digest[:12]}…"
            found.append((path, why))
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_shards(folder: Path) -> pa.Table:
    """Return all episodes of a complete dataset, in order of task and episode.

    Raises:
        StorageError: if `folder` is not a dataset, or a shard is missing or damaged.

    """
    tables = []
    for path in whole_shards(folder):
        try:
            tables.append(pq.read_table(path))
        except (pa.ArrowException, OSError) as error:  # another program wrote it
            raise StorageError(
                f"`{folder}`: its shards are no trajectories: {error}"
            ) from error
    return pa.concat_tables(tables)


def whole_shards(folder: Path) -> list[Path]:
    """Return the paths of a dataset's shards, in order.

    Raises:
        StorageError: if `folder` is not a dataset, or a shard is missing or damaged.

    """
    for path, why in damaged_shards(folder):
        raise StorageError(
            f"the shard `{path}` {why}",
            "repeat the `sdm solve` command that made the dataset, with `--resume`: "
            "it makes this shard again",
        )
    return [folder / shard["file"] for shard in read_manifest(folder)["shards"]]
