r"""Exact value of a Markov policy in a finite-horizon MDP, by backward recursion.

    V_T(s) = 0,   V_t(s) = Σ_a π_t(a|s) [ r(s,a) + γ Σ_s' P(s'|s,a) V_{t+1}(s') ]

Exact up to rounding, in O(T S² A) operations per task. Reference: Puterman (2005),
*Markov Decision Processes*, §4.2.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdm.tasks.admissible import masked_rewards
from sdm.tasks.models import MDP
from sdm.tasks.stages import at_stage, check_stages, stage_numbers
from sdm.tasks.transitions import expected, reaches


def evaluate_policy(
    mdp: MDP, probabilities: Float[Array, "*B T S A"]
) -> Float[Array, "*B"]:
    """Return the expected discounted return of a policy.

    Args:
        mdp: a task or a batch of tasks.
        probabilities: action probabilities π_t(a | s) for each task.

    Returns:
        The value from the initial distribution of each task, in units of reward; -inf
        if the policy can take an action that is not admissible.

    Raises:
        ValueError: if the model has arrays for another number of stages.

    Example:
        >>> import jax.numpy as jnp
        >>> from sdm.solvers_jax import EnergyFamily, evaluate_policy
        >>> task = EnergyFamily().mdp(jnp.array([0.5]))
        >>> at_random = jnp.full((1, 10, 10, 3), 1 / 3)  # [B, T, S, A]
        >>> evaluate_policy(task, at_random).round(2).tolist()
        [1.23]

    """

    def backup(next_value: Array, stage: tuple[Array, Array]) -> tuple[Array, None]:
        choice, t = stage
        now = at_stage(mdp, t)
        q = masked_rewards(now) + mdp.discount * _expected(now, next_value)
        return jnp.where(choice > 0, choice * q, jnp.zeros_like(q)).sum(-1), None

    horizon = probabilities.shape[-3]
    check_stages(mdp, horizon)
    stages = (jnp.moveaxis(probabilities, -3, 0), stage_numbers(horizon))
    terminal = jnp.zeros_like(mdp.initial)
    value, _ = jax.lax.scan(backup, terminal, stages, reverse=True)
    weighed = jnp.where(mdp.initial > 0, mdp.initial * value, jnp.zeros_like(value))
    return weighed.sum(-1)


def _expected(mdp: MDP, value: Float[Array, "*B S"]) -> Float[Array, "*B S A"]:
    """Return expected values of the next state; impossible states do not count."""
    if mdp.admissible is None:
        return expected(mdp.transition, value)
    lost = jnp.isneginf(value)
    finite = jnp.where(lost, jnp.zeros_like(value), value)
    future = expected(mdp.transition, finite)
    reached = reaches(mdp.transition, lost)
    return jnp.where(reached, jnp.full_like(future, -jnp.inf), future)
