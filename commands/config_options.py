"""Command-line options from config dataclasses, so that neither can drift apart.

Each field is an option of the same name; its help is the field's line in the section
`Attributes` of the class. A field's `metadata["option"]` is another name for it. Values
come, in this order of precedence, from the command line, from the file of `--config`,
and from the class.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
import typer.core
import typer.main

from sdm.storage.docstrings import field_texts

UNSET = dataclasses.MISSING


@dataclass(frozen=True)
class OptionField:
    """An option that a config dataclass defines.

    Attributes:
        name: of the field.
        annotation: its type.
        default: value of the class, or `UNSET` where it must be given.
        text: its help.
        option: its name on the command line.

    """

    name: str
    annotation: Any
    default: Any
    text: str
    option: str


def option_name(name: str) -> str:
    """Return the option of a field."""
    return "--" + name.replace("_", "-")


def fields_of(config: type, *, without: Iterable[str] = ()) -> list[OptionField]:
    """Return the options of a dataclass, in the order of its fields."""
    hints, texts = get_type_hints(config), field_texts(config)
    return [
        OptionField(
            name=field.name,
            annotation=hints[field.name],
            default=field.default,
            text=texts.get(field.name, ""),
            option=field.metadata.get("option", option_name(field.name)),
        )
        for field in dataclasses.fields(config)
        if field.init and field.name not in set(without)
    ]


def parameters_of(
    fields: Sequence[OptionField],
    *,
    panel: str | None = None,
    scope: str = "",
    prefix: str = "",
    hidden: bool = False,
    show_default: bool = True,
) -> list[Any]:
    """Return typer's parameters for options.

    Args:
        fields: the options.
        panel: heading in the help; None for the common one.
        scope: stands before the names of the parameters.
        prefix: stands before the names of the options.
        hidden: leave them out of the help.
        show_default: tell the class's defaults in the help.

    """
    signature = []
    for field in fields:
        option = field.option
        if prefix:
            option = f"--{prefix}-{option.lstrip('-')}"
        declared = typer.Option(
            *_declarations(option, field.annotation),
            help=_help(field, show_default=show_default),
            rich_help_panel=panel,
            hidden=hidden,
            show_default=False,
        )
        annotation = Annotated[_or_none(_plain(field.annotation)), declared]
        signature.append(
            inspect.Parameter(
                f"{scope}__{field.name}" if scope else field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=annotation,
            )
        )

    def nothing(**values: Any) -> None:
        """Stand for the command that takes these options."""

    nothing.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    nothing.__annotations__ = {p.name: p.annotation for p in signature}
    app = typer.Typer(add_completion=False)
    app.command()(nothing)
    return list(typer.main.get_command(app).params)


def _declarations(option: str, annotation: Any) -> tuple[str, ...]:
    if _plain(annotation) is bool:
        return (f"{option}/--no-{option.lstrip('-')}",)
    return (option,)


def _help(field: OptionField, *, show_default: bool) -> str:
    text = field.text[:1].upper() + field.text[1:]
    if not show_default or field.default in (UNSET, None, "") or field.default is False:
        return text
    shown = str(field.default)
    return f"{text.rstrip('.')} (default {shown})."


def _plain(annotation: Any) -> Any:
    """Return the type that an option's text is read as.

    Of a union, the type besides None; text where there are several, since the class
    itself checks what it is given.
    """
    if get_origin(annotation) in (Union, UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
        return _plain(kinds[0]) if len(kinds) == 1 else str
    if get_origin(annotation) is Literal:
        return annotation
    return annotation if annotation in (int, float, bool, str, Path) else str


def _or_none(annotation: Any) -> Any:
    return annotation | None


def converted(field: OptionField, value: Any, where: str) -> Any:
    """Return a value from a YAML file or the command line as the field's type.

    Raises:
        ValueError: if it is of another type.

    """
    kinds = get_args(field.annotation) or (field.annotation,)
    if get_origin(field.annotation) is Literal:
        kinds = (str,)
    if value is None and NoneType in kinds:
        return None
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if float in kinds and str not in kinds and isinstance(value, str):
        with suppress(ValueError):  # YAML reads `1e-3` as text: it wants `1.0e-3`
            return float(value)
    if int in kinds and str in kinds and isinstance(value, str) and value.isdecimal():
        return int(value)
    wanted = tuple(
        kind if isinstance(kind, type) else str
        for kind in kinds
        if kind is not NoneType
    )
    wrong_bool = isinstance(value, bool) and bool not in wanted
    if wrong_bool or not isinstance(value, wanted):
        names = " or ".join(sorted({kind.__name__ for kind in wanted}))
        raise ValueError(f"{where}: {field.name}: expected {names}, found {value!r}")
    return value


def from_file(path: Path, fields: Sequence[OptionField]) -> dict[str, Any]:
    """Read values of options from a YAML file, by field or option name.

    Raises:
        ValueError: if it is no mapping, or has a name or a value that does not fit.

    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"`{path}` cannot be read: {error}") from error
    except yaml.YAMLError as error:
        first = str(error).replace("\n", " ")
        raise ValueError(f"`{path}` is not valid YAML: {first}") from error
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise ValueError(
            f"`{path}`: expected names and values, found {type(values).__name__}"
        )
    known: dict[str, OptionField] = {}
    for field in fields:
        known |= {field.name: field, field.option.lstrip("-"): field}
        known[field.option.lstrip("-").replace("-", "_")] = field
    found = {}
    for name, value in values.items():
        if name not in known:
            names = ", ".join(field.name for field in fields)
            raise ValueError(f"`{path}`: unknown option {name!r}: options are {names}")
        found[known[name].name] = converted(known[name], value, f"`{path}`")
    return found


class ConfigCommand(typer.core.TyperCommand):
    """A command whose further options come from dataclasses.

    Subclasses say which by `dynamic`. The values given on the command line are in the
    context's `meta` under the group's name.
    """

    def dynamic(self, args: Sequence[str]) -> Mapping[str, "OptionGroup"]:
        """Return the groups of options for these words on the command line."""
        return {}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Add the options, then read the words."""
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
        """Move the values of the added options out of the callback's way."""
        for name, group in self._groups.items():
            given = {}
            for parameter, field in zip(group.parameters, group.fields, strict=True):
                value = ctx.params.pop(parameter.name, None)
                if value is not None:
                    given[field.name] = value
            ctx.meta[name] = Given(group.fields, given)
        return super().invoke(ctx)


LAST = ("out", "plot", "seed", "resume", "overwrite", "as_json", "config")


@dataclass(frozen=True)
class OptionGroup:
    """Options of one dataclass.

    Attributes:
        fields: what the dataclass says.
        parameters: typer's parameters, one a field.

    """

    fields: Sequence[OptionField]
    parameters: Sequence[Any]


@dataclass(frozen=True)
class Given:
    """Values that were given for a group of options.

    Attributes:
        fields: of the group.
        values: given on the command line, by field.

    """

    fields: Sequence[OptionField]
    values: Mapping[str, Any]

    def merged(self, file: Path | None) -> dict[str, Any]:
        """Return the file's values, replaced by those of the command line.

        Raises:
            ValueError: if the file does not fit.

        """
        by_name = {field.name: field for field in self.fields}
        written = {} if file is None else from_file(file, self.fields)
        typed = {
            name: converted(by_name[name], value, by_name[name].option)
            for name, value in self.values.items()
        }
        return written | typed


def group_of(
    fields: Sequence[OptionField], *, show_default: bool = True
) -> OptionGroup:
    """Return a group of options."""
    return OptionGroup(fields, parameters_of(fields, show_default=show_default))


def command_with(make: Callable[[], OptionGroup]) -> type[ConfigCommand]:
    """Return a class of commands with the options of one config, `config`."""

    class Fixed(ConfigCommand):
        def dynamic(self, args: Sequence[str]) -> Mapping[str, OptionGroup]:
            return {"config": make()}

    return Fixed
