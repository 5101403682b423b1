"""Policies that every log has: `random`, `behavior` and `always-ACTION`."""

import numpy as np

from sdm.data.logs import Logs
from sdm.data.off_policy.behavior import estimated_behavior
from sdm.data.off_policy.logged_policy import (
    PolicyOptions,
    TablePolicy,
    register_logged_policy,
)

PREFIX = "always-"
RANDOM = "random"


@register_logged_policy("`random`")
def uniform(text: str, logs: Logs, options: PolicyOptions) -> TablePolicy | None:
    """Return the policy that takes all actions equally often."""
    shape = (1, len(logs.observations), len(logs.actions))
    return TablePolicy(np.full(shape, 1 / shape[-1])) if text == RANDOM else None


@register_logged_policy("`behavior`")
def behavior(text: str, logs: Logs, options: PolicyOptions) -> TablePolicy | None:
    """Return the behavior policy that the logs' counts estimate."""
    return TablePolicy(estimated_behavior(logs)[None]) if text == "behavior" else None


@register_logged_policy("`always-ACTION`")
def constant(text: str, logs: Logs, options: PolicyOptions) -> TablePolicy | None:
    """Return the policy that takes one action after every observation.

    Raises:
        ValueError: if the logs have no such action.

    """
    if not text.startswith(PREFIX):
        return None
    names = [PREFIX + name.replace(" ", "-") for name in logs.actions]
    if text not in names:
        raise ValueError(
            f"policy `{text}`: the logs have no such action: choose from "
            f"{', '.join(names)}"
        )
    table = np.zeros((1, len(logs.observations), len(names)))
    table[..., names.index(text)] = 1
    return TablePolicy(table)
