"""Read the preamble of a file in Cassandra's format: discount, values and names.

The five lines may come in any order. `discount:` and `values:` may also come after
entries; `states:`, `actions:` and `observations:` must come before entries that use
them. A file without `observations:` is an MDP.
"""

from dataclasses import dataclass, field
from pathlib import Path

from sdm.tasks.cassandra_words import (
    PREAMBLE,
    RESERVED,
    SIGNS,
    WHOLE,
    Names,
    PomdpFileError,
    Reader,
)

MOST_NAMES = 1_000_000
OPEN, CLOSE = "([{<", ")]}>"


@dataclass
class Preamble:
    """Content of a preamble, as far as it is read.

    Attributes:
        discount: the discount factor.
        sign: 1 if the file states rewards, -1 if it states costs.
        names: the states, actions and observations, by keyword.
        lines: the line of each keyword that was read.

    """

    discount: float = 1.0
    sign: float = 1.0
    names: dict[str, Names] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def take(self, reader: Reader) -> None:
        """Read one line of the preamble.

        Raises:
            PomdpFileError: if it is not in the format or given twice.

        """
        keyword = reader.take("a keyword")
        reader.colon()
        line = reader.line
        if keyword in SIGNS:  # `costs:` alone in place of `values: cost`
            if not reader.begins_entry():
                raise reader.error(
                    f"`{keyword}:` has no content in this format: write `values: "
                    f"{keyword.removesuffix('s')}`, and each number in an `R:` entry"
                )
            self.once(reader, "values", line)
            self.sign = SIGNS[keyword]
            return
        self.once(reader, keyword, line)
        if keyword == "discount":
            self.discount = reader.number("the discount", chance=True)
        elif keyword == "values":
            self.sign = _sign(reader)
        else:
            self.names[keyword] = Names(keyword[:-1], _names(reader, keyword))

    def once(self, reader: Reader, keyword: str, line: int) -> None:
        """Record the line of a keyword; raise an error if it has one already."""
        if keyword in self.lines:
            raise reader.error(
                f"`{keyword}:` is given twice, first in line {self.lines[keyword]}",
                line,
            )
        self.lines[keyword] = line

    def missing(self, *, entry: str = "") -> str | None:
        """Return the first keyword that is missing for an entry, or at the end."""
        if entry:
            needed = ["states", "actions"] + ["observations"] * (entry == "O")
        else:
            needed = [name for name in PREAMBLE if name != "observations"]
        return next((name for name in needed if name not in self.lines), None)


def not_given(reader: Reader, keyword: str, before: str = "") -> PomdpFileError:
    """Return the error for a missing keyword."""
    where = f"before the first `{before}:`" if before else "before the end"
    how = {
        "values": "add `values: reward` or `values: cost`",
        "discount": "add a line such as `discount: 0.95`",
    }.get(keyword, f"add a line such as `{keyword}: 2`")
    return reader.error(f"`{keyword}:` is not given {where}: {how}")


def _sign(reader: Reader) -> float:
    """Return the sign of the file's values: those of costs are negated."""
    word = reader.take("`reward` or `cost`")
    if word.lower() not in SIGNS:
        raise reader.error(f"expected `reward` or `cost`, found `{word}`")
    return SIGNS[word.lower()]


def _names(reader: Reader, keyword: str) -> list[str]:
    """Return the names after a keyword, or numbers if a count follows it."""
    names: list[str] = []
    while not reader.begins_entry():
        word = reader.take("a name")
        if word in RESERVED:
            raise reader.error(
                f"`{keyword}:` has the name `{word}`, which is reserved "
                "(is a `:` missing?)"
            )
        names += _split(word)
    if not names:
        raise reader.error(f"`{keyword}:` must have a number or names, found none")
    if len(names) == 1 and WHOLE.fullmatch(names[0]):
        if len(names[0]) > 7 or not 1 <= int(names[0]) <= MOST_NAMES:
            raise reader.error(f"{names[0][:20]} {keyword}: must be 1 to {MOST_NAMES}")
        return [str(i) for i in range(int(names[0]))]
    for name in names:
        if name[0] in "+-." or (name[0].isdecimal() and not _plain(name)):
            raise reader.error(
                f"`{keyword}:` has `{name}`: must be one whole number, or names"
            )
    if len(set(names)) < len(names):
        raise reader.error(f"`{keyword}:` has a name twice")
    return names


def _plain(name: str) -> bool:
    """Return whether a name that starts with a digit cannot be mistaken for a number.

    Digits other than 0 to 9 look like a number, but are none in this format.
    """
    return name.isalnum() and (name.isascii() or not name.isdecimal())


def _split(word: str) -> list[str]:
    """Split a word at commas, but not inside brackets: `(0,1)` is one name."""
    parts, depth = [""], 0
    for c in word:
        depth += (c in OPEN) - (c in CLOSE)
        if c == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += c
    return [part for part in parts if part]


def has_observations(path: Path) -> bool:
    """Return whether a file has `observations:`, from its words before `O:` and `R:`.

    Raises:
        PomdpFileError: if the file is not text.
        OSError: if it cannot be read.

    """
    reader, before = Reader(path), ""
    while word := reader.peek():
        if word == ":" and before in ("observations", "O", "R"):
            return before != "R"
        before = reader.take("a word")
    return False
