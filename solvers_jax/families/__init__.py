"""Task families: frozen configurations from which tasks are drawn by key."""

from sdm.solvers_jax.families.energy import EnergyFamily

__all__ = ["EnergyFamily"]
