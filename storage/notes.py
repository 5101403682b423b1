"""JSON texts about a folder of Parquet files, kept in a Parquet file themselves.

`pandas`, `pyarrow`, `polars` and `datasets` open a folder of Parquet files by its name.
Polars refuses a folder with any other file, hidden or not. The notes are therefore the
metadata of an empty Parquet file with the columns of the others, in a folder whose name
begins with two underscores: pyarrow and pandas skip one, `datasets` needs two, and
polars reads no rows.

This module imports neither JAX nor, until there are notes, pyarrow.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

NOTES = Path("__sdm__", "manifest.parquet")


def write_notes(folder: Path, schema: Any, notes: Mapping[str, str]) -> None:
    """Write the notes of a folder under a temporary name, then rename them.

    Args:
        folder: the folder of Parquet files.
        schema: their pyarrow schema.
        notes: texts by name.

    """
    import pyarrow.parquet as pq

    path = folder / NOTES
    temporary = path.with_name(path.name + ".tmp")
    path.parent.mkdir(exist_ok=True)
    pq.write_table(schema.with_metadata(dict(notes)).empty_table(), temporary)
    temporary.replace(path)


def read_notes(folder: Path) -> dict[str, str]:
    """Return the notes of a folder by name; none if it has no notes.

    Raises:
        ValueError: if they are damaged.

    """
    path = folder / NOTES
    if not path.is_file():
        return {}
    import pyarrow.parquet as pq

    found = pq.read_schema(path).metadata or {}
    return {name.decode(): text.decode() for name, text in found.items()}
