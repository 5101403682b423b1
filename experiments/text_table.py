"""Tables of the report, as text."""

from dataclasses import dataclass

NOT_RUN = "not run"
NOT_KNOWN = "not known"


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Attributes:
        texts: its fields.
        done: whether its cells have been run.

    """

    texts: list[str]
    done: bool


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        head: titles of the columns.
        names: number of leading text columns.
        lines: its lines.

    """

    head: list[str]
    names: int
    lines: list[Line]
