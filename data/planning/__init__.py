"""Planning on logs: policies from logged episodes, with claims on their value."""

from sdm.data.planning.bounds import Bounds, cross_fitted_bounds
from sdm.data.planning.evidence import Evidence, evidence_of
from sdm.data.planning.planner import LogPlan, Planner

__all__ = [
    "Bounds",
    "Evidence",
    "LogPlan",
    "Planner",
    "cross_fitted_bounds",
    "evidence_of",
]
