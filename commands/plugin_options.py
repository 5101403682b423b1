"""Options of the plugin that another option names, as in `--estimator l1`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sdm.commands.config_options import OptionField, fields_of
from sdm.commands.console import start_jax
from sdm.commands.source_fields import classes_of, string_of


def named_in(args: Sequence[str], option: str, default: str) -> str:
    """Return the value of an option in command-line arguments."""
    found = default
    for word, following in zip(args, [*args[1:], ""], strict=False):
        if word == option:
            found = following
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def plugin_fields(
    folder: Path, name: str, find: Callable[[], Callable[[str], Any]]
) -> list[OptionField]:
    """Return the options of a plugin, from its source if it is one of ours.

    Args:
        folder: folder of our plugins, one class in each file.
        name: name of the plugin.
        find: imports and returns the function from a name to the class.

    Raises:
        ValueError: if it is unknown.

    """
    for path in sorted(folder.glob("[!_]*.py")):
        for node, fields in classes_of(path):
            if string_of(node, "name") == name:
                return fields
    start_jax()
    return fields_of(find()(name))
