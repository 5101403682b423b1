"""Options that several commands share, and what they are choices of."""

import enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdm.commands.console import fail, say

if TYPE_CHECKING:
    from typer import Context as Context

    from sdm.tasks.families import Family

else:
    Context = typer.Context.__base__  # typer hands out no more than its base class

SETTINGS = ("mdp", "pomdp", "apomdp", "darkroom")
ENERGY = SETTINGS[:3]


class Schema(enum.StrEnum):
    """Ways to write an episode."""

    paper = "paper"
    compact = "compact"


class Quantize(enum.StrEnum):
    """Ways to shrink a base model."""

    nf4 = "nf4"
    none = "none"


class Backend(enum.StrEnum):
    """What computes a language model's probabilities."""

    torch = "torch"
    vllm = "vllm"


class Method(enum.StrEnum):
    """Ways to solve a POMDP."""

    points = "points"
    exact = "exact"


class Demonstrations(enum.StrEnum):
    """Whose episodes a policy is shown."""

    optimal = "optimal"
    random = "random"


class GoalReward(enum.StrEnum):
    """When a Darkroom task pays."""

    stay = "stay"
    arrival = "arrival"


class Shown(enum.StrEnum):
    """Whose episodes training texts show."""

    optimal = "optimal"
    all = "all"


class Loss(enum.StrEnum):
    """Tokens that the training loss counts."""

    all = "all"
    actions = "actions"


Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, help="Decides every random number.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Overwrite = Annotated[bool, typer.Option(help="Replace an existing output.")]
Resume = Annotated[bool, typer.Option(help="Go on with an unfinished run.")]
Setting = Annotated[str, typer.Option(help=f"Task type: {', '.join(SETTINGS)}.")]
Discount = Annotated[
    float | None,
    typer.Option(help="Factor per stage, in [0, 1]: 0.95 (darkroom: 1)."),
]
PMin = Annotated[float, typer.Option(help="Smallest success probability of a move.")]
PMax = Annotated[float, typer.Option(help="Largest success probability of a move.")]
SeeingChance = Annotated[
    float, typer.Option("--q", help="Chance to see the true state (pomdp, apomdp).")
]
Models = Annotated[
    int, typer.Option("--K", help="Models in an ambiguity set (apomdp).")
]
Alpha = Annotated[
    float, typer.Option(help="Weight of the worst model, in [0, 1] (apomdp).")
]
Believe = Annotated[
    str,
    typer.Option(
        help="What the oracle filters its belief with: a model, 0 (the one that runs) "
        "to K - 1, or `mixture` (apomdp)."
    ),
]
Size = Annotated[int, typer.Option(help="Rows and columns of the grid (darkroom).")]
Pays = Annotated[
    GoalReward,
    typer.Option(
        help="What the goal pays: staying there, or every arrival (darkroom)."
    ),
]
Split = Annotated[
    int, typer.Option(help="Seed that says which goals are held out (darkroom).")
]
# Options that mean something in some settings only.
OF_SETTINGS = {
    "p_min": ENERGY,
    "p_max": ENERGY,
    "prior_p_min": ENERGY,
    "prior_p_max": ENERGY,
    "size": ("darkroom",),
    "pays": ("darkroom",),
    "split": ("darkroom",),
    "q": ("pomdp", "apomdp"),
    "models": ("apomdp",),
    "alpha": ("apomdp",),
    "believe": ("apomdp",),
    "gap": ("pomdp",),
    "points": ("pomdp", "apomdp"),
}


def given_options(context: Context) -> dict[str, str]:
    """What the command line names: each parameter, and its option."""
    return {
        option.name: option.opts[0]
        for option in context.command.params
        if option.name is not None
        and (source := context.get_parameter_source(option.name)) is not None
        and source.name == "COMMANDLINE"
    }


def warn_of_idle_options(context: Context, setting: str) -> None:
    """Say which of the options given do nothing in this setting."""
    given = given_options(context)
    for name, settings in OF_SETTINGS.items():
        if name in given and setting in SETTINGS and setting not in settings:
            say(f"warning: `{given[name]}` does nothing for {setting} tasks", "yellow")


def task_family(setting: str, *, discount: float | None, **options: Any) -> "Family":
    """The task family that the options describe."""
    if setting not in SETTINGS:
        fail(f"unknown setting `{setting}`", f"settings are: {', '.join(SETTINGS)}")
    from sdm.tasks.families import family_of

    given = {} if discount is None else {"discount": discount}
    return family_of(setting, options | given)


def of_setting(setting: str, given: int | None, energy: int, darkroom: int) -> int:
    """What is given, or else the setting's default."""
    if given is not None:
        return given
    return darkroom if setting == "darkroom" else energy
