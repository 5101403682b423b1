"""Convert columns of a table to numbers and to codes of names, batch by batch."""

import math
import re
from array import array

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int

from sdm.data.logs.episodes import NOTHING
from sdm.data.logs.problems import Problems

TRUTHS = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
MOST_FRACTIONS = 1000  # distinct fractional values of a column that is not continuous


def _plain(column: pa.Array) -> pa.Array:
    """Return a column without dictionary encoding; one without values as text."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.string()) if pa.types.is_null(column.type) else column


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_number(kind: pa.DataType) -> bool:
    return (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
    )


def numbers(
    name: str, column: pa.Array, rows: Int[np.ndarray, " R"], problems: Problems
) -> Float[np.ndarray, " R"]:
    """Return a column's numbers, NaN where it has none; record what is no number."""
    column = _plain(column)
    if _is_text(column.type):
        text = pc.utf8_trim_whitespace(column)
        text = pc.if_else(pc.equal(text, ""), pa.scalar(None, text.type), text)
        known = pc.is_in(text, pa.array(["nan", "NaN", "inf", "-inf"], text.type))
        fine = pc.or_(pc.match_substring_regex(text, NUMBER), known)
        fine = pc.fill_null(fine, True)
        wrong = ~fine.to_numpy(zero_copy_only=False)
        if wrong.any():
            what = f"`{name}` is not a number"
            problems.add(what, rows, wrong, column.to_pylist())
        column = pc.if_else(fine, text, pa.scalar(None, text.type))
    elif not _is_number(column.type):
        problems.add(
            f"`{name}` has the type {column.type}: must be numbers",
            rows[:1],
            np.ones(min(1, len(rows)), bool),
        )
        return np.full(len(rows), np.nan)
    found = column.cast(pa.float64(), safe=False)
    return found.to_numpy(zero_copy_only=False).astype(float)


def truths(
    name: str, column: pa.Array, rows: Int[np.ndarray, " R"], problems: Problems
) -> Bool[np.ndarray, " R"]:
    """Return a column of true and false, or of 1 and 0; false where it has no value."""
    column = _plain(column)
    text = pc.utf8_lower(column.cast(pa.string()))
    coded = text.dictionary_encode()
    names = coded.dictionary.to_pylist()
    table = np.array([TRUTHS.get(each, np.nan) for each in names] + [0.0])
    index = coded.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)
    found = table[index]
    wrong = np.isnan(found)
    what = f"`{name}` must be true or false, or 1 or 0,"
    problems.add(what, rows, wrong, column.to_pylist() if wrong.any() else None)
    return found == 1


class Codes:
    """Codes of a column's names, in order of their first appearance.

    Attributes:
        names: name of each code.
        first: label of the first row of each code.

    """

    def __init__(self, name: str) -> None:
        """Start without names; `name` is that of the column, for messages."""
        self.name = name
        self.first = array("q")
        self._index: dict[str, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each code."""
        return tuple(self._index)

    def add(
        self, column: pa.Array, rows: Int[np.ndarray, " R"], problems: Problems
    ) -> Int[np.ndarray, " R"]:
        """Return the code of each row of a batch, `NOTHING` where it has no value."""
        column = _plain(column)
        kind = column.type
        if not (_is_text(kind) or _is_number(kind) or pa.types.is_boolean(kind)):
            problems.add(
                f"`{self.name}` has the type {kind}: must be text or numbers",
                rows[:1],
                np.ones(min(1, len(rows)), bool),
            )
            return np.full(len(rows), NOTHING, np.int32)
        coded = column.dictionary_encode()
        index = coded.indices.fill_null(len(coded.dictionary)).to_numpy(
            zero_copy_only=False
        )
        table = np.full(len(coded.dictionary) + 1, NOTHING, np.int32)
        values, at = np.unique(index, return_index=True)
        names = coded.dictionary.to_pylist()
        for value, place in sorted(zip(values, at, strict=True), key=lambda x: x[1]):
            if value < len(names) and (text := _text(names[value])) is not None:
                code = self._index.setdefault(text, len(self._index))
                if code == len(self.first):
                    self.first.append(int(rows[place]))
                table[value] = code
        return table[index]

    def ordered(
        self, problems: Problems, declared: tuple[str, ...] = (), *, free: bool = False
    ) -> tuple[tuple[str, ...], Int[np.ndarray, " C"]]:
        """Return the names in order, and the position of each code among them.

        Numbers ascend, and equal numbers are one name; texts are in alphabetical order.

        Args:
            problems: records a column that mixes numbers and text, or is continuous, or
                has a name that is not declared.
            declared: the names in order; () if they are those of the column.
            free: whether the column may mix numbers and text.

        """
        numeric = np.array([_is_finite(x) for x in self.names], bool)
        first = np.array(self.first, int)
        plain = [
            _canonical(x) if number else x
            for x, number in zip(self.names, numeric, strict=True)
        ]
        if declared:
            place = {x: i for i, x in enumerate(declared)}
            wrong = np.array([x not in place for x in plain], bool)
            what = f"`{self.name}` must be one of the {len(declared)} declared names"
            problems.add(what, first, wrong, self.names)
            return declared, np.array([place.get(x, 0) for x in plain], np.int32)
        if numeric.any() and not numeric.all():
            if not free:
                rare = numeric if numeric.sum() < len(numeric) / 2 else ~numeric
                what = f"`{self.name}` mixes numbers and text"
                problems.add(what, first, rare, self.names)
            plain, numeric = list(self.names), np.zeros(len(numeric), bool)
        fractions = sum(float(x) != int(float(x)) for x in plain if numeric.all())
        if fractions > MOST_FRACTIONS:
            problems.add(
                f"`{self.name}` has {fractions} distinct fractional values: it must be "
                "discrete, so group them first,",
                first[:1],
                np.ones(1, bool),
            )
        names = tuple(sorted(set(plain), key=float if numeric.all() else None))
        place = {x: i for i, x in enumerate(names)}
        return names, np.array([place[x] for x in plain], np.int32)


def _text(value: object) -> str | None:
    """Return the name of a value; None if it is missing."""
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value).strip()
    return None if text in ("", "nan") else text


def _is_finite(text: str) -> bool:
    return re.match(NUMBER, text) is not None and math.isfinite(float(text))


def _canonical(number: str) -> str:
    """Return one text for equal numbers: 0 for 0.0, +0 and 00."""
    value = float(number)
    return str(int(value)) if value == int(value) else repr(value)
