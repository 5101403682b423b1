r"""Bayesian imitation: learn p from what the oracle's demonstrations did, too.

A demonstration says two things about p: which moves succeeded, and which actions an
oracle that knows p took. Each value of p is weighed by both,

    w(p) ∝ L_moves(p) Π_t ε^[a_t charges where the optimal policy of p works, or works
                             where it charges],

and the action is the best on average over what is left, argmax_a Σ_p w(p) Q_p(t, s, a).
It is what an ideal reader with this prior makes of the demonstrations, the yardstick
for a model that has to learn to read them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.baselines.posterior import posterior
from sdm.solvers_jax.backward_induction import backward_induction
from sdm.solvers_jax.families import EnergyFamily
from sdm.solvers_jax.policies import TabularPolicy, deterministic
from sdm.solvers_jax.rollout import Trajectory

# The true p lies between points of the grid, and perhaps outside of the prior: there a
# choice may contradict all points, and those that fewest choices contradict are left.
SLIP = 1e-3


def bayes_imitation(
    family: EnergyFamily, support: Trajectory, *, horizon: int, by_oracle: bool = True
) -> TabularPolicy:
    """Imitate the oracle that demonstrated.

    Args:
        family: whose range of p is the prior.
        support: demonstrations of each task; perhaps none, which leaves the prior.
        horizon: decisions per episode.
        by_oracle: whether the task's oracle demonstrated. Of others' episodes the
            moves are read, and the choices are not.

    Raises:
        ValueError: if the demonstrations are of another horizon, since the oracle
            chooses by the stages that are left.

    """
    read = by_oracle and support.action.shape[1] > 0
    if read and support.action.shape[-1] != horizon:
        raise ValueError(
            f"the demonstrations have {support.action.shape[-1]} stages and the "
            f"episodes {horizon}: what an oracle does depends on the stages left"
        )
    found = posterior(family, support)
    optimal = backward_induction(family.mdp(found.p), horizon=horizon)
    log = jnp.log(found.weight)
    if read:
        log += _log_choices(optimal.policy == family.work, support, family)
    q = jnp.einsum("bg,gtsa->btsa", jax.nn.softmax(log, axis=-1), optimal.q)
    return deterministic(q.argmax(-1), family.actions)


def _log_choices(
    works: Array, support: Trajectory, family: EnergyFamily
) -> Float[Array, "B G"]:
    """Log-probability of the demonstrated choices under each of G values of p."""
    worked = jnp.asarray(support.action) == family.work
    stage, state = jnp.arange(worked.shape[-1]), jnp.asarray(support.observation)
    slips = (works[:, stage, state] != worked[None]).sum((-2, -1))
    return slips.T.astype(jnp.result_type(float)) * np.log(SLIP)
