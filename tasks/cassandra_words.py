"""Tokenizer of files in Cassandra's format, with line numbers for errors."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

LONGEST_LINE = 1 << 24  # characters
PREAMBLE = ("discount", "values", "states", "actions", "observations")
ENTRIES = ("start", "T", "O", "R")
KEYWORDS = (*PREAMBLE, *ENTRIES)
RESERVED = {*KEYWORDS, "include", "exclude", "uniform", "identity", "reset"}
RESERVED |= {"reward", "cost"}
LARGEST = 1e150  # largest magnitude of a number, so that its square is finite


class PomdpFileError(ValueError):
    """A file that is not in Cassandra's format."""


class Token(NamedTuple):
    """A word of the file and its line number."""

    text: str
    line: int


class Reader:
    """Reader of the words of a file, in order."""

    def __init__(self, path: Path) -> None:
        """Read and split the file."""
        self.path = path
        self.words = list(self._split())
        self.at = 0

    def _split(self) -> Iterator[Token]:
        with self.path.open("rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise self.error(
                        f"a line longer than {LONGEST_LINE} characters", number
                    )
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise self.error(f"not UTF-8 text: {error}", number) from error
                text = text.partition("#")[0].replace(":", " : ")
                yield from (Token(word, number) for word in text.split())

    def error(self, message: str, line: int | None = None) -> PomdpFileError:
        """Return an error at a line, by default that of the last word taken."""
        line = self.line if line is None else line
        return PomdpFileError(f"`{self.path}`, line {line}: {message}")

    @property
    def line(self) -> int:
        """Line of the last word taken."""
        return self.words[max(0, self.at - 1)].line if self.words else 1

    def peek(self, ahead: int = 0) -> str:
        """Return a later word without taking it; "" at the end of the file."""
        at = self.at + ahead
        return self.words[at].text if at < len(self.words) else ""

    def take(self, what: str) -> str:
        """Take the next word; `what` describes it in an error."""
        if self.at >= len(self.words):
            raise self.error(f"expected {what}, found the end of the file")
        self.at += 1
        return self.words[self.at - 1].text

    def colon(self) -> None:
        """Take a colon."""
        if (found := self.take("`:`")) != ":":
            raise self.error(f"expected `:`, found `{found}`")

    def number(self, what: str, *, chance: bool = False) -> float:
        """Take a finite number, which must lie in [0, 1] if it is a probability."""
        word = self.take(what)
        try:
            value = float(word)
        except ValueError:
            raise self.error(f"expected {what}, found `{word}`") from None
        if not abs(value) <= LARGEST:
            raise self.error(
                f"{what} is `{word}`: must be at most {LARGEST:g} in magnitude"
            )
        if chance and not 0 <= value <= 1:
            raise self.error(f"{what} is `{word}`: must be in [0, 1]")
        return value

    def numbers(self, count: int, what: str, *, chances: bool) -> np.ndarray:
        """Take `count` numbers."""
        return np.array([self.number(what, chance=chances) for _ in range(count)])

    def begins_entry(self) -> bool:
        """Return whether a new entry begins here, or the file ends."""
        word, after = self.peek(), self.peek(1)
        if word == "start" and after in ("include", "exclude"):
            return True
        return not word or after == ":"

    def unknown_keyword(self) -> PomdpFileError:
        """Return the error for a next word that begins no entry."""
        word = self.take("a keyword")
        if word in PREAMBLE:
            return self.error(f"`{word}:` must come before the first entry")
        if word[0] in "+-.0123456789":
            return self.error(f"expected an entry, found the extra number `{word}`")
        return self.error(f"unknown keyword `{word}`: must be {', '.join(KEYWORDS)}")


class Names:
    """The states, actions or observations of a file."""

    def __init__(self, kind: str, names: list[str]) -> None:
        """Number the names."""
        self.kind, self.names = kind, names
        self.index = {name: i for i, name in enumerate(names)}

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self.names)

    def find(self, reader: Reader) -> slice:
        """Take the next word, a name, number or `*`, and return its index."""
        word = reader.take(f"a {self.kind}")
        if word == "*":
            return slice(None)
        if word in self.index:
            return slice(self.index[word], self.index[word] + 1)
        if word.isdecimal() and int(word) < len(self):
            return slice(int(word), int(word) + 1)
        raise reader.error(f"unknown {self.kind} `{word}`")
