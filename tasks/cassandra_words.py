"""Tokenizer of files in Cassandra's format, with line numbers for errors.

The file is read line by line, so that memory does not grow with its length.
"""

import difflib
import gzip
import math
import re
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

LONGEST_LINE = 1 << 24  # bytes
LARGEST_FILE = 1 << 30  # bytes that a compressed file may have when it is unpacked
PREAMBLE = ("discount", "values", "states", "actions", "observations")
ENTRIES = ("start", "T", "O", "R")
KEYWORDS = (*PREAMBLE, *ENTRIES)
SIGNS = {"reward": 1.0, "rewards": 1.0, "cost": -1.0, "costs": -1.0}
RESERVED = {*KEYWORDS, *SIGNS}
RESERVED |= {"include", "exclude", "uniform", "identity", "reset", "*"}
FORBIDDEN = (
    "; to forbid an action, load the file in Python with a finite reward, set the "
    "model's `admissible`, and save it with `save_npz`"
)
LARGEST = 1e150  # largest magnitude of a number, so that its square is finite

WHOLE = re.compile(r"[0-9]+")
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
PLAIN = str.maketrans("", "", "0123456789+-.eE")  # deletes what numbers consist of


class PomdpFileError(ValueError):
    """A file that does not describe a model in its format."""


class Reader:
    """Reader of the words of a file, in order.

    Attributes:
        path: the file; it may be compressed by gzip.
        line: line of the last word taken.

    """

    def __init__(self, path: Path) -> None:
        """Open the file."""
        self.path = path
        self.line = 1
        self._lines = self._split()
        self._ahead: deque[tuple[int, list[str]]] = deque()
        self._at = 0  # the next word in the first of the lines ahead

    def _split(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number and the words of every line that has words."""
        number = 0
        for number, raw in enumerate(read_lines(self.path), 1):
            if len(raw) == LONGEST_LINE:
                raise self.error(f"a line longer than {LONGEST_LINE} bytes", number)
            if number == 1:
                raw = self._first(raw)
            try:  # comments may have any encoding
                text = raw.partition(b"#")[0].decode()
            except UnicodeDecodeError as error:
                raise self.error(
                    f"not UTF-8 text: {error}; other encodings are for comments only",
                    number,
                ) from error
            words = text.replace(":", " : ").replace("*", " * ").split()
            if words:
                yield number, words

    def _first(self, raw: bytes) -> bytes:
        """Return the first line without byte order mark."""
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise self.error("UTF-16 text: save the file as UTF-8", 1)
        raw = raw.removeprefix(b"\xef\xbb\xbf")
        if raw.lstrip().startswith(b"<"):
            raise self.error("XML: rename the file to `.pomdpx` if it is PomdpX", 1)
        return raw

    def _load(self, ahead: int) -> tuple[int, str] | None:
        """Return line and text of a later word; None after the end of the file."""
        at = self._at + ahead
        for number, words in self._ahead:
            if at < len(words):
                return number, words[at]
            at -= len(words)
        for line in self._lines:
            self._ahead.append(line)
            if at < len(line[1]):
                return line[0], line[1][at]
            at -= len(line[1])
        return None

    def _skip(self, count: int) -> None:
        """Pass `count` words of the first line ahead."""
        self.line, words = self._ahead[0]
        self._at += count
        if self._at == len(words):
            self._ahead.popleft()
            self._at = 0

    def error(self, message: str, line: int | None = None) -> PomdpFileError:
        """Return an error at a line, by default that of the last word taken."""
        line = self.line if line is None else line
        return PomdpFileError(f"`{self.path}`, line {line}: {message}")

    def peek(self, ahead: int = 0) -> str:
        """Return a later word without taking it; "" at the end of the file."""
        found = self._load(ahead)
        return "" if found is None else found[1]

    def take(self, what: str) -> str:
        """Take the next word; `what` describes it in an error."""
        found = self._load(0)
        if found is None:
            raise self.error(f"expected {what}, found the end of the file")
        self._skip(1)
        return found[1]

    def colon(self) -> None:
        """Take a colon."""
        if (found := self.take("`:`")) != ":":
            raise self.error(f"expected `:`, found `{found}`")

    def number(self, what: str, *, chance: bool = False) -> float:
        """Take a finite number, which must lie in [0, 1] if it is a probability."""
        word = self.take(what)
        if word in ("+", "-"):
            word += self.take(what)
        if not NUMBER.fullmatch(word) and not NOT_FINITE.fullmatch(word):
            raise self.error(f"expected {what}, found `{word}`{_advice(word)}")
        value = float(word)
        if not abs(value) <= LARGEST:
            raise self.error(
                f"{what} is `{word}`: must be at most {LARGEST:g} in magnitude"
                + ("" if chance or math.isnan(value) else FORBIDDEN)
            )
        if chance and not 0 <= value <= 1:
            raise self.error(f"{what} is `{word}`: must be in [0, 1]")
        return value

    def numbers(
        self, count: int, what: str, *, chances: bool
    ) -> Float[np.ndarray, " N"]:
        """Take `count` numbers."""
        found, done = np.empty(count), 0
        while done < count:
            several = self._plain_numbers(count - done, chances=chances)
            if several is None:  # take one, with a check of its form
                if count > 1 and self.begins_entry():
                    after = (
                        f"`{word}`" if (word := self.peek()) else "the end of the file"
                    )
                    raise self.error(
                        f"expected {count} numbers, each {what}, found {done} before "
                        f"{after}"
                    )
                found[done] = self.number(what, chance=chances)
                done += 1
            else:
                found[done : done + len(several)] = several
                done += len(several)
        return found

    def _plain_numbers(self, most: int, *, chances: bool) -> np.ndarray | None:
        """Take the numbers on the next line with words, at most `most`.

        Returns:
            None, without taking them, if a word is not a valid number.

        """
        if self._load(0) is None:
            return None
        words = self._ahead[0][1][self._at : self._at + most]
        if "".join(words).translate(PLAIN):
            return None
        try:
            values = np.array(list(map(float, words)))
        except ValueError:
            return None
        low, high = (0, 1) if chances else (-LARGEST, LARGEST)
        if not ((values >= low) & (values <= high)).all():
            return None
        self._skip(len(words))
        return values

    def begins_entry(self) -> bool:
        """Return whether a new entry begins here, or the file ends."""
        word, after = self.peek(), self.peek(1)
        if word == "start" and after in ("include", "exclude"):
            return True
        return not word or after == ":"

    def unknown_keyword(self) -> PomdpFileError:
        """Return the error for a next word that begins no entry."""
        word = self.take("a keyword")
        if word[0] in "+-.0123456789":
            return self.error(f"expected an entry, found the extra number `{word}`")
        return self.error(f"unknown keyword `{word}`: must be {', '.join(KEYWORDS)}")


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a plain or compressed file, each up to `LONGEST_LINE` bytes.

    Raises:
        PomdpFileError: if the compressed content is damaged or too large.
        OSError: if the file cannot be read.

    """
    with path.open("rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        if not packed:
            while line := plain.readline(LONGEST_LINE):
                yield line
            return
        try:
            with gzip.GzipFile(fileobj=plain) as file:
                while line := file.readline(LONGEST_LINE):
                    if file.tell() > LARGEST_FILE:
                        raise PomdpFileError(
                            f"`{path}`: unpacks to more than {LARGEST_FILE:,} bytes: "
                            "unpack the file if you trust it"
                        )
                    yield line
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise PomdpFileError(f"`{path}`: damaged gzip file: {error}") from error


def _advice(word: str) -> str:
    """Return how to write a word that should be a number; "" if unknown."""
    if re.fullmatch(r"[+-]?[0-9]+,[0-9]+", word):
        return f": write `{word.replace(',', '.')}`, with a decimal point"
    if NUMBER.fullmatch(word.strip(",;")):
        return ": separate numbers by spaces"
    if NUMBER.fullmatch(word.replace("_", "")):
        return f": write `{word.replace('_', '')}`"
    if re.fullmatch(r"[0-9.]+/[0-9.]+", word):
        return ": write a decimal number"
    if any(c.isdigit() and not c.isascii() for c in word):
        return ": write the digits 0 to 9"
    return ""


LONGEST_NAME = 100  # characters that are compared with the names


class Names:
    """The states, actions or observations of a file."""

    def __init__(self, kind: str, names: list[str]) -> None:
        """Number the names."""
        self.kind = kind
        self.names = names
        self.index = {name: i for i, name in enumerate(names)}

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self.names)

    def find(self, word: str) -> slice | None:
        """Return the index of a name, number or `*`; None if it is unknown."""
        if word == "*":
            return slice(None)
        if word in self.index:
            return slice(self.index[word], self.index[word] + 1)
        if WHOLE.fullmatch(word) and len(word) < 19 and int(word) < len(self):
            return slice(int(word), int(word) + 1)
        return None

    def take(self, reader: Reader) -> slice:
        """Take the next word, and return its index."""
        word = reader.take(f"a {self.kind}")
        if (found := self.find(word)) is None:
            close = difflib.get_close_matches(word[:LONGEST_NAME], self.names, n=1)
            meant = f": did you mean `{close[0]}`?" if close else ""
            raise reader.error(f"unknown {self.kind} `{word}`{meant}")
        return found
