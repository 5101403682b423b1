"""Task families: frozen configurations from which tasks are drawn by key."""

from collections.abc import Mapping
from typing import Any

from sdm.solvers_jax.families.darkroom import DarkroomFamily
from sdm.solvers_jax.families.energy import EnergyFamily

Family = EnergyFamily | DarkroomFamily

__all__ = ["DarkroomFamily", "EnergyFamily", "Family", "family_of"]


def family_of(setting: str, options: Mapping[str, Any]) -> Family:
    """The family of a setting, made of those of the options that it has."""
    kind = DarkroomFamily if setting == "darkroom" else EnergyFamily
    known = kind.__dataclass_fields__
    return kind(**{name: value for name, value in options.items() if name in known})
