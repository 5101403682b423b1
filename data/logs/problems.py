"""Collect the problems of a log, with the rows in which they are."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

SHOWN = 3  # rows that a message lists for each problem
FILE = 40  # bits below the index of the file in a row's label


class LogsError(ValueError):
    """A log that cannot be used, with all of its problems in one line."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Set the message, and the hint on how to fix it."""
        super().__init__(message)
        self.hint = hint


class Problems:
    """Problems of the rows of one or several files.

    A row's label is its number in its file, as an editor shows it, plus the index of
    the file shifted by `FILE` bits.
    """

    def __init__(self, path: Path, files: tuple[Path, ...]) -> None:
        """Set the path for messages, and the files that labels refer to."""
        self.path = path
        self.files = files
        self._found: dict[str, tuple[list[str], int]] = {}

    def add(
        self,
        what: str,
        rows: Int[np.ndarray, " R"],
        wrong: Bool[np.ndarray, " R"],
        found: object = None,
    ) -> None:
        """Record a problem of the rows for which `wrong` holds, if there are any.

        The rows of several calls with the same problem are reported together.

        Args:
            what: the problem, such as `reward` is missing.
            rows: labels of rows.
            wrong: which of them have the problem.
            found: value of each row, for the message; None for no values.

        """
        index = np.flatnonzero(wrong)
        if not len(index):
            return
        places, count = self._found.get(what, ([], 0))
        values = None if found is None else np.asarray(found, object)
        places += [
            self.place(int(rows[i]))
            + ("" if values is None else f" (found {values[i]})")
            for i in index[: SHOWN - len(places)]
        ]
        self._found[what] = places, count + len(index)

    def place(self, label: int) -> str:
        """Return a row's number, with the name of its file if there are several."""
        file, row = int(label) >> FILE, int(label) & ((1 << FILE) - 1)
        return (
            str(row) if len(self.files) < 2 else f"{row} of `{self.files[file].name}`"
        )

    def check(self, hint: str = "correct these rows") -> None:
        """Raise `LogsError` with all recorded problems, if there are any."""
        if not self._found:
            return
        texts = []
        for what, (places, count) in self._found.items():
            word = "row" if count == 1 else "rows"
            more = f" and {count - len(places)} more" if count > len(places) else ""
            texts.append(f"{what} in {word} {', '.join(places)}{more}")
        raise LogsError(f"logs `{self.path}`: {'; '.join(texts)}", hint)
