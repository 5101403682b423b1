"""Decision models, task families, episodes and model files."""

from sdm.tasks.check_family import check_family
from sdm.tasks.conjugate_family import ConjugateFamily
from sdm.tasks.family import (
    Component,
    Defaults,
    Family,
    Kind,
    Params,
    Spaces,
    TaskFamily,
    WeightedParams,
)
from sdm.tasks.models import APOMDP, MDP, POMDP
from sdm.tasks.momdp import MOMDP
from sdm.tasks.momdp_filter import HiddenFilter
from sdm.tasks.momdp_world import momdp_sizes as momdp_sizes  # registers episodes
from sdm.tasks.ranges import UniformFamily
from sdm.tasks.registry import FamilyError, families, load_family, register

__all__ = [
    "APOMDP",
    "MDP",
    "MOMDP",
    "POMDP",
    "Component",
    "ConjugateFamily",
    "Defaults",
    "Family",
    "FamilyError",
    "HiddenFilter",
    "Kind",
    "Params",
    "Spaces",
    "TaskFamily",
    "UniformFamily",
    "WeightedParams",
    "check_family",
    "families",
    "load_family",
    "register",
]
