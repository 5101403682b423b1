"""Logs in JSON Lines, one object per decision."""

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import json

from sdm.data.logs.problems import LogsError
from sdm.data.logs.registry import register_reader, table_reader
from sdm.data.logs.table import REQUIRED, Chunk

BLOCK = 1 << 24  # bytes of a batch
ROW = re.compile(r" in row (\d+)")


def _blocks(path: Path) -> Iterator[list[bytes]]:
    """Yield lines together, of a plain or compressed file.

    Raises:
        LogsError: if the compressed content is damaged, or a line in it is too long: a
            small file could otherwise fill the memory.

    """
    if not path.name.lower().endswith(".gz"):
        with path.open("rb") as plain:
            while block := plain.readlines(BLOCK):
                yield block
        return
    try:
        with gzip.open(path) as packed:
            block, size = [], 0
            while line := packed.readline(BLOCK):
                if len(line) == BLOCK:
                    raise LogsError(
                        f"logs `{path}`: a line longer than {BLOCK} bytes",
                        "write one decision per line",
                    )
                block.append(line)
                size += len(line)
                if size >= BLOCK:
                    yield block
                    block, size = [], 0
            yield block
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise LogsError(
            f"logs `{path}`: damaged gzip file: {error}", "write it again"
        ) from error


def chunks(path: Path) -> Iterator[Chunk]:
    """Yield the lines of a file in batches, numbered from 1."""
    done = 0
    for block in _blocks(path):
        line = np.flatnonzero([bool(x.strip()) for x in block]) + done + 1
        if len(line):
            yield Chunk(_columns(path, block, line), line)
        done += len(block)


def _columns(path: Path, block: list[bytes], line: np.ndarray) -> dict[str, pa.Array]:
    """Return the columns of a block; those that no object of it has are missing.

    Raises:
        LogsError: if a line is no object or not UTF-8, or a column has values of
            several types.

    """
    text = b"\n".join(x.strip() for x in block if x.strip())
    try:
        text.decode()
    except UnicodeDecodeError as error:
        row = _place(line, text[: error.start].count(b"\n"))
        raise LogsError(
            f"logs `{path}`: row {row} is not UTF-8", "write it in this encoding"
        ) from error
    whole = json.ReadOptions(use_threads=False, block_size=len(text) + 1)
    try:
        table = json.read_json(io.BytesIO(text), read_options=whole)
    except pa.ArrowInvalid as error:
        found = str(error).splitlines()[0].removeprefix("JSON parse error: ")
        found = ROW.sub(lambda at: f" in row {_place(line, int(at[1]))}", found)
        raise LogsError(
            f"logs `{path}`: {found}",
            "write one JSON object per line, and either numbers or text in a column",
        ) from error
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    for name in REQUIRED:  # an object may lack an entry that others have
        columns.setdefault(name, pa.nulls(len(line), pa.string()))
    return columns


def _place(line: np.ndarray, row: int) -> int:
    return int(line[min(row, len(line) - 1)])


register_reader(table_reader("JSON Lines", (".jsonl", ".jsonl.gz"), chunks))
