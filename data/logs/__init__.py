"""Logs: trajectories that somebody's policy generated, without a simulator."""

from sdm.data.logs.episodes import NOTHING, Logs

__all__ = ["NOTHING", "Logs"]
