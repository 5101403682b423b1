"""Registry of readers of logs, and `read_logs`.

A reader is one module of `sdm.data.logs.readers`, which registers itself:

    register_reader(LogReader("name", reads=is_mine, read=read_mine))

A file format with one row per decision only has to yield its rows in chunks: see
`table_reader`.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa

from sdm.data.logs.episodes import Logs
from sdm.data.logs.problems import LogsError
from sdm.data.logs.table import Chunk, Reading, logs_of_table
from sdm.storage.checks import check_finite
from sdm.storage.ownership import check_finished
from sdm.storage.plugins import load_plugins

PACKAGE = "sdm.data.logs.readers"


@dataclass(frozen=True)
class LogReader:
    """A reader of one form of logs.

    Attributes:
        name: name in messages.
        reads: whether a file or folder has this form.
        read: reads it; raises `LogsError` or `OSError`.
        last: whether other readers come first, because this one accepts folders of
            tables.

    """

    name: str
    reads: Callable[[Path], bool]
    read: Callable[[Path, Reading], Logs]
    last: bool = False


_readers: dict[str, LogReader] = {}


def register_reader(new: LogReader) -> None:
    """Register a reader.

    Raises:
        ValueError: if another reader has its name.

    """
    if _readers.setdefault(new.name, new) is not new:
        raise ValueError(f"log reader `{new.name}`: registered already")


def table_reader(
    name: str, suffixes: tuple[str, ...], chunks: Callable[[Path], Iterator[Chunk]]
) -> LogReader:
    """Return the reader of files with one row per decision, and of folders of them.

    Args:
        name: name in messages.
        suffixes: ends of file names, in lower case.
        chunks: yields the rows of a file, of which few need to be in memory at a time.

    """

    def files(path: Path) -> tuple[Path, ...]:
        if path.is_file():
            return (path,) if path.name.lower().endswith(suffixes) else ()
        inside = (each for each in path.iterdir() if each.name[:1] not in "._")
        mine = (each for each in inside if each.name.lower().endswith(suffixes))
        return tuple(sorted(each for each in mine if each.is_file()))

    def every(paths: tuple[Path, ...]) -> Iterator[tuple[int, Chunk]]:
        for index, path in enumerate(paths):
            try:
                yield from ((index, chunk) for chunk in chunks(path))
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                if getattr(error, "filename", None):  # it says what is wrong
                    raise
                first = str(error).strip().splitlines()[0]
                raise LogsError(
                    f"logs `{path}`: damaged: {first}", "write the file again"
                ) from error

    return LogReader(
        name,
        reads=lambda path: bool(files(path)),
        read=lambda path, how: logs_of_table(
            path, files(path), every(files(path)), how
        ),
        last=True,
    )


@cache
def _load_all() -> None:
    load_plugins(PACKAGE, group="sdm.log_readers", what="log reader")


def log_readers() -> tuple[LogReader, ...]:
    """Return all readers, in the order in which they are asked."""
    _load_all()
    return tuple(sorted(_readers.values(), key=lambda reader: reader.last))


def read_logs(
    path: str | os.PathLike[str],
    *,
    observations: Sequence[str] = (),
    actions: Sequence[str] = (),
    reward_min: float | None = None,
    reward_max: float | None = None,
) -> Logs:
    r"""Read logged episodes from a file or a folder.

    Args:
        path: a table with one row per decision (`.parquet`, `.csv`, `.jsonl`, the
            latter two also compressed by gzip), a folder of such tables, a Minari
            dataset, or a dataset of `sdm solve --out`.
        observations: names of all observations, in order, also of those that do not
            occur; by default those that occur.
        actions: names of all actions, likewise.
        reward_min: smallest possible reward, in the units of the log.
        reward_max: largest possible reward.

    Raises:
        LogsError: if it is no log, or rows have problems, with their numbers.
        OSError: if it cannot be read.

    Example:
        >>> from pathlib import Path
        >>> from sdm.data.logs import read_logs
        >>> table = ["episode,step,observation,action,reward"]
        >>> table += ["a,0,mild,wait,0.2", "a,1,severe,treat,0.0"]
        >>> table += ["b,0,mild,treat,0.5", "b,1,mild,wait,0.4"]
        >>> _ = Path("visits.csv").write_text("\n".join(table))
        >>> logs = read_logs("visits.csv")
        >>> logs.episodes, logs.horizon, logs.actions
        (2, 2, ('treat', 'wait'))

    """
    place = Path(path)
    if not place.exists():
        raise LogsError(f"logs `{place}`: no such file or folder", "check the path")
    check_finished(place)
    for name, limit in (("reward_min", reward_min), ("reward_max", reward_max)):
        if limit is not None:
            check_finite(name, limit)
    how = Reading(tuple(observations), tuple(actions), reward_min, reward_max)
    for reader in log_readers():
        if reader.reads(place):
            try:
                return reader.read(place, how)
            except UnicodeDecodeError as error:
                raise LogsError(
                    f"logs `{place}`: text must be UTF-8, found {error}",
                    "convert the file",
                ) from error
    known = ", ".join(reader.name for reader in log_readers())
    raise LogsError(
        f"logs `{place}`: unknown format, must be one of {known}",
        "save the table as `.csv` or `.parquet`",
    )
