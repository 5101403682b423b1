"""Read the preamble of a file in Cassandra's format: all that precedes the entries."""

from typing import NamedTuple

from sdm.tasks.cassandra_words import (
    ENTRIES,
    PREAMBLE,
    RESERVED,
    Names,
    PomdpFileError,
    Reader,
)

MOST_NAMES = 1_000_000


class Preamble(NamedTuple):
    """Content of a preamble.

    Attributes:
        discount: the discount factor.
        sign: 1 if the file states rewards, -1 if it states costs.
        states: the states.
        actions: the actions.
        observations: the observations.

    """

    discount: float
    sign: float
    states: Names
    actions: Names
    observations: Names


def read_preamble(reader: Reader) -> Preamble:
    """Read up to the first entry.

    Raises:
        PomdpFileError: if a line is missing or not in the format.

    """
    sign, discount, sizes = 1.0, None, {}
    while reader.peek() not in ("", *ENTRIES):
        if reader.peek() not in PREAMBLE:
            raise reader.unknown_keyword()
        keyword = reader.take("a keyword")
        reader.colon()
        if keyword == "discount":
            discount = reader.number("the discount", chance=True)
        elif keyword == "values":
            sign = _sign(reader)
        else:
            sizes[keyword] = Names(keyword[:-1], _names(reader, keyword))
    if discount is None:
        raise _missing(reader, "discount")
    for keyword in ("states", "actions", "observations"):
        if keyword not in sizes:
            raise _missing(reader, keyword)
    return Preamble(discount, sign, **sizes)


def _missing(reader: Reader, keyword: str) -> PomdpFileError:
    return reader.error(f"`{keyword}:` is not given before the first entry")


def _sign(reader: Reader) -> float:
    """Return the sign of the file's values: those of costs are negated."""
    word = reader.take("`reward` or `cost`")
    if word not in ("reward", "cost"):
        raise reader.error(f"expected `reward` or `cost`, found `{word}`")
    return 1.0 if word == "reward" else -1.0


def _names(reader: Reader, keyword: str) -> list[str]:
    """Return the names after a keyword, or numbers if a count follows it."""
    names: list[str] = []
    while not reader.begins_entry():
        names.append(reader.take("a name"))
        if names[-1] in RESERVED:
            raise reader.error(
                f"`{keyword}:` has the name `{names[-1]}`, which is reserved "
                "(is a `:` missing?)"
            )
    if not names:
        raise reader.error(f"`{keyword}:` must have a number or names, found none")
    if len(names) == 1 and names[0].isdecimal():
        if len(names[0]) > 7 or not 1 <= int(names[0]) <= MOST_NAMES:
            raise reader.error(f"{names[0][:20]} {keyword}: must be 1 to {MOST_NAMES}")
        return [str(i) for i in range(int(names[0]))]
    for name in names:
        if name[0] in "+-." or (name[0].isdecimal() and not name.isalnum()):
            raise reader.error(
                f"`{keyword}:` has `{name}`: must be one whole number, or names"
            )
    if len(set(names)) < len(names):
        raise reader.error(f"`{keyword}:` has a name twice")
    return names
