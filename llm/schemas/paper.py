"""The paper's schema (Zhang, Aghaei, Saghafian, 2026): every quantity has a name.

    <O_1> 3, <A_1> 1, <R_1> -0.05, <O_2> 4, <A_2> 2, <R_2> 0.44

Stages are counted from 1 and rewards rounded to two decimals. An observation of several
components is written as its values, separated by spaces: `<O_1> 3 4`; `<O_1> -` means
that nothing is observed before the first action. If the agent does not observe its
rewards, `<R_t>` is omitted, and a comma follows the last action as it does every other:
`<O_1> 3, <A_1> 1, <O_2> 4, <A_2> 2,`.
"""

import re
from dataclasses import dataclass

from sdm.llm.episode import NOTHING, Episode
from sdm.llm.schema import REWARD_DECIMALS, Contents, register_schema

NUMBER = rf"-?\d+\.\d{{{REWARD_DECIMALS}}}"


@register_schema("paper")
@dataclass(frozen=True)
class PaperSchema:
    """A named field for every observation, action and reward."""

    contents: Contents

    name = "paper"
    terminator = ","

    @property
    def _letters(self) -> str:
        """Return the letters of a stage's fields."""
        return "OAR" if self.contents.rewards else "OA"

    def render(self, episode: Episode) -> str:
        """Write `<O_t> o, <A_t> a, <R_t> r`, joined by commas."""
        parts: list[str] = []
        rewards: tuple[float | None, ...] = (None,) * len(episode.actions)
        if self.contents.rewards:
            if episode.rewards is None:
                raise ValueError(
                    "schema `paper`: writes rewards, found an episode without rewards"
                )
            rewards = episode.rewards
        rows = zip(episode.observations, episode.actions, rewards, strict=False)
        for t, (observation, action, reward) in enumerate(rows, 1):
            parts += [f"<O_{t}> {self._write(observation)}", f"<A_{t}> {action}"]
            if reward is not None:
                rounded = round(reward, REWARD_DECIMALS) + 0.0  # no "-0.00"
                parts.append(f"<R_{t}> {rounded:.{REWARD_DECIMALS}f}")
        if episode.is_open:
            t = len(episode.observations)
            parts += [f"<O_{t}> {self._write(episode.observations[-1])}", f"<A_{t}>"]
        ended = bool(parts) and not (episode.is_open or self.contents.rewards)
        return ", ".join(parts) + self.terminator * ended

    def _write(self, observation: int) -> str:
        if observation == NOTHING:
            return "-"
        return " ".join(map(str, self.contents.coordinates(observation)))

    def parse(self, text: str) -> Episode:
        """Parse an episode; raise `ValueError` at the first field out of place."""
        seen = " ".join([r"\d+"] * len(self.contents.seen)) + "|-"
        patterns = {"O": seen, "A": r"\d+", "R": NUMBER}
        letters = self._letters
        fields: dict[str, list[str]] = {"O": [], "A": [], "R": []}
        is_open = bool(re.search(r"<A_\d+>$", text))
        if text and not is_open and not self.contents.rewards:
            if not text.endswith(self.terminator):
                raise ValueError(
                    "schema `paper`: the last field must end with a comma, found "
                    f"`{text[-20:]}`"
                )
            text = text.removesuffix(self.terminator)
        parts = text.split(", ")[: -1 if is_open else None] if text else []
        for i, part in enumerate(parts):
            letter, t = letters[i % len(letters)], i // len(letters) + 1
            found = re.fullmatch(rf"<{letter}_{t}> ({patterns[letter]})", part)
            if not found:
                raise ValueError(
                    f"schema `paper`: field {i + 1} must be `<{letter}_{t}> …`, found "
                    f"`{part}`"
                )
            fields[letter].append(found[1])
        if is_open and text.split(", ")[-1] != f"<A_{len(fields['O'])}>":
            raise ValueError(
                f"schema `paper`: the last field is out of place, found `{text[-20:]}`"
            )
        if len(parts) % len(letters) != is_open:
            raise ValueError(
                "schema `paper`: the text ends in the middle of a stage, found "
                f"`{text[-20:]}`"
            )
        return Episode(
            tuple(map(self._read, fields["O"])),
            tuple(map(int, fields["A"])),
            tuple(map(float, fields["R"])) if self.contents.rewards else None,
        )

    def _read(self, text: str) -> int:
        if text == "-":
            return NOTHING
        return self.contents.observation(tuple(map(int, text.split())))

    def answer(self, action: int) -> str:
        """Write a space and the number."""
        return f" {action}"

    def action_spans(self, text: str) -> list[tuple[int, int]]:
        """Find the digits after every `<A_t>`."""
        return [m.span(1) for m in re.finditer(r"<A_\d+> (\d+)", text)]
