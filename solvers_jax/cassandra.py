"""Cassandra's `.POMDP` text format: read and write.

The format is that of pomdp-solve (Cassandra, 1997): a preamble that names discount,
values, states, actions and observations, then `start`, `T:`, `O:` and `R:` entries,
each for one number, a row or a matrix, with `*` for every index, `uniform` and
`identity`. Rewards R(s, a, s', o) become their expectation r(s, a). A file is read line
by line, and every error says in which.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from sdm.solvers_jax.models import POMDP, ROW_SUM_TOLERANCE, check_model

LONGEST_LINE = 1 << 24  # characters
MOST_REWARDS = 1 << 27  # entries of R(a, s, s', o) held at once
PREAMBLE = ("discount", "values", "states", "actions", "observations")
KEYWORDS = (*PREAMBLE, "start", "T", "O", "R")


class PomdpFileError(ValueError):
    """A file that is not in Cassandra's format."""


class Token(NamedTuple):
    """A word of the file and the line that it stands in."""

    text: str
    line: int


class Reader:
    """The words of a file, one after the other."""

    def __init__(self, path: Path) -> None:
        """Read and split the file."""
        self.path = path
        self.words = list(self._split())
        self.at = 0

    def _split(self) -> Iterator[Token]:
        try:
            with self.path.open(encoding="utf-8", errors="strict") as file:
                number = 0
                while line := file.readline(LONGEST_LINE):
                    number += 1
                    if len(line) == LONGEST_LINE:
                        raise self.error(
                            f"a line longer than {LONGEST_LINE} characters", number
                        )
                    text = line.partition("#")[0].replace(":", " : ")
                    yield from (Token(word, number) for word in text.split())
        except UnicodeDecodeError as error:
            raise PomdpFileError(f"`{self.path}` is not text: {error}") from error

    def error(self, message: str, line: int | None = None) -> PomdpFileError:
        """An error at a line, the current one if none is given."""
        if line is None:
            past = min(self.at, len(self.words)) - 1
            line = self.words[past].line if self.words else 1
        return PomdpFileError(f"`{self.path}`, line {line}: {message}")

    def peek(self, ahead: int = 0) -> str:
        """A word to come; empty at the end."""
        at = self.at + ahead
        return self.words[at].text if at < len(self.words) else ""

    def take(self, what: str) -> str:
        """The next word."""
        if self.at >= len(self.words):
            raise self.error(f"the file ends where {what} should be")
        self.at += 1
        return self.words[self.at - 1].text

    def colon(self) -> None:
        """Step over a colon."""
        if (found := self.take("`:`")) != ":":
            raise self.error(f"`{found}` where `:` should be")

    def number(self, what: str) -> float:
        """The next word as a finite number."""
        word = self.take(what)
        try:
            value = float(word)
        except ValueError:
            raise self.error(f"`{word}` where {what} should be") from None
        if not np.isfinite(value):
            raise self.error(f"{what} is `{word}`: must be finite")
        return value

    def numbers(self, count: int, what: str) -> np.ndarray:
        """The next `count` numbers."""
        return np.array([self.number(what) for _ in range(count)])

    def begins_entry(self) -> bool:
        """Whether a new entry begins here, or the file ends."""
        word, after = self.peek(), self.peek(1)
        if word == "start" and after in ("include", "exclude"):
            return True
        return not word or (word in KEYWORDS and after == ":")


class Names:
    """The states, actions or observations of a file."""

    def __init__(self, kind: str, names: list[str]) -> None:
        """Number the names."""
        self.kind, self.names = kind, names
        self.index = {name: i for i, name in enumerate(names)}

    def __len__(self) -> int:
        """How many there are."""
        return len(self.names)

    def find(self, reader: Reader) -> slice:
        """The next word as an index, by name, number or `*`."""
        word = reader.take(f"a {self.kind}")
        if word == "*":
            return slice(None)
        if word in self.index:
            return slice(self.index[word], self.index[word] + 1)
        if word.isdecimal() and int(word) < len(self):
            return slice(int(word), int(word) + 1)
        raise reader.error(f"there is no {self.kind} `{word}`")


def load_pomdp(path: str | os.PathLike[str]) -> POMDP:
    """Read a file in Cassandra's format.

    Args:
        path: the file.

    Returns:
        The task; nothing is observed before its first action.

    Raises:
        PomdpFileError: a `ValueError` with file and line, if it is not in the format or
            its probabilities do not sum to 1.
        OSError: if it cannot be read.

    """
    reader = Reader(Path(path))
    return _Model(reader).read()


class _Model:
    """A model while its file is read."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.sign = 1.0
        self.discount: float | None = None
        self.sizes: dict[str, Names] = {}

    def read(self) -> POMDP:
        """Everything, checked."""
        reader = self.reader
        while reader.peek() in PREAMBLE:
            self.preamble()
        missing = [k for k in PREAMBLE if k != "values" and k not in self.sizes]
        if self.discount is not None:
            missing.remove("discount")
        if missing:
            raise reader.error(f"`{missing[0]}:` is not given before the first entry")
        self.states, self.actions, self.symbols = (
            self.sizes[k] for k in ("states", "actions", "observations")
        )
        s, a, o = len(self.states), len(self.actions), len(self.symbols)
        if a * s * s * o > MOST_REWARDS:
            raise reader.error(
                f"{s} states, {a} actions and {o} observations are more than can be "
                "held: use arrays"
            )
        self.initial = np.full(s, 1 / s)
        self.transition = np.zeros((a, s, s))
        self.observation = np.zeros((a, s, o))
        self.reward = np.zeros((a, s, s, o))
        while reader.peek():
            self.entry()
        return self.finish()

    def preamble(self) -> None:
        reader, keyword = self.reader, self.reader.take("a keyword")
        reader.colon()
        if keyword == "discount":
            self.discount = discount = reader.number("the discount")
            if not 0 <= discount <= 1:
                raise reader.error(f"discount {discount:g} is not in [0, 1]")
        elif keyword == "values":
            word = reader.take("`reward` or `cost`")
            if word not in ("reward", "cost"):
                raise reader.error(f"`{word}` where `reward` or `cost` should be")
            self.sign = 1.0 if word == "reward" else -1.0
        else:
            kind = keyword[:-1]
            names = []
            while not reader.begins_entry():
                names.append(reader.take("a name"))
            if len(names) == 1 and names[0].isdecimal():
                if not 1 <= int(names[0]) <= 1_000_000:
                    raise reader.error(f"{names[0]} {keyword}: must be 1 to 1000000")
                names = [str(i) for i in range(int(names[0]))]
            if not names:
                raise reader.error(f"`{keyword}:` has neither a number nor names")
            if len(set(names)) < len(names):
                raise reader.error(f"`{keyword}:` has a name twice")
            self.sizes[keyword] = Names(kind, names)

    def entry(self) -> None:
        """One `start`, `T:`, `O:` or `R:` entry."""
        reader = self.reader
        word = reader.take("an entry")
        if word == "start":
            return self.start()
        if word not in ("T", "O", "R"):
            raise reader.error(f"unknown keyword `{word}`")
        reader.colon()
        action = self.actions.find(reader)
        if word == "R":
            indices = self.indices(self.states, self.states, self.symbols)
            if not indices:
                raise reader.error("`R:` needs an action and a state")
            self.fill(self.reward, (action, *indices), square=False, chances=False)
        elif word == "T":
            indices = self.indices(self.states, self.states)
            self.fill(self.transition, (action, *indices), square=True, chances=True)
        else:
            indices = self.indices(self.states, self.symbols)
            self.fill(self.observation, (action, *indices), square=False, chances=True)
        return None

    def indices(self, *kinds: Names) -> list[slice]:
        """What is given of an entry's indices, colon by colon."""
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
    ) -> None:
        """Set what an entry speaks of to the numbers that follow."""
        reader, shape = self.reader, array.shape[len(where) :]
        word, what = reader.peek(), "a probability" if chances else "a reward"
        value: np.ndarray
        if word == "uniform" and chances and shape:
            reader.take(what)
            value = np.full(shape, 1 / shape[-1])
        elif word == "reset" and square and shape:  # back to where episodes start
            reader.take(what)
            value = np.broadcast_to(self.initial, shape)
        elif word == "identity" and square and len(shape) == 2:
            reader.take(what)
            value = np.eye(shape[0])
        else:
            value = reader.numbers(int(np.prod(shape)), what).reshape(shape)
        if chances and (value.min() < 0 or value.max() > 1):
            raise reader.error("a probability is not in [0, 1]")
        array[where] = value

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
                raise reader.error("`start` leaves no state")
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
            self.initial = reader.numbers(count, "a probability of `start`")
            if abs(self.initial.sum() - 1) > ROW_SUM_TOLERANCE:
                raise reader.error(f"`start` sums to {self.initial.sum():.6g}, not 1")

    def a_certainty(self) -> bool:
        """Whether the word is the probability of the only state, and not its number."""
        return len(self.states) == 1 and self.reader.peek() not in (
            "0",
            *self.states.names,
        )

    def one_word(self) -> bool:
        """Whether `start:` is followed by a single word."""
        self.reader.at += 1
        single = self.reader.begins_entry()
        self.reader.at -= 1
        return single

    def finish(self) -> POMDP:
        """The model of what was read."""
        self.check("T", self.transition, "state")
        self.check("O", self.observation, "next state")
        paid = self.reward
        # What does not depend on what follows needs no expectation, and no rounding.
        alone = (paid == paid[:, :, :1, :1]).all((2, 3)).T
        seen = np.einsum("asn,ano,asno->sa", self.transition, self.observation, paid)
        seen = np.where(alone, paid[:, :, 0, 0].T, seen)
        assert self.discount is not None
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
        """Every row must sum to 1."""
        sums = array.sum(-1)
        wrong = np.argwhere(np.abs(sums - 1) > ROW_SUM_TOLERANCE)
        if len(wrong):
            a, s = wrong[0]
            raise PomdpFileError(
                f"`{self.reader.path}`: `{letter}:` of action "
                f"`{self.actions.names[a]}`, {kind} `{self.states.names[s]}` sums to "
                f"{sums[a, s]:.6g}, not 1 ({len(wrong)} of {sums.size} rows are wrong)"
            )


def save_pomdp(model: POMDP, path: str | os.PathLike[str]) -> None:
    """Write one task in Cassandra's format, to be read back exactly.

    Raises:
        ValueError: if the model is a batch, not well posed, or shows something before
            the first action, which the format cannot say.

    """
    check_model(model)
    if np.ndim(model.reward) != 2:
        raise ValueError("the format holds one task: this is a batch")
    if model.initial_observation is not None:
        raise ValueError("the format has no observation before the first action")
    states, actions = model.reward.shape
    lines = [
        f"discount: {float(model.discount)!r}",
        "values: reward",
        f"states: {states}",
        f"actions: {actions}",
        f"observations: {model.observation.shape[-1]}",
        f"start: {_row(np.asarray(model.initial))}",
    ]
    for a in range(actions):
        for letter, rows in (
            ("T", np.asarray(model.transition)[:, a]),
            ("O", np.asarray(model.observation)[a]),
        ):
            lines += ["", f"{letter}: {a}", *map(_row, rows)]
    rewards = np.asarray(model.reward)
    lines += [
        "",
        *(
            f"R: {a} : {s} : * : * {float(rewards[s, a])!r}"
            for a in range(actions)
            for s in range(states)
        ),
    ]
    target = Path(path)
    temporary = target.with_name(target.name + ".tmp")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(target)


def _row(row: np.ndarray) -> str:
    return " ".join(repr(float(x)) for x in row)
