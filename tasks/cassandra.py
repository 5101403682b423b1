"""Read Cassandra's `.POMDP` text format.

The format is that of pomdp-solve (Cassandra, 1997): a preamble with discount, values,
states, actions and observations, then `start`, `T:`, `O:` and `R:` entries, each for
one number, a row or a matrix, with `*` for every index, `uniform` and `identity`. A
file without `observations:` is an MDP. The reader replaces rewards R(s, a, s', o) by
their expectation r(s, a). Every error names the line.
"""

import os
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sdm.storage.memory import MemoryLimitError
from sdm.tasks.array_checks import ROW_SUM_TOLERANCE
from sdm.tasks.cassandra_preamble import Preamble, not_given
from sdm.tasks.cassandra_rewards import RewardLog
from sdm.tasks.cassandra_start import Start
from sdm.tasks.cassandra_tables import Cells, Table
from sdm.tasks.cassandra_words import (
    ENTRIES,
    PREAMBLE,
    SIGNS,
    WHOLE,
    Names,
    PomdpFileError,
    Reader,
)
from sdm.tasks.models import MDP, POMDP, check_model
from sdm.tasks.triplets import Triplets, check_size, transition_of

ALL = slice(None)


class PomdpFile(NamedTuple):
    """Content of a `.POMDP` file.

    Attributes:
        model: the task, without an observation before the first action; an MDP if the
            file has no observations.
        states: the name of each state, or its number as text.
        actions: the name of each action.
        observations: the name of each observation; () for an MDP.

    """

    model: POMDP | MDP
    states: tuple[str, ...]
    actions: tuple[str, ...]
    observations: tuple[str, ...]


def load_pomdp(path: str | os.PathLike[str]) -> POMDP | MDP:
    r"""Read a file in Cassandra's format, which may be compressed by gzip.

    Args:
        path: the file.

    Returns:
        The task, without an observation before the first action; an `MDP` if the file
        has no `observations:`.

    Raises:
        PomdpFileError: a `ValueError` with file and line, if the file is not in the
            format, probabilities do not sum to 1, or the model does not fit in memory.
        OSError: if the file cannot be read.

    Example:
        >>> from pathlib import Path
        >>> from sdm.solvers_jax import load_pomdp
        >>> text = "discount: 1 \n values: reward \n states: 2 \n actions: 1 \n"
        >>> _ = Path("a.POMDP").write_text(text + "T: * identity \n R: * : 0 : * 1")
        >>> load_pomdp("a.POMDP").reward.tolist()
        [[1.0], [0.0]]

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
    """Parser of a model file, with the entries read so far."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.preamble, self.start = reader, Preamble(), Start()
        self.tables: dict[str, Table] = {}
        self.reward: RewardLog | None = None
        self.sized: set[str] = set()  # entries whose names are known to be complete

    def read(self) -> PomdpFile:
        """Read and check the whole file."""
        reader, found = self.reader, self.preamble
        while word := reader.peek():
            if word in (*PREAMBLE, *SIGNS):
                self.in_time(word)
                found.take(reader)
            elif word in ENTRIES:
                self.entry()
            else:
                raise reader.unknown_keyword()
        if (name := found.missing()) is not None:
            raise not_given(reader, name)
        self.size("T")
        try:
            model = self.finish()
        except MemoryLimitError as error:
            raise reader.error(str(error)) from error
        every = ("states", "actions", "observations")
        names = (tuple(found.names[x].names) if x in found.names else () for x in every)
        return PomdpFile(model, *names)

    def in_time(self, keyword: str) -> None:
        """Raise an error for names that come after entries which use them."""
        used = {"states": "TOR", "actions": "TOR", "observations": "OR"}
        for entry in used.get(keyword, ""):
            if entry in self.sized and keyword not in self.preamble.lines:
                self.reader.take("a keyword")
                raise self.reader.error(
                    f"`{keyword}:` must come before the first `{entry}:` entry"
                )

    def size(self, entry: str) -> None:
        """Make the arrays for a kind of entry, once its names are known."""
        if entry in self.sized:
            return
        found, reader = self.preamble, self.reader
        if (name := found.missing(entry=entry)) is not None:
            raise not_given(reader, name, entry)
        self.sized.add(entry)
        symbols = found.names.get("observations")
        s, a = len(found.names["states"]), len(found.names["actions"])
        o = None if symbols is None else len(symbols)
        try:
            check_size(s, a, o)
        except MemoryLimitError as error:
            raise reader.error(str(error)) from error
        if entry == "R":
            self.reward = RewardLog(a, s, o or 1)
        else:
            self.tables[entry] = Table(a, s, s if entry == "T" else o or 0)

    def entry(self) -> None:
        """Read one `start`, `T:`, `O:` or `R:` entry."""
        reader = self.reader
        word = reader.peek()
        if word == "start":
            return self.start.take(reader, self.preamble)
        reader.take("an entry")
        reader.colon()
        self.size(word)
        names = self.preamble.names
        states, action = names["states"], names["actions"].take(reader)
        if word == "R":
            return self.rewards(action, states)
        columns = states if word == "T" else names["observations"]
        where = (action, *self.indices(states, columns))
        return self.probabilities(self.tables[word], where, square=word == "T")

    def indices(self, *kinds: Names) -> list[slice]:
        """Read the indices of an entry, each after a colon."""
        found = []
        for names in kinds:
            if self.reader.peek() != ":" or self.is_value(names):
                break
            self.reader.colon()
            found.append(names.take(self.reader))
        if self.reader.peek() == ":":  # some programs write one before numbers
            self.reader.colon()
        return found

    def is_value(self, names: Names) -> bool:
        """Return whether numbers follow the colon rather than an index."""
        word = self.reader.peek(1)
        if names.find(word) is not None or WHOLE.fullmatch(word):
            return False
        return word in ("uniform", "identity", "reset") or word[:1] in tuple(
            "+-.0123456789"
        )

    def probabilities(
        self, table: Table, where: tuple[slice, ...], *, square: bool
    ) -> None:
        """Read the numbers of a `T:` or `O:` entry."""
        reader, what = self.reader, "a probability"
        action, row = where[0], where[1] if len(where) > 1 else ALL
        if len(where) == 3:
            value = reader.number(what, chance=True)
            table.set_cells(action, row, where[2], value, reader.line)
            return
        _, rows, columns = table.shape
        word = reader.peek()
        if word == "uniform":
            reader.take(what)
            table.fill(action, row, 1 / columns, reader.line)
        elif word == "reset" and square:  # to the initial distribution
            reader.take(what)
            table.set_reset(action, row, reader.line)
        elif word == "identity" and square and len(where) == 1:
            reader.take(what)
            table.set_identity(action, reader.line)
        elif len(where) == 2:
            values = reader.numbers(columns, what, chances=True)
            table.set_rows(action, row, values, reader.line)
        else:
            for i in range(rows):
                values = reader.numbers(columns, what, chances=True)
                table.set_rows(action, slice(i, i + 1), values, reader.line)

    def rewards(self, action: slice, states: Names) -> None:
        """Read the numbers of an `R:` entry."""
        reader, symbols = self.reader, self.preamble.names.get("observations")
        assert self.reward is not None
        kinds = (states, states) if symbols is None else (states, states, symbols)
        where = (action, *self.indices(*kinds))
        if symbols is None and len(where) == 3 and reader.peek() == "*":
            reader.take("`*`")  # for the observation, which an MDP lacks
            if reader.peek() == ":":
                reader.colon()
        complete = len(kinds) + 1
        if len(where) < complete - 2:
            raise reader.error("`R:` needs an action and a state")
        if len(where) == complete:
            every = (*where, *[ALL] * (4 - complete))
            self.reward.set_cells(every, reader.number("a reward"))
            return
        size = len(kinds[-1])
        self.reward.clear(where)
        each = [()] if len(where) == complete - 1 else self.one_by_one(states)
        for last in each:
            values = reader.numbers(size, "a reward", chances=False)
            self.reward.add_row((*where, *last), values)

    def one_by_one(self, states: Names) -> list[tuple[slice, ...]]:
        """Return the index of each state."""
        return [(slice(i, i + 1),) for i in range(len(states))]

    def finish(self) -> POMDP | MDP:
        """Return the model, after checking its rows."""
        found = self.preamble
        states, actions = found.names["states"], found.names["actions"]
        symbols = found.names.get("observations")
        initial = self.start.distribution(self.reader, states)
        triplets = Triplets(*self.checked("T", initial, "state"))
        seen = None
        if symbols is not None:
            self.size("O")
            cells = self.checked("O", initial, "next state")
            seen = np.zeros(self.tables["O"].shape)
            seen[cells.action, cells.row, cells.column] = cells.value
        if self.reward is None:
            reward = np.zeros((len(states), len(actions)))
        else:
            reward = found.sign * self.reward.expected(triplets, seen)
        paid, first = jnp.asarray(reward), jnp.asarray(initial)
        moves = transition_of(triplets, states=len(states), actions=len(actions))
        model: POMDP | MDP
        if seen is None:
            model = MDP(moves, paid, first, found.discount)
        else:
            model = POMDP(moves, jnp.asarray(seen), paid, first, found.discount)
        try:
            check_model(model)
        except ValueError as error:
            raise PomdpFileError(f"`{self.reader.path}`: {error}") from error
        return model

    def checked(
        self, letter: str, initial: Float[np.ndarray, " S"], kind: str
    ) -> Cells:
        """Return the nonzero cells of a table; raise an error if a row is wrong."""
        table, names = self.tables[letter], self.preamble.names
        cells = table.cells(initial)
        sums = table.sums(cells)
        wrong = np.argwhere(np.abs(sums - 1) > ROW_SUM_TOLERANCE)
        if not len(wrong):
            return cells
        a, s = wrong[0]
        row = (
            f"`{letter}:` of action `{names['actions'].names[a]}`, {kind} "
            f"`{names['states'].names[s]}`"
        )
        rest = f" ({len(wrong)} of {sums.size} rows are wrong)"
        line = int(table.line[a, s])
        if not line:
            raise self.reader.error(f"{row} is not given before the end{rest}")
        raise self.reader.error(f"{row} sums to {sums[a, s]:.6g}, not 1{rest}", line)
