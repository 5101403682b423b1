"""Commands whose options come from config dataclasses.

The command line takes precedence over the file of `--config`, and that file over the
defaults of the class.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import typer.core

from sdm.commands.config_options import (
    OptionField,
    converted,
    from_file,
    parameters_of,
)

# Parameters of a command that come after the added options.
LAST = ("out", "plot", "seed", "resume", "overwrite", "as_json", "config")


class ConfigCommand(typer.core.TyperCommand):
    """A command that takes additional options from dataclasses.

    Subclasses define these options in `dynamic`. The context's `meta` holds the values
    on the command line, under the name of each group.

    Attributes:
        plugins: for each option that selects a plugin with further options, the folder
            of the plugins' files.

    """

    plugins: ClassVar[Mapping[str, Path]] = {}

    def dynamic(self, args: Sequence[str]) -> Mapping[str, "OptionGroup"]:
        """Return the groups of options for these command-line arguments."""
        return {}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Add the options, then parse the arguments."""
        groups = self.dynamic(args)
        mine = list(self.params)
        place = next((i for i, p in enumerate(mine) if p.name in LAST), len(mine))
        added = [p for group in groups.values() for p in group.parameters]
        self.params = [*mine[:place], *added, *mine[place:]]
        try:
            left = super().parse_args(ctx, args)
        finally:
            self._groups = groups
        return left

    def invoke(self, ctx: Any) -> Any:
        """Move the values of the added options to `meta`, then call the command."""
        for name, group in self._groups.items():
            given = {}
            for parameter, field in zip(group.parameters, group.fields, strict=True):
                value = ctx.params.pop(parameter.name, None)
                if value is not None:
                    given[field.name] = value
            ctx.meta[name] = Given(group.fields, given)
        return super().invoke(ctx)


@dataclass(frozen=True)
class OptionGroup:
    """Options of one dataclass.

    Attributes:
        fields: options that the dataclass defines.
        parameters: typer's parameter for each field.

    """

    fields: Sequence[OptionField]
    parameters: Sequence[Any]


@dataclass(frozen=True)
class Given:
    """Values on the command line for a group of options.

    Attributes:
        fields: options of the group.
        values: value of each option on the command line, by field name.

    """

    fields: Sequence[OptionField]
    values: Mapping[str, Any]

    def merged(self, file: Path | None) -> dict[str, Any]:
        """Return the file's values, overridden by those on the command line.

        Raises:
            ValueError: if the file is invalid.

        """
        by_name = {field.name: field for field in self.fields}
        written = {} if file is None else from_file(file, self.fields)
        typed = {
            name: converted(by_name[name], value, by_name[name].option)
            for name, value in self.values.items()
        }
        return written | typed


def group_of(
    fields: Sequence[OptionField],
    *,
    show_default: bool = True,
    panels: Mapping[str, str] | None = None,
) -> OptionGroup:
    """Return a group of options with their typer parameters.

    Args:
        fields: the options.
        show_default: whether the help shows the defaults of the class.
        panels: heading in the help of each field that has one of its own.

    """
    made = parameters_of(fields, show_default=show_default, panel=panels)
    return OptionGroup(fields, made)


def command_with(make: Callable[[], OptionGroup]) -> type[ConfigCommand]:
    """Return a command class with one group of options, named `config`."""

    class Fixed(ConfigCommand):
        def dynamic(self, args: Sequence[str]) -> Mapping[str, OptionGroup]:
            return {"config": make()}

    return Fixed
