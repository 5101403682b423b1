"""Episodes as text, and back.

Two schemas behind one interface; in both, `parse` inverts `render`.

*paper* (Zhang, Aghaei, Saghafian, 2026): every quantity named, stages counted from 1,
rewards rounded to two decimals:

    <O_1> 3, <A_1> 1, <R_1> -0.05, <O_2> 4, <A_2> 2, <R_2> 0.44

*compact* (ours): the observation as a number, the action as a letter, no rewards (they
are a function of the two): `3b4c`. A thirteenth of the tokens, or less.

In Darkroom states are written as coordinates, row and column: `<O_1> 3 4` in the
paper's wording, digits only in the compact one, which there marks a reward, 1 or none,
by a dot: `34a.34a.`.

An episode whose last observation has no action yet renders up to the place where the
action belongs; that is the end of a prompt. A prompt holds the demonstrations, one a
line, then the open query episode.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

REWARD_DECIMALS = 2  # in the paper's wording, as in its examples; all else is exact
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Episode:
    """What was seen, done and earned, stage by stage.

    Attributes:
        observations: one a decision, and one more while an action is awaited.
        actions: one a decision.
        rewards: one a decision; None where the schema does not write them.

    """

    observations: tuple[int, ...]
    actions: tuple[int, ...]
    rewards: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` where lengths disagree or a number is negative."""
        extra = len(self.observations) - len(self.actions)
        if extra not in (0, 1):
            raise ValueError(
                f"{len(self.observations)} observations and {len(self.actions)} "
                "actions: there must be as many, or one observation more"
            )
        if self.rewards is not None and len(self.rewards) != len(self.actions):
            raise ValueError(
                f"{len(self.rewards)} rewards for {len(self.actions)} actions"
            )
        if any(x < 0 for x in (*self.observations, *self.actions)):
            raise ValueError("observations and actions are counted from 0")

    @property
    def is_open(self) -> bool:
        """Whether an action is awaited."""
        return len(self.observations) > len(self.actions)


def cell(row: int, column: int, grid: int) -> int:
    """The state that stands for a cell; raise `ValueError` beyond the grid."""
    if max(row, column) >= grid:
        raise ValueError(f"there is no cell {row}, {column} on a grid of {grid}")
    return row * grid + column


@runtime_checkable
class Schema(Protocol):
    """How episodes are written.

    Attributes:
        name: what the command line and run folders call it.
        terminator: what follows an action in the text.
        grid: columns of the grid whose cells observations are; None for numbers.

    """

    name: str
    terminator: str

    @property
    def grid(self) -> int | None:
        """Columns of the grid, if there is one."""
        ...

    def render(self, episode: Episode) -> str:
        """Text of an episode; of an open one, up to the place of the action."""
        ...

    def parse(self, text: str) -> Episode:
        """The episode that `render` writes as `text`."""
        ...

    def answer(self, action: int) -> str:
        """What follows an open episode when `action` is taken."""
        ...

    def action_spans(self, text: str) -> list[tuple[int, int]]:
        """Character ranges of the actions in a text of one or more episodes."""
        ...


@dataclass(frozen=True)
class PaperSchema:
    """The paper's wording, a named field for every observation, action and reward.

    Attributes:
        grid: columns of the grid whose cells the observations are; None for numbers.

    """

    grid: int | None = None

    name = "paper"
    terminator = ","

    def render(self, episode: Episode) -> str:
        """Write `<O_t> o, <A_t> a, <R_t> r`, joined by commas; rewards are required."""
        if episode.rewards is None:
            raise ValueError("the paper's schema writes rewards: the episode has none")
        parts: list[str] = []
        rows = zip(episode.observations, episode.actions, episode.rewards, strict=False)
        for t, (observation, action, reward) in enumerate(rows, 1):
            rounded = round(reward, REWARD_DECIMALS) + 0.0  # no "-0.00"
            parts += [f"<O_{t}> {self._write(observation)}", f"<A_{t}> {action}"]
            parts.append(f"<R_{t}> {rounded:.{REWARD_DECIMALS}f}")
        if episode.is_open:
            t = len(episode.observations)
            parts += [f"<O_{t}> {self._write(episode.observations[-1])}", f"<A_{t}>"]
        return ", ".join(parts)

    def _write(self, observation: int) -> str:
        if self.grid is None:
            return str(observation)
        row, column = divmod(observation, self.grid)
        return f"{row} {column}"

    def _read(self, text: str) -> int:
        """The observation that `_write` writes, if it is one."""
        row, *column = map(int, text.split())
        return cell(row, column[0], self.grid) if self.grid else row

    def parse(self, text: str) -> Episode:
        """Read an episode; raise `ValueError` at the first field out of place."""
        fields: dict[str, list[str]] = {"O": [], "A": [], "R": []}
        seen = r"\d+" if self.grid is None else r"\d+ \d+"
        is_open = bool(re.search(r"<A_\d+>$", text))
        parts = text.split(", ")[: -1 if is_open else None] if text else []
        for i, part in enumerate(parts):
            letter, t = "OAR"[i % 3], i // 3 + 1
            reward = rf"-?\d+\.\d{{{REWARD_DECIMALS}}}"
            number = {"O": seen, "A": r"\d+", "R": reward}[letter]
            if not (found := re.fullmatch(rf"<{letter}_{t}> ({number})", part)):
                raise ValueError(
                    f"field {i + 1} should be `<{letter}_{t}> …`: `{part}`"
                )
            fields[letter].append(found[1])
        if is_open and text.split(", ")[-1] != f"<A_{len(fields['O'])}>":
            raise ValueError(f"the last field is out of place: `{text[-20:]}`")
        if len(parts) % 3 != is_open:
            raise ValueError(f"the text ends in the middle of a stage: `{text[-20:]}`")
        return Episode(
            tuple(map(self._read, fields["O"])),
            tuple(map(int, fields["A"])),
            tuple(map(float, fields["R"])),
        )

    def answer(self, action: int) -> str:
        """Write a space and the number."""
        return f" {action}"

    def action_spans(self, text: str) -> list[tuple[int, int]]:
        """Find the digits after every `<A_t>`."""
        return [m.span(1) for m in re.finditer(r"<A_\d+> (\d+)", text)]


@dataclass(frozen=True)
class CompactSchema:
    """Number for the observation, letter for the action; at most 26 actions.

    Attributes:
        grid: columns of the grid whose cells the observations are; None for numbers.

    """

    grid: int | None = None

    name = "compact"
    terminator = ""

    def render(self, episode: Episode) -> str:
        """Write `3b4c`, without rewards; on a grid `34c`, where rewards are dots."""
        seen = [self._write(observation) for observation in episode.observations]
        done = [self.answer(action) for action in episode.actions]
        paid = [""] * len(done) if self.grid is None else self._dots(episode)
        stages = zip(seen, done, paid, strict=False)
        text = "".join(part for stage in stages for part in stage)
        return f"{text}{seen[-1]}" if episode.is_open else text

    def _write(self, observation: int) -> str:
        if self.grid is None:
            return str(observation)
        row, column = divmod(observation, self.grid)
        return f"{row:0{self._width}}{column:0{self._width}}"

    @property
    def _width(self) -> int:
        """Digits of a coordinate."""
        return len(str((self.grid or 1) - 1))

    def _dots(self, episode: Episode) -> list[str]:
        """A dot for every reward."""
        if episode.rewards is None:
            raise ValueError("on a grid rewards are written: the episode has none")
        for t, reward in enumerate(episode.rewards):
            if reward not in (0, 1):
                raise ValueError(
                    f"the reward of stage {t} is {reward:g}: the compact schema knows "
                    "0 and 1 on a grid; use the paper's schema"
                )
        return ["." * int(reward) for reward in episode.rewards]

    def parse(self, text: str) -> Episode:
        """Read an episode; raise `ValueError` unless numbers and letters alternate."""
        if self.grid is not None:
            return self._parse_grid(text, self.grid)
        if not re.fullmatch(r"(\d+[a-z])*(\d+)?", text):
            raise ValueError(f"numbers and letters should alternate: `{text[:40]}`")
        observations = tuple(int(x) for x in re.findall(r"\d+", text))
        actions = tuple(LETTERS.index(x) for x in re.findall(r"[a-z]", text))
        return Episode(observations, actions)

    def _parse_grid(self, text: str, grid: int) -> Episode:
        digits = rf"\d{{{self._width}}}"
        if not re.fullmatch(rf"({digits}{digits}[a-z]\.?)*({digits}{digits})?", text):
            raise ValueError(
                f"two coordinates of {self._width} digits, a letter and perhaps a dot "
                f"should follow each other: `{text[:40]}`"
            )
        cells = re.findall(rf"({digits})({digits})", text)
        done = re.findall(r"([a-z])(\.?)", text)
        return Episode(
            tuple(cell(int(row), int(column), grid) for row, column in cells),
            tuple(LETTERS.index(letter) for letter, _ in done),
            tuple(float(len(dot)) for _, dot in done),
        )

    def answer(self, action: int) -> str:
        """Write the action's letter."""
        if action >= len(LETTERS):
            raise ValueError(
                f"action {action} has no letter: the compact schema knows "
                f"{len(LETTERS)}; use the paper's schema"
            )
        return LETTERS[action]

    def action_spans(self, text: str) -> list[tuple[int, int]]:
        """Find every letter."""
        return [m.span() for m in re.finditer(r"[a-z]", text)]


# Where states are numbers; `schema_for` knows grids, too.
SCHEMAS: dict[str, Schema] = {s.name: s for s in (PaperSchema(), CompactSchema())}


def schema_for(name: str, grid: int | None) -> Schema:
    """The schema of this name for tasks on a grid of so many columns, or elsewhere."""
    if name not in SCHEMAS:
        raise ValueError(f"unknown schema `{name}`: there are {', '.join(SCHEMAS)}")
    return CompactSchema(grid) if name == "compact" else PaperSchema(grid)


def render_prompt(schema: Schema, support: Sequence[Episode], query: Episode) -> str:
    """Demonstrations, one a line, then the query episode, open or complete."""
    return "\n".join(schema.render(episode) for episode in (*support, query))
