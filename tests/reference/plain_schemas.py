"""Schemas for observations that are numbers, as most tests of texts want them."""

from sdm.llm.schema import Contents, schemas
from sdm.tasks.family import Component


def plain_schema(name, *, symbols=1000, actions=26, rewards=True):
    """The schema of this name; `rewards` are observed and tell nothing new."""
    names = tuple(f"do {action}" for action in range(actions))
    return schemas()[name](Contents((Component("seen", symbols),), names, rewards))


PAPER, COMPACT, WORDS = map(plain_schema, ("paper", "compact", "words"))
ALL = {"paper": PAPER, "compact": COMPACT, "words": WORDS}
