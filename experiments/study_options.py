"""Options of studies: those of configurations, and those of the task family."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sdm.experiments.spec import UNSPELLED, ExperimentError, Options
from sdm.tasks.family import TaskFamily
from sdm.tasks.registry import find_family, load_family, option_names

SIZES = ("horizon", "tasks")  # that have defaults of the family


def fields_of(config: type, *others: str) -> frozenset[str]:
    """Return the fields of a configuration, without `others`."""
    return frozenset(each.name for each in dataclasses.fields(config)) - {*others}


def split_options(
    study: str, options: Options, parts: Mapping[str, frozenset[str]]
) -> tuple[TaskFamily, dict[str, Options]]:
    """Return the family of a study, and the options of each part, by its name.

    Args:
        study: name of the study, for the error.
        options: options of a cell; `family`, and all that are in no part, are those of
            the family.
        parts: names of the options of each part.

    Raises:
        ValueError: if the family or an option is unknown, or a value is invalid.

    """
    reference = str(options.get("family", UNSPELLED["family"]))
    names = option_names(find_family(reference)[0])
    known = frozenset[str]({"family"}).union(*parts.values())
    own = {name: x for name, x in options.items() if name not in known}
    if unknown := sorted(own.keys() - set(names)):
        raise ExperimentError(
            f"study `{study}`: unknown option `{unknown[0]}`",
            f"options are {', '.join(sorted(known))}; options of family "
            f"`{reference}` are {', '.join(names) or 'none'}",
        )
    found = {
        part: {name: options[name] for name in options if name in mine}
        for part, mine in parts.items()
    }
    return load_family(reference, own), found


def needed(study: str, options: Options, name: str, *choices: str) -> str:
    """Return an option that a study needs.

    Raises:
        ExperimentError: if it is missing or not one of the choices, if there are any.

    """
    value = options.get(name)
    if not isinstance(value, str) or (choices and value not in choices):
        hint = f"choose from {', '.join(choices)}" if choices else "add it to `cells`"
        raise ExperimentError(
            f"study `{study}`: option `{name}`: expected a text, found {value!r}", hint
        )
    return value


def condition_of(options: Options, *hidden: str) -> str:
    """Return family, horizon and the other options in words, without `hidden`."""
    family = str(options.get("family", UNSPELLED["family"]))
    shown: dict[str, Any] = {k: x for k, x in options.items() if k not in hidden}
    shown.pop("family", None)
    horizon = shown.pop("horizon", None)
    parts = [family, *([] if horizon is None else [f"T = {horizon}"])]
    return ", ".join([*parts, *(f"{name} {value}" for name, value in shown.items())])


def setting_names(
    rows: Sequence[Mapping[str, Any]], ignored: Collection[str], *shown: str
) -> list[str]:
    """Return the setting of each row in words, without the options that are `ignored`.

    It has family, horizon, the options in `shown`, and those that differ between rows.
    """
    every = [row["learn"] for row in rows]
    names = dict.fromkeys(name for options in every for name in options)
    kept = ("family", "horizon", *shown)
    same = [
        name
        for name in names
        if name not in kept
        and all(options.get(name) == every[0].get(name) for options in every)
    ]
    return [condition_of(options, *ignored, *same) for options in every]
