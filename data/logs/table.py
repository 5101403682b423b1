"""Build `Logs` from the rows of a table, one row per decision, batch by batch."""

import difflib
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int

from sdm.data.logs.episodes import NOTHING, Logs
from sdm.data.logs.problems import FILE, LogsError, Problems
from sdm.data.logs.row_checks import Rows, check_rows, whole_steps
from sdm.data.logs.values import Codes, numbers, truths
from sdm.storage.memory import check_memory

REQUIRED = ("episode", "step", "observation", "action", "reward")
OPTIONAL = ("task", "done", "behavior_probability")
COLUMNS = (*REQUIRED, *OPTIONAL)
NAMED = ("episode", "observation", "action", "task")
SEPARATORS = (";", "\t")  # of tables that are read as one column
MANY = 20  # episodes of equal length that can be no coincidence
NUMBERS = ("reward", "behavior_probability")
_BLANK = dict.fromkeys(NAMED, NOTHING) | dict.fromkeys(NUMBERS, np.nan)
BYTES = 32  # of a row, beyond its codes and numbers, while the logs are made
AT_ONCE = 1 << 20  # rows that are placed together


@dataclass(frozen=True)
class Chunk:
    """Some rows of a table.

    Attributes:
        columns: the columns by name.
        rows: number of each row in its file, as an editor shows it.

    """

    columns: dict[str, pa.Array]
    rows: Int[np.ndarray, " R"]


@dataclass(frozen=True)
class Reading:
    """How to read logs.

    Attributes:
        observations: the names of all observations, in order; () for those in the file.
        actions: the names of all actions, in order; () for those in the file.
        reward_min: smallest possible reward; not checked if not given.
        reward_max: largest possible reward; not checked if not given.

    """

    observations: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    reward_min: float | None = None
    reward_max: float | None = None


def check_columns(path: Path, names: Collection[str]) -> None:
    """Raise `LogsError` unless a table has the columns of a log, and no others."""
    missing = [name for name in REQUIRED if name not in names]
    unknown = [name for name in names if name not in COLUMNS]
    if not missing and not unknown:
        return
    for separator in SEPARATORS:
        if missing == list(REQUIRED) and any(separator in name for name in unknown):
            raise LogsError(
                f"logs `{path}`: one column, `{unknown[0]}`, found {separator!r} in it",
                "separate the columns by commas",
            )
    parts = [f"column `{name}` is missing" for name in missing]
    for name in unknown:
        free = [each for each in COLUMNS if each not in names]
        lower = name.strip().lower()
        close = difflib.get_close_matches(lower, free, n=1)
        did = f", did you mean `{close[0]}`?" if close else ""
        parts.append(f"unknown column `{name}`{did}")
    raise LogsError(
        f"logs `{path}`: {'; '.join(parts)}",
        f"the columns are {', '.join(REQUIRED)} and optionally {', '.join(OPTIONAL)}; "
        "rename or remove others",
    )


class TableBuilder:
    """Logs of a table, of which it keeps codes and numbers only."""

    def __init__(self, path: Path, files: tuple[Path, ...], how: Reading) -> None:
        """Start without rows.

        Args:
            path: the log, for messages.
            files: the files of which it consists.
            how: declared names, and the range of rewards.

        """
        self.path = path
        self.how = how
        self.problems: Problems = Problems(path, files)
        self.codes: dict[str, Codes] = {name: Codes(name) for name in NAMED}
        self._columns: dict[str, np.ndarray] = {}
        self._rows = self._room = 0

    def add(self, chunk: Chunk, *, file: int = 0) -> None:
        """Add the rows of a chunk of a file, which is given by its index.

        Raises:
            MemoryLimitError: if the rows so far do not fit in memory.

        """
        labels = chunk.rows.astype(np.int64) + (file << FILE)
        kept: dict[str, np.ndarray] = {"label": labels}
        for name, column in chunk.columns.items():
            if name in NAMED:
                kept[name] = self.codes[name].add(column, labels, self.problems)
            elif name == "step":
                step = numbers(name, column, labels, self.problems)
                kept[name] = whole_steps(step, labels, self.problems)
            elif name in NUMBERS:
                kept[name] = numbers(name, column, labels, self.problems)
            else:
                kept[name] = truths(name, column, labels, self.problems)
        start, self._rows = self._rows, self._rows + len(labels)
        check_memory(
            self._rows * BYTES, f"logs `{self.path}`: sorting {self._rows:,} rows"
        )
        self._make_room()
        for name, values in kept.items():
            if name not in self._columns:
                blank = _BLANK.get(name, False)
                self._columns[name] = np.full(self._room, blank, values.dtype)
            self._columns[name][start : self._rows] = values

    def _make_room(self) -> None:
        """Lengthen all columns in place, by more than needed now."""
        if self._rows <= self._room:
            return
        old, self._room = self._room, max(self._rows, self._room * 5 // 4)
        for name, column in self._columns.items():
            column.resize(self._room, refcheck=False)
            column[old:] = _BLANK.get(name, False)

    def finish(self) -> Logs:
        """Check the rows, and return the logs.

        Raises:
            LogsError: if there are no rows, or rows have problems.

        """
        if not self._rows:
            raise LogsError(f"logs `{self.path}`: no rows", "log at least one episode")
        self.problems.check()  # what is no number would cause further problems
        del self.codes["episode"]  # whose names nobody needs
        found = {name: column[: self._rows] for name, column in self._columns.items()}
        self._columns.clear()
        declared = {"observation": self.how.observations, "action": self.how.actions}
        names: dict[str, tuple[str, ...]] = {"task": ("all",)}
        for name in ("observation", "action", "task"):
            if name in found:
                names[name], place = self.codes[name].ordered(
                    self.problems, declared.get(name, ()), free=name == "task"
                )
                place = np.append(place, NOTHING)  # code -1 is the last entry
                found[name] = place[found[name]].astype(np.int32)
        limits = self.how.reward_min, self.how.reward_max
        rows = check_rows(found, self.problems, limits)
        self.problems.check()
        return _filled(rows, names)


def _filled(rows: Rows, names: dict[str, tuple[str, ...]]) -> Logs:
    """Return the logs of rows that are sorted by episode and step, and are valid."""
    decision = rows.action != NOTHING
    count = int(rows.episode.max()) + 1
    length = np.zeros(count, np.int64)
    length[rows.episode[rows.last]] = rows.step[rows.last] + decision[rows.last]
    shape = (count, int(length.max()))
    observation = np.full((count, shape[1] + 1), NOTHING, np.int32)
    action, reward = np.full(shape, NOTHING, np.int32), np.zeros(shape)
    probability = None if rows.probability is None else np.ones(shape)
    task = np.zeros(count, np.int32)
    for start in range(0, len(decision), AT_ONCE):
        block = slice(start, start + AT_ONCE)
        place = rows.episode[block], rows.step[block]
        observation[place] = rows.observation[block]
        task[place[0]] = rows.task[block]
        inside = decision[block]
        where = place[0][inside], place[1][inside]
        action[where] = rows.action[block][inside]
        reward[where] = rows.reward[block][inside]
        if probability is not None and rows.probability is not None:
            probability[where] = rows.probability[block][inside]
    if rows.done is None:
        done = _assumed_ends(length)
    else:
        done = np.zeros(count, bool)
        done[rows.episode[rows.done]] = True
        _warn_of_a_limit(done, length)
    return Logs(
        observation=observation,
        action=action,
        reward=reward,
        done=done,
        task=task,
        probability=probability,
        observations=names["observation"],
        actions=names["action"],
        tasks=names["task"],
    )


def _warn_of_a_limit(
    done: Bool[np.ndarray, " N"], length: Int[np.ndarray, " N"]
) -> None:
    """Warn if ends look like the end of the follow-up, which is no event."""
    same = bool(done.all() and (length == length[0]).all())
    if same and len(done) >= MANY and length[0] > 1:
        warnings.warn(
            f"all {len(done)} episodes are `done` after {length[0]} decisions: if that "
            "is the end of the follow-up and no event, set `done` to false, since "
            "estimates take it for an event that can happen at any time",
            stacklevel=2,
        )


def _assumed_ends(length: Int[np.ndarray, " N"]) -> np.ndarray:
    """Return which episodes ended, of a log that does not say so.

    An episode shorter than the longest has ended; the longest were cut off.
    """
    ended = length < length.max()
    if ended.any():
        warnings.warn(
            f"logs without a column `done`: assumed that the {int(ended.sum())} "
            f"episodes shorter than {length.max()} decisions ended, and that the "
            "others were cut off",
            stacklevel=2,
        )
    return ended


def logs_of_table(
    path: Path,
    files: tuple[Path, ...],
    chunks: Iterator[tuple[int, Chunk]],
    how: Reading,
) -> Logs:
    """Return the logs of the chunks of files, each with the index of its file."""
    builder = TableBuilder(path, files, how)
    for file, chunk in chunks:
        check_columns(files[file], list(chunk.columns))
        builder.add(chunk, file=file)
    return builder.finish()
