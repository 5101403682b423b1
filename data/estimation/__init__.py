"""Estimation: models, and sets of models, from logged episodes."""

from sdm.data.estimation.config import EstimationConfig
from sdm.data.estimation.estimator import Estimate, Estimator
from sdm.data.estimation.run import estimate_models

__all__ = [
    "Estimate",
    "EstimationConfig",
    "Estimator",
    "estimate_models",
]
