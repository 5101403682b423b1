"""Read the `start` entry of a file in Cassandra's format: the initial distribution.

The entry may come before the states are known, so its words are kept until the end.
"""

import numpy as np
from jaxtyping import Float

from sdm.tasks.cassandra_preamble import Preamble
from sdm.tasks.cassandra_words import NUMBER, Names, Reader
from sdm.tasks.models import ROW_SUM_TOLERANCE

FORMS = (
    "write a probability for each state, one state, `uniform`, "
    "`start include: STATES` or `start exclude: STATES`"
)


class Start:
    """The words of the `start` entry, with their lines."""

    def __init__(self) -> None:
        """Make an entry for the uniform distribution, until one is read."""
        self._form, self._words = "", [("uniform", 1)]

    def take(self, reader: Reader, preamble: Preamble) -> None:
        """Read the entry.

        Raises:
            PomdpFileError: if it is not in the format, or the second one.

        """
        reader.take("start")
        preamble.once(reader, "start", reader.line)
        if reader.peek() in ("include", "exclude"):
            self._form = reader.take("include or exclude")
        reader.colon()
        self._words = []
        while not reader.begins_entry():
            word = reader.take("a state")
            self._words.append((word, reader.line))
        if not self._words:
            raise reader.error(f"`start` has no states: {FORMS}")

    def distribution(self, reader: Reader, states: Names) -> Float[np.ndarray, " S"]:
        """Return the initial distribution.

        Raises:
            PomdpFileError: if the words are no states or the probabilities are wrong.

        """
        count, (first, line) = len(states), self._words[0]
        if self._form:
            chosen = self._chosen(reader, states)
            if self._form == "exclude":
                chosen = ~chosen
            if not chosen.any():
                raise reader.error("`start` must include a state, found none", line)
            return chosen / chosen.sum()
        single = len(self._words) == 1
        if single and first == "uniform":
            return np.full(count, 1 / count)
        certain = count == 1 and first not in ("0", *states.names)
        if all(NUMBER.fullmatch(word) for word, _ in self._words) and (
            certain or not single
        ):
            return self._probabilities(reader, count)
        chosen = self._chosen(reader, states)  # `start: a b` as `start include: a b`
        return chosen / chosen.sum()

    def _chosen(self, reader: Reader, states: Names) -> np.ndarray:
        chosen = np.zeros(len(states), bool)
        for word, line in self._words:
            if (index := states.find(word)) is None:
                raise reader.error(f"unknown state `{word}` of `start`: {FORMS}", line)
            chosen[index] = True
        return chosen

    def _probabilities(self, reader: Reader, count: int) -> Float[np.ndarray, " S"]:
        found = np.array([float(word) for word, _ in self._words])
        line = self._words[-1][1]
        if len(found) != count:
            raise reader.error(
                f"`start` has {len(found)} numbers, expected one for each of {count} "
                "states; write `start include: STATES` to start in several states",
                line,
            )
        for value, (word, at) in zip(found, self._words, strict=True):
            if not 0 <= value <= 1:
                raise reader.error(
                    f"a probability of `start` is `{word}`: must be in [0, 1]", at
                )
        if abs(found.sum() - 1) > ROW_SUM_TOLERANCE:
            raise reader.error(f"`start` sums to {found.sum():.6g}, not 1", line)
        return found
