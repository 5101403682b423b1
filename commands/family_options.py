"""Options of a task family, read from its source without importing it.

Importing a family takes a second, which would slow down `--help`.
"""

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdm.commands.config_command import ConfigCommand, OptionGroup
from sdm.commands.config_options import OptionField, fields_of, parameters_of
from sdm.commands.console import start_jax, user_faults
from sdm.commands.options import ALL
from sdm.commands.plugin_options import named_in
from sdm.commands.progress import doing, progress_bars
from sdm.commands.source_fields import classes_of, string_of

if TYPE_CHECKING:
    from sdm.tasks.family import TaskFamily

DEFAULT = "energy"
FOLDER = "folder"  # the family that loads models from a folder's path
FAMILIES = Path(__file__).parents[1] / "tasks" / "families"


class FamilyCommand(ConfigCommand):
    """A command with the options of the family that `--family` names.

    Attributes:
        other: name of another use of the family's options, for which the command also
            takes `--OTHER-OPTION`; "" for none.

    """

    plugins = {"--family": FAMILIES}  # noqa: RUF012
    other = ""

    @property
    def configs(self) -> Mapping[str, OptionGroup]:
        """Return additional groups of options, by name."""
        return {}

    def dynamic(self, args: Sequence[str]) -> Mapping[str, OptionGroup]:
        """Return the options of the family on the command line."""
        reference = family_in(args)
        with user_faults():
            fields = [] if reference == ALL else family_fields(reference)
        panel = f"Options of family {reference}"
        groups = dict(self.configs)
        taken = {name for p in self.params for name in p.opts}
        taken |= {
            n for group in groups.values() for p in group.parameters for n in p.opts
        }
        fields = [
            field
            if field.option not in taken
            else dataclasses.replace(field, option=f"--family-{field.option[2:]}")
            for field in fields
        ]
        groups["family"] = OptionGroup(
            fields, parameters_of(fields, panel=panel, scope="family")
        )
        if use := self.other:
            hidden = parameters_of(fields, scope=use, prefix=use, hidden=True)
            groups[use] = OptionGroup(fields, hidden)
        return groups


def family_in(args: Sequence[str]) -> str:
    """Return the family that the command-line arguments select."""
    return named_in(args, "--family", DEFAULT)


def family_fields(reference: str) -> list[OptionField]:
    """Return a family's options.

    Raises:
        FamilyError: if the family is unknown.

    """
    if reference in built_in():
        return built_in()[reference]
    name, _, rest = reference.partition(":")
    if rest and name in built_in():
        return built_in()[name][1:]
    if Path(reference).is_dir():
        return built_in()[FOLDER][1:]
    with progress_bars():
        start_jax()  # before a user's module makes arrays
        doing(f"importing `{name}`")
        from sdm.tasks.registry import find_family

        factory, first = find_family(reference)
    kind = factory if isinstance(factory, type) else type(factory)
    if not dataclasses.is_dataclass(kind):
        return []
    fields = fields_of(kind, without=first)
    if kind is not factory:  # the instance's values are the defaults
        fields = [
            dataclasses.replace(f, default=getattr(factory, f.name)) for f in fields
        ]
    return fields


@cache
def built_in() -> dict[str, list[OptionField]]:
    """Return the options of each built-in family, by the family's name."""
    found = {}
    for path in sorted(FAMILIES.glob("[!_]*.py")):
        for node, fields in classes_of(path):
            if name := _family_name(node):
                found[name] = fields
    return found


def _family_name(node: ast.ClassDef) -> str:
    """Return the `name` of a registered family's class, or "" for other classes."""
    decorated = any(
        isinstance(each, ast.Name) and each.id == "register"
        for each in node.decorator_list
    )
    return string_of(node, "name") if decorated else ""


def make_family(reference: str, options: Mapping[str, Any]) -> "TaskFamily":
    """Create a family from its reference and its options.

    Raises:
        FamilyError: if the family is unknown or does not accept these options.

    """
    from sdm.tasks.registry import load_family

    return load_family(reference, options)
