"""Logs in CSV files, one row per decision, with the names of columns in the first line.

Cells are text: a column of numbers has numbers in all of its rows. Empty lines count as
rows in messages, as in an editor, and are skipped.
"""

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from sdm.data.logs.problems import LogsError
from sdm.data.logs.registry import register_reader, table_reader
from sdm.data.logs.table import COLUMNS, Chunk

BLOCK = 1 << 24  # bytes of a batch


def chunks(path: Path) -> Iterator[Chunk]:
    """Yield the lines of a file in batches; the header is line 1."""
    wrong: list[str] = []

    def invalid(row: csv.InvalidRow) -> str:
        wrong.append(
            f"expected {row.expected_columns} cells, found {row.actual_columns} in row "
            f"{row.number}"
        )
        return "skip"

    try:
        with csv.open_csv(
            path,
            # Decoded by Python, since pyarrow prints a traceback of a wrong byte.
            read_options=csv.ReadOptions(
                use_threads=False, block_size=BLOCK, encoding="utf-8-sig"
            ),
            parse_options=csv.ParseOptions(
                ignore_empty_lines=False, invalid_row_handler=invalid
            ),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(COLUMNS, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            ),
        ) as file:
            done = 0
            for batch in file:
                # An empty line is a row without values.
                empty = np.all([x.is_null() for x in batch.columns], axis=0)
                kept = batch.filter(pa.array(~empty))
                columns = dict(zip(kept.schema.names, kept.columns, strict=True))
                yield Chunk(columns, np.arange(done, done + len(batch))[~empty] + 2)
                done += len(batch)
    except pa.ArrowInvalid as error:
        text = str(error).splitlines()[0]
        if "Empty CSV" in text:
            raise LogsError(f"logs `{path}`: no rows", "log an episode") from error
        raise LogsError(f"logs `{path}`: no valid CSV file: {text}") from error
    except UnicodeDecodeError as error:
        raise LogsError(
            f"logs `{path}`: row {_undecodable(path)} is not UTF-8",
            "save the table as `CSV UTF-8`",
        ) from error
    if wrong:
        more = f" and {len(wrong) - 3} more rows" if len(wrong) > 3 else ""
        raise LogsError(f"logs `{path}`: {', '.join(wrong[:3])}{more}", "correct them")


def _undecodable(path: Path) -> int:
    """Return the first line that is not UTF-8, from 1."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return number


register_reader(table_reader("CSV", (".csv", ".csv.gz"), chunks))
