"""Options that several commands share, their choices and their checks."""

import enum
from typing import TYPE_CHECKING, Annotated, cast

import typer

from sdm.commands.console import fail, say

if TYPE_CHECKING:
    from typer import Context as Context

    from sdm.commands.config_command import Given
    from sdm.tasks.family import Kind, TaskFamily
else:
    Context = typer.Context.__base__  # typer passes instances of the base class

KINDS = ("mdp", "pomdp", "apomdp")
ALL = "all"


class Quantize(enum.StrEnum):
    """Quantization of a base model's weights."""

    nf4 = "nf4"
    none = "none"


class Backend(enum.StrEnum):
    """Inference backend of language models."""

    torch = "torch"
    vllm = "vllm"


Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an existing output.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an unfinished run.")]
FamilyName = Annotated[
    str,
    typer.Option(
        "--family",
        help="Task family: a registered name, NAME:ARGUMENT, MODULE:OBJECT, or a "
        "folder of models.",
    ),
]

# Options of commands that have an effect for some kinds of model only.
OF_KINDS = {
    "atol": ("pomdp",),
    "believe": ("apomdp",),
    "gap": ("pomdp",),
    "points": ("pomdp", "apomdp"),
    "require_gap": ("pomdp",),
}


def given_options(context: Context) -> dict[str, str]:
    """Return the option of each parameter on the command line, by parameter name."""
    return {
        option.name: option.opts[0]
        for option in context.command.params
        if option.name is not None
        and (source := context.get_parameter_source(option.name)) is not None
        and source.name == "COMMANDLINE"
    }


def given(context: Context, group: str) -> "Given":
    """Return the values on the command line for a group of options."""
    return cast("Given", context.meta[group])


def warn_of_idle_options(context: Context, kind: str, family: "TaskFamily") -> None:
    """Warn of options on the command line that have no effect for a kind of model."""
    from sdm.tasks.option_effects import affects

    for name, option in given_options(context).items():
        scope, _, field = name.partition("__")
        plain = field or scope
        works = kind in OF_KINDS.get(name, KINDS)
        if plain != name:
            works = affects(plain, kind, family)
        if kind in KINDS and not works:
            say(f"warning: `{option}` has no effect for {kind} tasks", "yellow")


def check_setting(setting: str, family: "TaskFamily") -> "Kind":
    """Return the kind of model that `--setting` names.

    Exits with an error if it is unknown.

    Raises:
        FamilyError: if the family does not support this kind of model.

    """
    from sdm.tasks.family import poses

    if setting in KINDS:
        return poses(family, setting)
    able = ", ".join(kind for kind in KINDS if kind in family.kinds)
    hint = f"family `{family.name}` supports {able}"
    if setting in _families():
        hint = f"`{setting}` is a family: pass `--family {setting}`"
    fail(f"setting: unknown kind of model, found `{setting}`", hint)


def check_own_family(family: "TaskFamily", kind: "Kind") -> None:
    """Check a user-defined family before it is used.

    Call this function after `start_jax`, since it samples tasks.
    """
    if not type(family).__module__.startswith("sdm.tasks.families."):
        from sdm.tasks.check_family import check_family

        check_family(family, kind)


def _families() -> tuple[str, ...]:
    from sdm.tasks.registry import families

    return tuple(families())
