"""Tables of a file in Cassandra's format, as a log of entries; the last entry wins.

A table of shape A × R × C, such as P(s' | s, a), is never allocated. An entry for whole
rows records the value of their cells in arrays of shape A × R; an entry for single
cells appends them to a log. A row or a matrix of numbers is a row of zeros with its
nonzero cells on top, so that memory grows with the nonzero numbers in the file.
"""

from array import array
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sdm.storage.memory import check_memory


class Cells(NamedTuple):
    """Nonzero cells of a table, sorted by action, row and column."""

    action: Int[np.ndarray, " N"]
    row: Int[np.ndarray, " N"]
    column: Int[np.ndarray, " N"]
    value: Float[np.ndarray, " N"]


class Log:
    """Cells by code, with the order of their entries."""

    def __init__(self) -> None:
        self._code, self._order, self._value = array("q"), array("q"), array("d")

    def append(self, code: int, order: int, value: float) -> None:
        """Append one cell."""
        self._code.append(code)
        self._order.append(order)
        self._value.append(value)

    def extend(
        self,
        code: Int[np.ndarray, " N"],
        order: Int[np.ndarray, " N"] | int,
        value: Float[np.ndarray, " N"] | float,
    ) -> None:
        """Append several cells."""
        for column, x, kind in (
            (self._code, code, np.int64),
            (self._order, order, np.int64),
            (self._value, value, np.float64),
        ):
            column.frombytes(np.broadcast_to(x, code.shape).astype(kind).tobytes())

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the code, order and value of every cell, in the order of entries."""
        return (
            np.array(self._code, np.int64),
            np.array(self._order, np.int64),
            np.array(self._value, np.float64),
        )

    def last(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return sorted codes, and the order and value of the last entry for each."""
        code, order, value = self.columns()
        by_code = np.argsort(code, kind="stable")
        code = code[by_code]
        final = np.append(code[1:] != code[:-1], True)[: len(code)]
        chosen = by_code[final]
        return code[final], order[chosen], value[chosen]

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self._code)


FILLED = 40  # bytes for each cell of a row with equal probabilities


class Table:
    """Probabilities in a file, by action, row and column.

    Attributes:
        shape: numbers of actions, rows and columns.
        line: line of the last entry for each row [A, R]; 0 if there is none.

    """

    def __init__(self, actions: int, rows: int, columns: int) -> None:
        """Make a table without entries."""
        self.shape = (actions, rows, columns)
        self.line = np.zeros((actions, rows), np.int64)
        self._value = np.zeros((actions, rows))  # of all cells of the row
        self._since = np.zeros((actions, rows), np.int64)  # order of the entry
        self._log, self._order = Log(), 0
        self._resets: list[tuple[int, np.ndarray]] = []

    def fill(self, action: slice, row: slice, value: float, line: int) -> None:
        """Set all cells of rows to one value."""
        self._order += 1
        self._value[action, row] = value
        self._since[action, row] = self._order
        self.line[action, row] = line

    def set_cells(
        self, action: slice, row: slice, column: slice, value: float, line: int
    ) -> None:
        """Set one column, or all of them, to a value."""
        if column == slice(None):
            return self.fill(action, row, value, line)
        self._order += 1
        self.line[action, row] = line
        rows = self._rows(action, row)
        if rows.size == 1:
            code = int(rows[0]) * self.shape[2] + column.start
            self._log.append(code, self._order, value)
        else:
            self._log.extend(rows * self.shape[2] + column.start, self._order, value)
        return None

    def set_rows(
        self, action: slice, row: slice, values: Float[np.ndarray, " C"], line: int
    ) -> None:
        """Set rows to a list of numbers."""
        self.fill(action, row, 0.0, line)
        self._order += 1
        (columns,) = np.nonzero(values)
        rows = self._rows(action, row)[:, None] * self.shape[2]
        several = np.broadcast_to(values[columns], (len(rows), len(columns)))
        self._log.extend((rows + columns).ravel(), self._order, several.ravel())

    def set_identity(self, action: slice, line: int) -> None:
        """Set every row to its own column."""
        self.fill(action, slice(None), 0.0, line)
        self._order += 1
        rows = self._rows(action, slice(None))
        self._log.extend(rows * self.shape[2] + rows % self.shape[1], self._order, 1.0)

    def set_reset(self, action: slice, row: slice, line: int) -> None:
        """Set rows to the initial distribution."""
        self.fill(action, row, 0.0, line)
        self._order += 1
        self._resets.append((self._order, self._rows(action, row)))

    def cells(self, initial: Float[np.ndarray, " C"]) -> Cells:
        """Return the nonzero cells.

        Args:
            initial: the initial distribution, for rows that reset to it.

        """
        _, rows, columns = self.shape
        code, order, value = self._with_resets(initial).last()
        current = order > self._since.ravel()[code // columns]
        code, value = code[current], value[current]
        (filled,) = np.nonzero(self._value.ravel())
        size = FILLED * len(filled) * columns
        check_memory(
            size, f"a table with {len(filled)} rows of {columns} equal numbers"
        )
        under = (filled[:, None] * columns + np.arange(columns)).ravel()
        under = under[~member(under, code)]
        code = np.concatenate([code, under])
        value = np.concatenate([value, self._value.ravel()[under // columns]])
        kept = np.flatnonzero(value)
        kept = kept[np.argsort(code[kept], kind="stable")]
        row = code[kept] // columns
        return Cells(row // rows, row % rows, code[kept] % columns, value[kept])

    def sums(self, cells: Cells) -> Float[np.ndarray, "A R"]:
        """Return the sum of every row."""
        row = cells.action * self.shape[1] + cells.row
        size = self.shape[0] * self.shape[1]
        total = np.bincount(row, cells.value, size).astype(float)  # int without cells
        return total.reshape(self.shape[:2])

    def _with_resets(self, initial: np.ndarray) -> Log:
        """Return the log with the cells of resets, in the order of entries."""
        if not self._resets:
            return self._log
        (columns,) = np.nonzero(initial)
        full, ordered = Log(), Log()
        full.extend(*self._log.columns())
        for order, rows in self._resets:
            code = rows[:, None] * self.shape[2] + columns
            value = np.broadcast_to(initial[columns], code.shape)
            full.extend(code.ravel(), order, value.ravel())
        known = full.columns()
        by_order = np.argsort(known[1], kind="stable")
        ordered.extend(*(x[by_order] for x in known))
        return ordered

    def _rows(self, action: slice, row: slice) -> Int[np.ndarray, " N"]:
        """Return the numbers a R + r of the rows of an entry."""
        actions, rows, _ = self.shape
        each = np.arange(rows)[row]
        return (np.arange(actions)[action][:, None] * rows + each).ravel()


def member(codes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return whether each code is one of the known ones, which are sorted."""
    if not len(known):
        return np.zeros(len(codes), bool)
    at = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    return known[at] == codes
