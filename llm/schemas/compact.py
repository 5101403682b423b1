"""The compact schema (ours): a number for the observation, a letter for the action.

    3b4c

This text has at most a thirteenth of the tokens of the paper's schema. An observation
of several components is written digit by digit: `34a` is row 3, column 4 and action a.
Rewards are written only if the agent observes them and they are informative. Of two
possible rewards, the higher one is a dot (`34a.34a.`); of up to 26, each is an
underscore and a letter (`3b_a4c_f`), in the order of `Spaces.rewards`. Others are
written in hundredths, rounded, with a comma (`3b40,4c-5,`). In a text that begins with
`-`, nothing is observed before the first action.
"""

import re
from dataclasses import dataclass
from typing import Literal

from sdm.llm.episode import NOTHING, Episode
from sdm.llm.schema import REWARD_DECIMALS, Contents, register_schema

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ACTION = r"(?<!_)[a-z]"
MARKS = {"none": "()", "dot": r"(\.?)", "letter": "_([a-z])", "number": r"(-?\d+),"}
SCALE = 10**REWARD_DECIMALS


@register_schema("compact")
@dataclass(frozen=True)
class CompactSchema:
    """The compact schema.

    Raises:
        ValueError: if there are more than 26 actions.

    """

    contents: Contents

    name = "compact"
    terminator = ""

    def __post_init__(self) -> None:
        """Raise `ValueError` for more than 26 actions."""
        if (count := len(self.contents.actions)) > len(LETTERS):
            raise ValueError(
                f"schema `compact`: at most {len(LETTERS)} actions, found {count}: "
                "use the schema `paper`"
            )

    @property
    def _widths(self) -> tuple[int, ...]:
        """Return the digits of each component."""
        return tuple(len(str(each.size - 1)) for each in self.contents.seen)

    @property
    def _marks(self) -> Literal["none", "dot", "letter", "number"]:
        """Return how rewards are written."""
        levels = len(self.contents.levels)
        if not self.contents.rewards or not (levels or self.contents.unlisted):
            return "none"
        if levels == 2:
            return "dot"
        return "letter" if 0 < levels <= len(LETTERS) else "number"

    def render(self, episode: Episode) -> str:
        """Write `3b4c`, with marks for rewards if they are informative."""
        seen = [self._write(observation) for observation in episode.observations]
        done = [self.answer(action) for action in episode.actions]
        paid = [""] * len(done)
        if self._marks != "none":
            if episode.rewards is None:
                raise ValueError(
                    "schema `compact`: writes rewards, found an episode without rewards"
                )
            paid = [self._mark(reward) for reward in episode.rewards]
        stages = zip(seen, done, paid, strict=False)
        text = "".join(part for stage in stages for part in stage)
        return f"{text}{seen[-1]}" if episode.is_open else text

    def _write(self, observation: int) -> str:
        if observation == NOTHING:
            return "-"
        if len(self.contents.seen) == 1:
            return str(observation)
        values = zip(self.contents.coordinates(observation), self._widths, strict=True)
        return "".join(f"{value:0{width}}" for value, width in values)

    def _mark(self, reward: float) -> str:
        """Write a reward's level, or a rounded reward."""
        if self._marks == "number":
            return f"{round(SCALE * reward)},"
        level = self.contents.level(reward)
        return "." * level if self._marks == "dot" else f"_{LETTERS[level]}"

    def parse(self, text: str) -> Episode:
        """Parse an episode; raise `ValueError` for a text in another format."""
        seen = r"(\d+)"
        if len(self.contents.seen) > 1:
            seen = "".join(rf"(\d{{{width}}})" for width in self._widths)
        blind = text.startswith("-")
        if blind:  # parse observation 0 in its place
            text = self._write(0) + text[1:]
        stage = rf"{seen}([a-z]){MARKS[self._marks]}"
        whole = stage.replace("(", "(?:")
        if not re.fullmatch(rf"({whole})*({seen})?", text):
            raise ValueError(
                "schema `compact`: stages must be observation, letter and mark, found "
                f"`{text[:40]}`"
            )
        count = len(self.contents.seen)
        found = [m.groups() for m in re.finditer(stage, text)]
        observations = [stage[:count] for stage in found]
        if left := re.search(rf"{seen}$", text):
            observations.append(left.groups())
        read = [self.contents.observation(tuple(map(int, x))) for x in observations]
        paid = None
        if self._marks != "none":
            paid = tuple(self._read(stage[-1]) for stage in found)
        return Episode(
            tuple([NOTHING, *read[1:]] if blind else read),
            tuple(LETTERS.index(stage[count]) for stage in found),
            paid,
        )

    def _read(self, mark: str) -> float:
        """Return the reward that a mark stands for."""
        if self._marks == "number":
            return int(mark) / SCALE
        level = len(mark) if self._marks == "dot" else LETTERS.index(mark)
        if level >= len(self.contents.levels):
            raise ValueError(
                f"schema `compact`: rewards have {len(self.contents.levels)} levels, "
                f"found level {level}"
            )
        return self.contents.levels[level]

    def answer(self, action: int) -> str:
        """Write the action's letter."""
        if action >= len(self.contents.actions):
            raise ValueError(
                f"schema `compact`: there are {len(self.contents.actions)} actions, "
                f"found action {action}"
            )
        return LETTERS[action]

    def action_spans(self, text: str) -> list[tuple[int, int]]:
        """Find every letter that is not a reward."""
        return [m.span() for m in re.finditer(ACTION, text)]
