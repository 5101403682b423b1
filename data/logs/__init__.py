"""Logs: trajectories that somebody's policy generated, without a simulator."""

from sdm.data.logs.episodes import NOTHING, Logs
from sdm.data.logs.problems import LogsError
from sdm.data.logs.registry import read_logs

__all__ = ["NOTHING", "Logs", "LogsError", "read_logs"]
