r"""Solve robust MDPs exactly: full observation, K models, α-maxmin expected utility.

    Q_t(s,a) = r(s,a) + γ [ α min_k + (1 - α) max_k ] Σ_s' P_k(s'|s,a) V_{t+1}(s')
    V_t(s)   = max_a Q_t(s,a)

The worst and the best model can differ between stages, states and actions
(rectangularity; Iyengar, 2005, *Robust dynamic programming*). An APOMDP with perfect
observation is a robust MDP.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from sdm.solvers_jax.backward_induction import MDPSolution
from sdm.solvers_jax.methods import register_method
from sdm.tasks.admissible import masked_rewards
from sdm.tasks.models import RobustMDP
from sdm.tasks.stages import at_stage, stage_numbers
from sdm.tasks.transitions import expected


@partial(jax.jit, static_argnames="horizon")
def robust_backward_induction(model: RobustMDP, *, horizon: int) -> MDPSolution:
    """Solve every robust MDP of the batch exactly, up to rounding.

    Args:
        model: a task or a batch of tasks; validated by `solve`.
        horizon: number of decisions T.

    Returns:
        The solution; `value` is the α-MEU of the initial distribution.

    """

    def stage(after: Array, t: Array) -> tuple[Array, tuple[Array, ...]]:
        now = at_stage(model, t)
        future = expected(now.transition, after[..., None, :])  # [*B, K, S, A]
        worst, best = future.min(-3), future.max(-3)
        reward = masked_rewards(now)
        q = reward + model.discount * (best + model.alpha * (worst - best))
        value = q.max(-1)
        return value, (q, q.argmax(-1).astype(jnp.int32), value)

    terminal, numbers = jnp.zeros_like(model.initial), stage_numbers(horizon)
    _, stages = jax.lax.scan(stage, terminal, numbers, reverse=True)
    batch = terminal.ndim - 1
    q, policy, value = (jnp.moveaxis(x, 0, batch) for x in stages)
    value = jnp.concatenate([value, jnp.expand_dims(terminal, batch)], axis=batch)
    first = jnp.take(value, 0, axis=batch)
    return MDPSolution(q, policy, value, (model.initial * first).sum(-1))


@register_method(default=True)
@dataclass(frozen=True)
class RobustBackwardInduction:
    """Exact backward induction with the worst and the best model at every decision."""

    name: ClassVar[str] = "backward-induction"
    handles: ClassVar[tuple[type, ...]] = (RobustMDP,)
    by_stage: ClassVar[bool] = True

    def solve(self, model: RobustMDP, *, horizon: int) -> MDPSolution:
        """Solve every robust MDP of the batch; JAX can trace it."""
        return robust_backward_induction(model, horizon=horizon)
