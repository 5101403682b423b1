"""Find damaged shards, so that a resumed run makes only them again. Imports no JAX."""

import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sdm.data.shards import COLUMNS, PARAMETERS, damaged_shards


def is_whole(path: Path, *, rows: int) -> bool:
    """Return whether a shard is complete; warn if it is damaged."""
    if not path.is_file():
        return False
    if damage := damage_of(path, rows):
        _warn(path, f"is damaged: {damage}")
    return not damage


def remove_damaged(folder: Path) -> bool:
    """Remove the damaged shards of a complete dataset, with a warning for each.

    Returns:
        Whether a shard was damaged or missing.

    Raises:
        StorageError: if the manifest is damaged.

    """
    found = damaged_shards(folder)
    for path, why in found:
        _warn(path, why)
        path.unlink(missing_ok=True)
    return bool(found)


def _warn(path: Path, damage: str) -> None:
    warnings.warn(f"the shard `{path}` is made again: it {damage}", stacklevel=3)


def damage_of(path: Path, rows: int) -> str:
    """Describe what is wrong with a shard in an unfinished folder; "" if it is whole.

    Args:
        path: the file, which exists.
        rows: number of rows that it must have.

    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        return f"it cannot be read: {str(error).strip().splitlines()[0]}"
    wanted = [*COLUMNS, PARAMETERS]
    if table.column_names != wanted:
        return f"it has the columns {', '.join(table.column_names)}"
    if table.num_rows != rows:
        return f"it has {table.num_rows} rows, expected {rows}"
    return ""
