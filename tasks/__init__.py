"""Decision models, task families, episodes and model files."""

from sdm.tasks.family import (
    Component,
    ConjugateFamily,
    Defaults,
    Family,
    Kind,
    Params,
    Spaces,
    TaskFamily,
    WeightedParams,
)
from sdm.tasks.registry import FamilyError, families, load_family, register

__all__ = [
    "Component",
    "ConjugateFamily",
    "Defaults",
    "Family",
    "FamilyError",
    "Kind",
    "Params",
    "Spaces",
    "TaskFamily",
    "WeightedParams",
    "families",
    "load_family",
    "register",
]
