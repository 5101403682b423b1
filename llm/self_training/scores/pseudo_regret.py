"""The score by the oracle's action values."""

import numpy as np
from jaxtyping import Float

from sdm.data.regret import losses
from sdm.data.solved_tasks import solve_sampled
from sdm.llm.self_training.selection import Scenarios, register_score


# The values of ambiguous tasks are not expected returns.
@register_score("pseudo-regret", kinds=("mdp", "pomdp"))
def pseudo_regret(scenarios: Scenarios) -> Float[np.ndarray, "S L"]:
    """Return the expected return that the actions of an episode lose."""
    config, tasks = scenarios.config, scenarios.tasks
    solution, oracle = solve_sampled(tasks.model, config)
    discount = float(np.asarray(tasks.world.discount))
    found = losses(solution, oracle, scenarios.played, discount)
    assert found is not None
    return found.lost.sum(-1)
