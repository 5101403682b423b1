"""Certainty equivalence for energy tasks: estimate p from demonstrations, then plan.

With n moves that could have changed the state and k that did, the posterior of p under
a uniform prior is Beta(1 + k, 1 + n - k), truncated to the family's range of p. The
plan is optimal for its mean. This is what the demonstrations' *transitions* are worth;
the demonstrated *actions* carry more (they are optimal for the true p).
"""

import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray
from scipy import special

from sdm.solvers_jax.backward_induction import backward_induction
from sdm.solvers_jax.families import EnergyFamily
from sdm.solvers_jax.policies import TabularPolicy, deterministic
from sdm.solvers_jax.rollout import Trajectory


def count_moves(
    family: EnergyFamily, support: Trajectory
) -> tuple[Int[np.ndarray, " B"], Int[np.ndarray, " B"]]:
    """Moves seen in each task's demonstrations: attempted (n) and successful (k).

    The last decision of an episode counts for neither: where it led is not shown.
    """
    state = np.asarray(support.observation)
    work = np.asarray(support.action)[..., :-1] == family.work
    before, after = state[..., :-1], state[..., 1:]
    could = np.where(work, before > 0, before < family.max_energy)
    did = could & (before != after)
    return could.sum((-2, -1)), did.sum((-2, -1))


def truncated_beta_mean(
    a: NDArray[np.float64], b: NDArray[np.float64], low: float, high: float
) -> NDArray[np.float64]:
    """Mean of Beta(a, b) conditioned on [low, high], which may be a single point.

    Where so little of the distribution lies there that nothing is left of it in double
    precision, all that counts is the end that is nearer to its mode.
    """
    if low == high:
        return np.full(np.shape(a), low)

    def mass(a: NDArray[np.float64]) -> NDArray[np.float64]:
        # In the upper tail the two distribution functions are near 1 and their
        # difference cancels; there the survival functions are subtracted instead.
        lower = special.betainc(a, b, high) - special.betainc(a, b, low)
        upper = special.betaincc(a, b, low) - special.betaincc(a, b, high)
        return np.where(special.betainc(a, b, low) > 0.5, upper, lower)

    there = mass(a)
    left = there > np.finfo(float).tiny / np.finfo(float).eps
    mean = a / (a + b) * mass(a + 1) / np.where(left, there, 1)
    nearer = np.where(a / (a + b) > (low + high) / 2, high, low)
    return np.where(left, np.clip(mean, low, high), nearer)


def estimate_p(family: EnergyFamily, support: Trajectory) -> Float[np.ndarray, " B"]:
    """Posterior mean of each task's p, given its demonstrations."""
    attempted, moved = count_moves(family, support)
    return truncated_beta_mean(
        1.0 + moved, 1.0 + attempted - moved, family.p_min, family.p_max
    )


def plan_for(
    family: EnergyFamily, p: Float[Array, " B"], *, horizon: int
) -> TabularPolicy:
    """The optimal policy of tasks whose success probability is `p`."""
    solution = backward_induction(family.mdp(p), horizon=horizon)
    return deterministic(solution.policy, family.actions)
