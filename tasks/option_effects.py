"""Options of families that affect some kinds of model only, by name."""

from sdm.tasks.family import KINDS, Kind, TaskFamily

OF_KINDS: dict[str, tuple[Kind, ...]] = {
    "q": ("pomdp", "apomdp"),
    "accuracy": ("pomdp", "apomdp"),
    "symbols": ("pomdp", "apomdp"),
    "shown": ("pomdp", "apomdp"),
    "models": ("apomdp",),
    "alpha": ("apomdp",),
    "radius": ("apomdp",),
    "concentration": ("apomdp",),
}


def affects(option: str, kind: str, family: TaskFamily) -> bool:
    """Return whether an option of a family affects its models of a kind.

    A family that supports none of the kinds of an option in the table gives the option
    another meaning.
    """
    works = OF_KINDS.get(option, KINDS)
    return kind in works or not family.kinds & set(works)
