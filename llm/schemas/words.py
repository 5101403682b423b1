"""Natural language (ours), from the names that a family gives.

    energy 3, charge. energy 4, work.

Components follow each other (`row 3 column 4, stay.`). A value that has a name is
written by name (`condition good, run.`). In `nothing, listen.`, nothing is observed
before the first action. If the agent observes its rewards, they follow the action,
with two decimals: `energy 3, charge, reward -0.05.`
"""

import re
from dataclasses import dataclass

from sdm.llm.episode import NOTHING, Episode
from sdm.llm.schema import REWARD_DECIMALS, Contents, register_schema
from sdm.tasks.family import Component

BLIND = "nothing"
RESERVED = re.compile(r"[,.\n]|\breward\b")


@register_schema("words")
@dataclass(frozen=True)
class WordsSchema:
    """Sentences of the names of components, values and actions.

    Raises:
        ValueError: if names are equal, empty, or contain a separator.

    """

    contents: Contents

    name = "words"

    def __post_init__(self) -> None:
        """Raise `ValueError` for names that `parse` cannot separate."""
        names = [n for c in self.contents.seen for n in (c.name, *c.values)]
        for name in (*names, *self.contents.actions):
            if not name or RESERVED.search(name):
                raise ValueError(
                    "schema `words`: a name must not be empty or contain commas, dots, "
                    f"line breaks or `reward`, found {name!r}"
                )
        groups = (self.contents.actions, *(c.values for c in self.contents.seen))
        for group in groups:
            if len(set(group)) < len(group):
                raise ValueError(
                    f"schema `words`: names must be distinct, found {', '.join(group)}"
                )

    @property
    def terminator(self) -> str:
        """Return the text that follows an action."""
        return "," if self.contents.rewards else "."

    def render(self, episode: Episode) -> str:
        """Write one sentence per stage."""
        rewards: tuple[float | None, ...] = (None,) * len(episode.actions)
        if self.contents.rewards:
            if episode.rewards is None:
                raise ValueError(
                    "schema `words`: writes rewards, found an episode without rewards"
                )
            rewards = episode.rewards
        rows = zip(episode.observations, episode.actions, rewards, strict=False)
        parts = [
            f"{self._write(observation)},{self.answer(action)}{_paid(reward)}."
            for observation, action, reward in rows
        ]
        if episode.is_open:
            parts.append(f"{self._write(episode.observations[-1])},")
        return " ".join(parts)

    def _write(self, observation: int) -> str:
        if observation == NOTHING:
            return BLIND
        values = self.contents.coordinates(observation)
        pairs = zip(self.contents.seen, values, strict=True)
        return " ".join(f"{each.name} {_value(each, value)}" for each, value in pairs)

    def parse(self, text: str) -> Episode:
        """Parse an episode; raise `ValueError` unless it consists of such sentences."""
        seen = " ".join(_pattern(component) for component in self.contents.seen)
        blind = text.startswith(f"{BLIND},")
        if blind:  # parse observation 0 in its place
            text = self._write(0) + text.removeprefix(BLIND)
        # Longer names come first, since one name can be a prefix of another.
        names = sorted(self.contents.actions, key=len, reverse=True)
        action = "|".join(map(re.escape, names))
        number = rf"-?\d+\.\d{{{REWARD_DECIMALS}}}"
        paid = rf", reward ({number})" if self.contents.rewards else "()"
        stage = re.compile(rf"{seen}, ({action}){paid}\.(?: |$)")
        observations, actions, rewards, place = [], [], [], 0
        while found := stage.match(text, place):
            *values, name, reward = found.groups()
            observations.append(self._read(values))
            actions.append(self.contents.actions.index(name))
            rewards.append(float(reward) if reward else 0.0)
            place = found.end()
        if last := re.compile(rf"{seen},$").match(text, place):
            observations.append(self._read(list(last.groups())))
            place = last.end()
        if place != len(text):
            wrong = text[place : place + 40]
            raise ValueError(
                f"schema `words`: a sentence is out of place, found `{wrong}`"
            )
        if blind:
            observations[0] = NOTHING
        paid_for = tuple(rewards) if self.contents.rewards else None
        return Episode(tuple(observations), tuple(actions), paid_for)

    def _read(self, values: list[str]) -> int:
        pairs = zip(self.contents.seen, values, strict=True)
        return self.contents.observation(
            tuple(
                each.values.index(value) if each.values else int(value)
                for each, value in pairs
            )
        )

    def answer(self, action: int) -> str:
        """Write a space and the action's name."""
        return f" {self.contents.actions[action]}"

    def action_spans(self, text: str) -> list[tuple[int, int]]:
        """Find the name after every observation."""
        seen = " ".join(_pattern(component) for component in self.contents.seen)
        names = sorted(self.contents.actions, key=len, reverse=True)
        action = "|".join(map(re.escape, names))
        pattern = rf"(?:{_open(seen)}|{BLIND}), ({action})(?=[,.])"
        return [m.span(1) for m in re.finditer(pattern, text)]


def _open(pattern: str) -> str:
    """Make the groups of a pattern non-capturing."""
    return re.sub(r"(?<!\\)\(", "(?:", pattern)


def _paid(reward: float | None) -> str:
    if reward is None:
        return ""
    rounded = round(reward, REWARD_DECIMALS) + 0.0  # no "-0.00"
    return f", reward {rounded:.{REWARD_DECIMALS}f}"


def _value(component: Component, value: int) -> str:
    return component.values[value] if component.values else str(value)


def _pattern(component: Component) -> str:
    values = sorted(component.values, key=len, reverse=True)
    some = "|".join(map(re.escape, values)) or r"\d+"
    return rf"{re.escape(component.name)} ({some})"
