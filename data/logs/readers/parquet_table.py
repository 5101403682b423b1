"""Logs in Parquet files, one row per decision."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sdm.data.logs.episodes import Logs
from sdm.data.logs.problems import LogsError
from sdm.data.logs.registry import LogReader, register_reader, table_reader
from sdm.data.logs.table import Chunk, Reading

NAMES = b"sdm.logs"  # metadata with all names, which `write_logs` writes
ROWS = 1 << 17  # of a batch


def chunks(path: Path) -> Iterator[Chunk]:
    """Yield the row groups of a file in batches; rows are numbered from 1."""
    try:
        with pq.ParquetFile(path) as file:
            done = 0
            for batch in file.iter_batches(ROWS):
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                yield Chunk(columns, np.arange(done, done + len(batch)) + 1)
                done += len(batch)
    except pa.ArrowInvalid as error:
        raise LogsError(f"logs `{path}`: no valid Parquet file: {error}") from error


_table = table_reader("Parquet", (".parquet",), chunks)


def read(path: Path, how: Reading) -> Logs:
    """Read a file or folder, with the names that `write_logs` has kept in a file."""
    if path.is_file():
        try:
            kept = json.loads((pq.read_schema(path).metadata or {}).get(NAMES, "{}"))
        except (pa.ArrowException, OSError, RecursionError) as error:
            raise LogsError(f"logs `{path}`: no valid Parquet file: {error}") from error
        how = dataclasses.replace(
            how,
            observations=how.observations or tuple(kept.get("observations", ())),
            actions=how.actions or tuple(kept.get("actions", ())),
        )
    return _table.read(path, how)


register_reader(LogReader(_table.name, _table.reads, read, last=True))
