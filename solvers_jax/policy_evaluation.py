r"""Exact value of a Markov policy in a finite-horizon MDP, by backward recursion.

    V_T(s) = 0,   V_t(s) = Σ_a π_t(a|s) [ r(s,a) + γ Σ_s' P(s'|s,a) V_{t+1}(s') ]

Exact up to rounding, in O(T S² A) operations per task. Reference: Puterman (2005),
*Markov Decision Processes*, §4.2.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdm.tasks.models import MDP
from sdm.tasks.transitions import expected


def evaluate_policy(
    mdp: MDP, probabilities: Float[Array, "*B T S A"]
) -> Float[Array, "*B"]:
    """Return the expected discounted return of a policy.

    Args:
        mdp: a task or a batch of tasks.
        probabilities: action probabilities π_t(a | s) for each task.

    Returns:
        The value from the initial distribution of each task, in units of reward.

    """

    def backup(next_value: Array, choice: Array) -> tuple[Array, None]:
        future = expected(mdp.transition, next_value)
        return (choice * (mdp.reward + mdp.discount * future)).sum(-1), None

    stages = jnp.moveaxis(probabilities, -3, 0)
    terminal = jnp.zeros_like(mdp.initial)
    value, _ = jax.lax.scan(backup, terminal, stages, reverse=True)
    return (mdp.initial * value).sum(-1)
