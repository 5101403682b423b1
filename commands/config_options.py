"""Derive command-line options from config dataclasses, so that the two always agree.

Each field becomes an option of the same name; its help is the field's entry in the
section `Attributes` of the class. A field's `metadata["option"]` overrides the name.
`config_command` adds the options to a command.
"""

import dataclasses
import inspect
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
import typer.main

from sdm.storage.docstrings import field_texts

UNSET = dataclasses.MISSING


@dataclass(frozen=True)
class OptionField:
    """An option that a config dataclass defines.

    Attributes:
        name: name of the field.
        annotation: type of the field.
        default: default of the class, or `UNSET` if the field is required.
        text: help text.
        option: name of the option on the command line.

    """

    name: str
    annotation: Any
    default: Any
    text: str
    option: str


def option_name(name: str) -> str:
    """Return the name of a field's option."""
    return "--" + name.replace("_", "-")


def fields_of(config: type, *, without: Iterable[str] = ()) -> list[OptionField]:
    """Return the options of a dataclass, in field order."""
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
    panel: str | Mapping[str, str] | None = None,
    scope: str = "",
    prefix: str = "",
    hidden: bool = False,
    show_default: bool = True,
) -> list[Any]:
    """Return typer's parameters for options.

    Args:
        fields: the options.
        panel: heading in the help, or that of each field by name; None for the default.
        scope: prefix of the parameter names.
        prefix: prefix of the option names.
        hidden: whether to omit the options from the help.
        show_default: whether the help shows the defaults of the class.

    """
    signature = []
    for field in fields:
        option = field.option
        if prefix:
            option = f"--{prefix}-{option.lstrip('-')}"
        declared = typer.Option(
            *_declarations(option, field.annotation),
            help=_help(field, show_default=show_default),
            rich_help_panel=panel.get(field.name)
            if isinstance(panel, Mapping)
            else panel,
            hidden=hidden,
            show_default=False,
        )
        plain: Any = _or_none(_plain(field.annotation))
        annotation: Any = Annotated[plain, declared]
        signature.append(
            inspect.Parameter(
                f"{scope}__{field.name}" if scope else field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=annotation,
            )
        )

    def nothing(**values: Any) -> None:
        """Serve as the callback from which typer derives the parameters."""

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
    named = "default" in text  # such as the family's own
    if named or not show_default or field.default in (UNSET, None, ""):
        return text
    if field.default is False:
        return text
    shown = str(field.default)
    return f"{text.rstrip('.')} (default {shown})."


def _plain(annotation: Any) -> Any:
    """Return the type that typer parses an option's text as.

    For a union with None, this is the other type. For a union of several types it is
    `str`, since the class validates the value itself.
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
    """Convert a value from a YAML file or the command line to the field's type.

    Raises:
        ValueError: if the value has another type.

    """
    kinds = get_args(field.annotation) or (field.annotation,)
    if get_origin(field.annotation) is Literal:
        kinds = (str,)
    if value is None and NoneType in kinds:
        return None
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if float in kinds and str not in kinds and isinstance(value, str):
        with suppress(ValueError):  # YAML 1.1 reads `1e-3` as text, `1.0e-3` as number
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
    """Read option values from a YAML file, by field or option name.

    Raises:
        ValueError: if the file is not a mapping, or has an unknown name or a value of
            the wrong type.

    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"`{path}` cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
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
            raise ValueError(f"`{path}`: unknown option {name!r}: choose from {names}")
        found[known[name].name] = converted(known[name], value, f"`{path}`")
    return found
