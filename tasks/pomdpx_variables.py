"""Variables of a PomdpX file: their names, values and visibility."""

import itertools
from dataclasses import dataclass, field
from math import prod

from sdm.tasks.cassandra_words import WHOLE
from sdm.tasks.pomdpx_xml import Element

MOST_VALUES = 1_000_000


@dataclass
class Variables:
    """The variables of a file; dictionaries map a variable to its number of values.

    Attributes:
        states: state variables before a decision.
        after: the same variables after it.
        visible: the fully observed ones of `states`.
        visible_after: the fully observed ones of `after`.
        actions: action variables.
        symbols: observation variables.
        rewards: names of reward variables.
        values: the values of each variable, rewards apart.

    """

    states: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    visible: dict[str, int] = field(default_factory=dict)
    visible_after: dict[str, int] = field(default_factory=dict)
    actions: dict[str, int] = field(default_factory=dict)
    symbols: dict[str, int] = field(default_factory=dict)
    rewards: set[str] = field(default_factory=set)
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @staticmethod
    def count(variables: dict[str, int]) -> int:
        """Return the number of combinations of values."""
        return prod(variables.values())

    @property
    def all_visible(self) -> bool:
        """Whether the model is an MDP."""
        return len(self.visible) == len(self.states)

    @property
    def symbol_count(self) -> int:
        """Number of combinations of visible variables and observations."""
        return self.count(self.visible) * self.count(self.symbols)

    def names(self, variables: dict[str, int]) -> tuple[str, ...]:
        """Return the name of each combination: its values, joined with dots."""
        each = itertools.product(*(self.values[name] for name in variables))
        return tuple(".".join(values) or "none" for values in each)

    @property
    def symbol_names(self) -> tuple[str, ...]:
        """The name of each symbol."""
        return self.names(self.visible_after | self.symbols)


def read_variables(element: Element) -> Variables:
    """Read the section `<Variable>`.

    Raises:
        PomdpFileError: if a variable is missing, given twice or has no valid values.

    """
    found = Variables()
    for part in element.all("StateVar", "ObsVar", "ActionVar", "RewardVar"):
        if part.tag == "StateVar":
            _state(part, found)
        elif part.tag == "RewardVar":
            found.rewards.add(_name(part, "vname", found))
        else:
            name = _name(part, "vname", found)
            found.values[name] = _values(part, part.tag[0].lower())
            group = found.actions if part.tag == "ActionVar" else found.symbols
            group[name] = len(found.values[name])
    for given, tag in (
        (bool(found.states), "StateVar"),
        (bool(found.actions), "ActionVar"),
        (bool(found.rewards), "RewardVar"),
    ):
        if not given:
            raise element.error(f"`<{tag}>` is missing")
    return found


def _state(part: Element, found: Variables) -> None:
    seen = part.attributes.get("fullyObs", "false").strip().lower()
    if seen not in ("true", "false", "1", "0"):
        raise part.error(f"`fullyObs` must be true or false, found `{seen}`")
    for attribute, group, visible in (
        ("vnamePrev", found.states, found.visible),
        ("vnameCurr", found.after, found.visible_after),
    ):
        name = _name(part, attribute, found)
        found.values[name] = _values(part, "s")
        group[name] = len(found.values[name])
        if seen in ("true", "1"):
            visible[name] = group[name]


def _name(part: Element, attribute: str, found: Variables) -> str:
    name = part.attribute(attribute)
    if name in found.values or name in found.rewards:
        raise part.error(f"two variables have the name `{name}`")
    return name


def _values(part: Element, letter: str) -> tuple[str, ...]:
    """Return the listed values, or numbered ones such as `s0`."""
    part.all("ValueEnum", "NumValues")
    listed, number = part.optional("ValueEnum"), part.optional("NumValues")
    if (listed is None) == (number is None):
        raise part.error("must have either `<ValueEnum>` or `<NumValues>`")
    if listed is not None:
        names = tuple(listed.text.split())
        if not names or len(set(names)) < len(names) or {"*", "-"} & set(names):
            raise listed.error(
                "must list distinct values other than `*` and `-`, found "
                f"`{' '.join(names)[:60]}`"
            )
        return names
    assert number is not None
    word = number.text.strip()
    if not WHOLE.fullmatch(word) or not 1 <= int(word[:9]) <= MOST_VALUES:
        raise number.error(f"must be a whole number to {MOST_VALUES}, found `{word}`")
    return tuple(f"{letter}{i}" for i in range(int(word)))
