"""Differences between the tasks of a training and those of a test."""

import json
import warnings
from collections.abc import Mapping
from typing import Any

from sdm.data.benchmark import EvaluationConfig
from sdm.data.request import family_header
from sdm.tasks.family import TaskFamily
from sdm.tasks.option_effects import affects

Values = dict[str, Any]


def warn_of_other_tasks(
    name: str,
    trained: Mapping[str, Any],
    config: EvaluationConfig,
    *,
    support: int | None = None,
) -> None:
    """Warn once if a policy's training tasks differ from its test tasks.

    Args:
        name: name of the policy.
        trained: entries of the training's manifest that describe its tasks.
        config: configuration of the test.
        support: demonstrations in a training text; None if they need not be compared.

    """
    before, now = differences(trained, config, support=support)
    if before:
        warnings.warn(
            f"`{name}`: trained with {_words(before)}; evaluated with {_words(now)}",
            stacklevel=3,
        )


def differences(
    trained: Mapping[str, Any],
    config: EvaluationConfig,
    *,
    support: int | None = None,
) -> tuple[Values, Values]:
    """Return the fields in which a training and a test differ, with their values.

    Options without effect on the kinds of both are left out, and those of the family if
    `config.training_family` says that the test is out of distribution in this way.

    Args:
        trained: see `warn_of_other_tasks`.
        config: configuration of the test.
        support: see `warn_of_other_tasks`.

    """
    header = family_header(config.family, config.kind)
    before: Values = {n: trained[n] for n in ("family", "kind")}
    now: Values = {n: header[n] for n in ("family", "kind")}
    if header["family"] == trained["family"]:
        options = _plain(trained["family_config"])
        if not _same(options, config.prior_family, trained["kind"], config.kind):
            mine = _plain(header["family_config"])
            names = _compared(options, config.family, trained["kind"], config.kind)
            before |= {n: options[n] for n in names}
            now |= {n: mine[n] for n in names}
    before |= {n: trained[n] for n in ("horizon", "observes_reward")}
    now |= {"horizon": config.horizon, "observes_reward": config.rewards_seen}
    if support is not None:
        before["support"], now["support"] = support, config.support
    changed = [name for name in before if before[name] != now[name]]
    return {n: before[n] for n in changed}, {n: now[n] for n in changed}


def _same(options: Values, family: TaskFamily, *kinds: str) -> bool:
    """Return whether a family has these options, where they affect the kinds."""
    own = _plain(family.config())
    names = _compared(options, family, *kinds)
    return all(options[name] == own[name] for name in names)


def _compared(options: Values, family: TaskFamily, *kinds: str) -> list[str]:
    """Return the options that a training recorded and that affect the kinds."""
    return [
        name
        for name in family.config()
        if name in options and all(affects(name, kind, family) for kind in kinds)
    ]


def _plain(options: Mapping[str, Any]) -> Values:
    """Return options as JSON stores them."""
    return json.loads(json.dumps(dict(options)))


def _words(values: Values) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())
