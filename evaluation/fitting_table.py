"""Tables that fit the terminal: no word or number is broken while columns can go.

A column of numbers is never narrower than its widest cell, and a column of text never
narrower than `READABLE` characters or its longest word. If the columns are wider than
the terminal, the least important ones are hidden, and a note below the table says so.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Column, Table
from rich.text import Text

READABLE = 24  # characters: text in narrower columns is a ladder of single words
LONG = 30  # characters: longer words, such as paths, may be broken, and cells wrapped


class FittingTable(Table):
    """A table that hides empty columns, and others if the terminal is too narrow.

    Attributes:
        spare: titles of columns that are hidden first, in this order. Then follow the
            others, except the first two, from right to left.

    """

    def __init__(self, *, spare: Sequence[str] = (), **options: Any) -> None:
        """Make a table without columns; `options` are those of `rich.table.Table`."""
        super().__init__(**options)
        self.spare = spare

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[Any]:
        """Draw the columns that fit, and list the hidden ones below the table."""
        filled = [x for x in self.columns if any(map(str, x.cells)) or not self.rows]
        shown, hidden = self._copied(filled), list[str]()
        for title in self._order():
            if shown._room(options.max_width) >= 0:
                break
            kept = [column for column in shown.columns if column.header != title]
            if 0 < len(kept) < len(shown.columns):
                shown = self._copied(kept)
                hidden.append(title)
        below = [str(self.caption)] if self.caption else []
        if hidden:
            note = f"terminal too narrow, columns hidden: {', '.join(hidden)}"
            below.append(f"{note}; --json has all")
        # Text of a narrow table is not wrapped to the table's width.
        shown.title = shown.caption = None
        shown._share(options.max_width)
        if self.title:
            yield Text.from_markup(str(self.title), style="bold")
        yield from Table.__rich_console__(shown, console, options)
        if below:
            yield Text.from_markup("\n".join(below), style="dim")

    def _copied(self, columns: Sequence[Column]) -> "FittingTable":
        """Return a copy with some of the columns."""
        made = copy.copy(self)
        made.columns = [copy.copy(column) for column in columns]
        return made

    def _order(self) -> list[str]:
        """Return the titles of columns in the order of hiding."""
        others = [str(column.header) for column in reversed(self.columns[2:])]
        return [*self.spare, *(name for name in others if name not in self.spare)]

    def _room(self, width: int) -> int:
        """Return the characters that the narrowest readable table leaves."""
        return width - self._frame() - sum(map(_least, self.columns))

    def _frame(self) -> int:
        """Return the characters of borders and padding."""
        return 3 * len(self.columns) + 1

    def _share(self, width: int) -> None:
        """Set the width of each column: its natural one, or a share of the room."""
        least = [_least(column) for column in self.columns]
        natural = [max(_natural(column), _least(column)) for column in self.columns]
        room = max(self._room(width), 0)
        wanted = sum(natural) - sum(least)
        for column, low, high in zip(self.columns, least, natural, strict=True):
            extra = high - low
            if wanted > room:
                extra = extra * room // wanted
            column.width, column.overflow = low + extra, "fold"


def _lines(cells: Iterable[Any]) -> list[str]:
    """Return the lines of cells, without markup."""
    texts = (Text.from_markup(x).plain if isinstance(x, str) else str(x) for x in cells)
    return [line for text in texts for line in text.splitlines()]


def _least(column: Column) -> int:
    """Return the smallest width at which a column is readable."""
    cells = _lines(column._cells)
    words = [w for line in (*_lines([column.header]), *cells) for w in line.split()]
    longest = max(map(cell_len, words), default=1)
    widest = max(map(cell_len, cells), default=1)
    if column.justify == "right" and widest <= LONG:  # numbers and intervals
        return max(longest, widest)
    return max(min(longest, LONG), min(READABLE, _natural(column)))


def _natural(column: Column) -> int:
    """Return the width at which no line of a column is wrapped."""
    lines = _lines([column.header, *column._cells])
    return max(map(cell_len, lines), default=1)
