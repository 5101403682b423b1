"""Read Cassandra's `.POMDP` text format.

The format is that of pomdp-solve (Cassandra, 1997): a preamble with discount, values,
states, actions and observations, then `start`, `T:`, `O:` and `R:` entries, each for
one number, a row or a matrix, with `*` for every index, `uniform` and `identity`. The
reader replaces rewards R(s, a, s', o) by their expectation r(s, a). Every error names
the line.
"""

import os
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from sdm.tasks.array_checks import ROW_SUM_TOLERANCE
from sdm.tasks.cassandra_preamble import read_preamble
from sdm.tasks.cassandra_words import ENTRIES, Names, PomdpFileError, Reader
from sdm.tasks.models import POMDP, check_model

MOST_REWARDS = 1 << 27  # entries of R(a, s, s', o) held at once


class PomdpFile(NamedTuple):
    """Content of a `.POMDP` file.

    Attributes:
        model: the task, without an observation before the first action.
        states: the name of each state, or its number as text.
        actions: the name of each action.
        observations: the name of each observation.

    """

    model: POMDP
    states: tuple[str, ...]
    actions: tuple[str, ...]
    observations: tuple[str, ...]


def load_pomdp(path: str | os.PathLike[str]) -> POMDP:
    """Read a file in Cassandra's format.

    Args:
        path: the file.

    Returns:
        The task, without an observation before the first action.

    Raises:
        PomdpFileError: a `ValueError` with file and line, if the file is not in the
            format or probabilities do not sum to 1.
        OSError: if the file cannot be read.

    """
    return read_pomdp(path).model


def read_pomdp(path: str | os.PathLike[str]) -> PomdpFile:
    """Read a file in Cassandra's format, with its names.

    Raises:
        PomdpFileError: as in `load_pomdp`.
        OSError: if the file cannot be read.

    """
    return _Model(Reader(Path(path))).read()


class _Model:
    """Parser of a model file, with the arrays read so far."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def read(self) -> PomdpFile:
        """Read and check the whole file."""
        reader = self.reader
        self.discount, self.sign, self.states, self.actions, self.symbols = (
            read_preamble(reader)
        )
        s, a, o = len(self.states), len(self.actions), len(self.symbols)
        if a * s * s * o > MOST_REWARDS:
            raise reader.error(
                f"the model is too large, found {s} states, {a} actions and {o} "
                "observations: use arrays"
            )
        self.initial = np.full(s, 1 / s)
        self.transition = np.zeros((a, s, s))
        self.observation = np.zeros((a, s, o))
        self.reward = np.zeros((a, s, s, o))
        # The last line that set each row; 0 if none did.
        self.lines = {letter: np.zeros((a, s), int) for letter in "TO"}
        while reader.peek():
            self.entry()
        names = (tuple(x.names) for x in (self.states, self.actions, self.symbols))
        return PomdpFile(self.finish(), *names)

    def entry(self) -> None:
        """Read one `start`, `T:`, `O:` or `R:` entry."""
        reader = self.reader
        if reader.peek() not in ENTRIES:
            raise reader.unknown_keyword()
        word = reader.take("an entry")
        if word == "start":
            return self.start()
        reader.colon()
        action = self.actions.find(reader)
        if word == "R":
            indices = self.indices(self.states, self.states, self.symbols)
            if not indices:
                raise reader.error("`R:` needs an action and a state")
            self.fill(self.reward, (action, *indices), square=False, chances=False)
        elif word == "T":
            indices = self.indices(self.states, self.states)
            lines = self.fill(
                self.transition, (action, *indices), square=True, chances=True
            )
            self.lines[word][(action, *indices[:1])] = lines
        else:
            indices = self.indices(self.states, self.symbols)
            lines = self.fill(
                self.observation, (action, *indices), square=False, chances=True
            )
            self.lines[word][(action, *indices[:1])] = lines
        return None

    def indices(self, *kinds: Names) -> list[slice]:
        """Read the indices of an entry, each after a colon."""
        found = []
        for names in kinds:
            if self.reader.peek() != ":":
                break
            self.reader.colon()
            found.append(names.find(self.reader))
        return found

    def fill(
        self,
        array: np.ndarray,
        where: tuple[slice, ...],
        *,
        square: bool,
        chances: bool,
    ) -> np.ndarray:
        """Read the numbers of an entry into `array[where]`.

        Returns:
            The line at which each row of a matrix ends, or the line of all numbers.

        """
        reader, shape = self.reader, array.shape[len(where) :]
        first = reader.at
        word, what = reader.peek(), "a probability" if chances else "a reward"
        value: np.ndarray
        if word == "uniform" and chances and shape:
            reader.take(what)
            value = np.full(shape, 1 / shape[-1])
        elif word == "reset" and square and shape:  # to the initial distribution
            reader.take(what)
            value = np.broadcast_to(self.initial, shape)
        elif word == "identity" and square and len(shape) == 2:
            reader.take(what)
            value = np.eye(shape[0])
        else:
            count = int(np.prod(shape))
            value = reader.numbers(count, what, chances=chances).reshape(shape)
            if len(shape) == 2:
                array[where] = value
                ends = range(first + shape[1] - 1, reader.at, shape[1])
                return np.array([reader.words[i].line for i in ends])
        array[where] = value
        return np.array(reader.line)

    def start(self) -> None:
        reader, count = self.reader, len(self.states)
        word = reader.peek()
        if word in ("include", "exclude"):
            reader.take("include or exclude")
            reader.colon()
            chosen = np.zeros(count, bool)
            while not reader.begins_entry():
                chosen[self.states.find(reader)] = True
            if word == "exclude":
                chosen = ~chosen
            if not chosen.any():
                raise reader.error("`start` must include a state, found none")
            self.initial = chosen / chosen.sum()
            return
        reader.colon()
        word = reader.peek()
        if word == "uniform" and self.one_word():
            reader.take("uniform")
            self.initial = np.full(count, 1 / count)
        elif self.one_word() and not self.a_certainty():  # a state, by name or number
            chosen = np.zeros(count)
            chosen[self.states.find(reader)] = 1
            self.initial = chosen
        else:
            self.initial = reader.numbers(
                count, "a probability of `start`", chances=True
            )
            if abs(self.initial.sum() - 1) > ROW_SUM_TOLERANCE:
                raise reader.error(f"`start` sums to {self.initial.sum():.6g}, not 1")

    def a_certainty(self) -> bool:
        """Return whether the word is the only state's probability, not its name."""
        return len(self.states) == 1 and self.reader.peek() not in (
            "0",
            *self.states.names,
        )

    def one_word(self) -> bool:
        """Return whether a single word follows `start:`."""
        self.reader.at += 1
        single = self.reader.begins_entry()
        self.reader.at -= 1
        return single

    def finish(self) -> POMDP:
        """Return the model, after checking its rows."""
        self.check("T", self.transition, "state")
        self.check("O", self.observation, "next state")
        paid = self.reward
        # A reward that is independent of s' and o keeps its exact value.
        alone = (paid == paid[:, :, :1, :1]).all((2, 3)).T
        seen = np.einsum("asn,ano,asno->sa", self.transition, self.observation, paid)
        seen = np.where(alone, paid[:, :, 0, 0].T, seen)
        model = POMDP(
            transition=jnp.asarray(np.swapaxes(self.transition, 0, 1)),
            observation=jnp.asarray(self.observation),
            reward=jnp.asarray(self.sign * seen),
            initial=jnp.asarray(self.initial),
            discount=self.discount,
        )
        try:
            check_model(model)
        except ValueError as error:
            raise PomdpFileError(f"`{self.reader.path}`: {error}") from error
        return model

    def check(self, letter: str, array: np.ndarray, kind: str) -> None:
        """Raise an error unless every row sums to 1."""
        sums = array.sum(-1)
        wrong = np.argwhere(np.abs(sums - 1) > ROW_SUM_TOLERANCE)
        if len(wrong):
            a, s = wrong[0]
            row = (
                f"`{letter}:` of action `{self.actions.names[a]}`, {kind} "
                f"`{self.states.names[s]}`"
            )
            rest = f" ({len(wrong)} of {sums.size} rows are wrong)"
            line = int(self.lines[letter][a, s])
            if not line:
                raise self.reader.error(f"{row} is not given before the end{rest}")
            raise self.reader.error(
                f"{row} sums to {sums[a, s]:.6g}, not 1{rest}", line
            )
