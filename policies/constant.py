"""Constant policies: `always-ACTION`, for each distinct action of a family."""

from sdm.data.benchmark import Benchmark
from sdm.policies.prepared import Prepared, state_table
from sdm.tasks.family import TaskFamily
from sdm.tasks.policy import constant_action

PREFIX = "always-"


def constant_actions(family: TaskFamily) -> dict[str, int]:
    """Return the names of a family's constant policies, and their actions."""
    spaces = family.spaces
    copies = {each for group in spaces.duplicates for each in sorted(group)[1:]}
    return {
        PREFIX + name.replace(" ", "-"): action
        for action, name in enumerate(spaces.actions)
        if action not in copies
    }


def constant(bed: Benchmark, name: str) -> Prepared:
    """Prepare the policy that takes one action after every observation."""
    action = constant_actions(bed.config.family)[name]
    chosen = constant_action(bed.states, bed.config.horizon, action)
    # If states are hidden, the table is over symbols, whose number may differ.
    table = chosen.probabilities[:, :, :1]
    wide = table.repeat(bed.config.family.spaces.symbols(bed.config.kind), axis=2)
    prepared = state_table(bed, chosen)
    return Prepared(type(chosen)(wide), prepared.value)
