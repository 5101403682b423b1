"""Policies that need no training, by name.

Each file in `untrained` registers the policies that it defines. Another package lists a
function decorated with `register_policy` in the entry-point group `sdm.policies`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sdm.data.benchmark import Benchmark, Shown
from sdm.policies.constant import PREFIX, constant, constant_actions
from sdm.policies.prepared import Prepared
from sdm.storage.plugins import load_plugins
from sdm.tasks.family import Kind, TaskFamily

GROUP = "sdm.policies"
# Prepares a policy from a `Benchmark`, or from what is `Shown` of unknown tasks.
Make = Callable[[Any], Prepared]
# Returns why a policy does not fit a family's tasks of a kind; None if it does.
Refuse = Callable[[TaskFamily, Kind], str | None]
# The order in the table of all policies; other policies follow.
ORDER = (
    *("oracle", "random", "mean-plan", "bc", "ce", "psrl", "bayes-adaptive"),
    *("bayes-imitation", "qmdp", "observation-as-state", "nominal", "mixture"),
    *("bayes-optimal", "thompson", "ucb", "epsilon-greedy", "greedy"),
)


@dataclass(frozen=True)
class Rule:
    """A policy without training.

    Attributes:
        name: name on the command line.
        make: prepares it for a benchmark.
        refuse: returns why it does not fit a family and a kind; None if it does.
        knows_task: whether it reads the true tasks, so that it needs a `Benchmark`.

    """

    name: str
    make: Make
    refuse: Refuse
    knows_task: bool


_rules: dict[str, Rule] = {}


def anywhere(family: TaskFamily, kind: Kind) -> None:
    """Return None: the policy fits every family and kind."""


def only(*kinds: Kind) -> Refuse:
    """Return the `refuse` of a policy that fits these kinds only."""

    def refuse(family: TaskFamily, kind: Kind) -> str | None:
        return None if kind in kinds else f"it is for {' and '.join(kinds)} tasks"

    return refuse


def register_policy(
    name: str, refuse: Refuse = anywhere, *, knows_task: bool = False
) -> Callable[[Make], Make]:
    """Return a decorator that registers a policy's `make` under a name."""

    def add(make: Make) -> Make:
        _rules[name] = Rule(name, make, refuse, knows_task)
        return make

    return add


@cache
def rules() -> Mapping[str, Rule]:
    """Return every registered policy, in the order of the table of all policies."""
    load_plugins("sdm.policies.untrained", group=GROUP, what="policy")
    return {name: _rules[name] for name in (*ORDER, *_rules) if name in _rules}


def names(family: TaskFamily, kind: Kind) -> tuple[str, ...]:
    """Return the policies without training that fit a family's tasks of a kind."""
    return tuple(n for n, rule in rules().items() if not rule.refuse(family, kind))


def is_rule(name: str) -> bool:
    """Return whether `name` can be that of a policy without training."""
    return name in rules() or name.startswith(PREFIX)


def check_rule(name: str, family: TaskFamily, kind: Kind) -> None:
    """Raise `ValueError` unless the policy exists and fits a family and kind."""
    if name in rules():
        if why := rules()[name].refuse(family, kind):
            raise ValueError(
                f"policy `{name}` does not fit {kind} tasks of family "
                f"`{family.name}`: {why}; choose from "
                f"{', '.join(names(family, kind))}"
            )
    elif name not in constant_actions(family):
        raise ValueError(
            f"policy `{name}`: family `{family.name}` has no such action: choose from "
            f"{', '.join(constant_actions(family))}"
        )


def prepare(name: str, bed: Shown) -> Prepared:
    """Prepare a policy without training for a benchmark, or for unknown tasks.

    Raises:
        ValueError: if the policy does not fit, or has to know the tasks.

    """
    check_rule(name, bed.config.family, bed.config.kind)
    rule = rules().get(name)
    if rule is not None and not rule.knows_task:
        return rule.make(bed)
    if isinstance(bed, Benchmark):
        return rule.make(bed) if rule else constant(bed, name)
    fitting = names(bed.config.family, bed.config.kind)
    able = [each for each in fitting if not rules()[each].knows_task]
    raise ValueError(
        f"policy `{name}`: needs the true tasks, which are unknown; choose from "
        f"{', '.join(able)}"
    )
