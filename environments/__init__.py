"""Decision tasks as Gymnasium environments, and Gymnasium environments as models.

Importing this package registers `sdm/Task-v0`, `sdm/Energy-v0` and `sdm/Model-v0`;
`gymnasium.make("sdm.environments:sdm/Energy-v0")` also imports it.
"""

import gymnasium

from sdm.environments.decision_env import DecisionEnv, EnergyEnv, TaskEnv
from sdm.tasks.gymnasium_tables import from_gymnasium

__all__ = ["DecisionEnv", "EnergyEnv", "TaskEnv", "from_gymnasium"]

# An episode ends with the last decision, so the environments need no time limit.
gymnasium.register("sdm/Energy-v0", entry_point="sdm.environments:EnergyEnv")
gymnasium.register("sdm/Task-v0", entry_point="sdm.environments:TaskEnv")
gymnasium.register("sdm/Model-v0", entry_point="sdm.environments:DecisionEnv")
