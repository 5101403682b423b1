r"""Bayesian imitation: learn from the demonstrated actions and the transitions.

A demonstration informs about a task in two ways: by the outcomes of actions, and by the
actions of an oracle that knows the task. Both weigh each candidate g,

    w_g ∝ w_g L_moves(g) Π_t ε^[a_t is not optimal for g at t in s_t],

and the policy takes the best action on average over the posterior,
argmax_a Σ_g w_g Q_g(t, s, a). This is the Bayesian use of the demonstrations under this
prior, a baseline for models that learn to use demonstrations.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.data.benchmark import Shown
from sdm.policies.posterior import posterior
from sdm.policies.prepared import Prepared, table
from sdm.policies.registry import register_policy
from sdm.solvers_jax.backward_induction import backward_induction
from sdm.tasks.family import Kind, TaskFamily
from sdm.tasks.models import states_observed
from sdm.tasks.policy import TabularPolicy, deterministic
from sdm.tasks.rollout import Trajectory

# ε: the true task need not be a candidate, so an action may contradict all candidates;
# those that the fewest actions contradict then keep the weight.
SLIP = 1e-3
TIE = 1e-9  # relative tolerance within which actions are optimal


def _fits(family: TaskFamily, kind: Kind) -> str | None:
    if kind == "mdp":
        return None
    return (
        "it needs observed states; else, the demonstrated actions depend on the "
        "beliefs of an oracle of each candidate"
    )


@register_policy("bayes-imitation", _fits)
def bayes_imitation(bed: Shown) -> Prepared:
    """Imitate the oracle's demonstrations.

    From episodes of random actions, only the transitions are used.

    Raises:
        ValueError: if the horizons of demonstrations and episodes differ, since the
            oracle's actions depend on the remaining stages.

    """
    read = bed.config.demonstrations == "optimal"
    return table(bed, imitation(bed, read=read))


def imitation(bed: Shown, *, read: bool) -> TabularPolicy:
    """Return the policy; `read` uses the demonstrated actions, as the oracle's.

    Raises:
        ValueError: if `read` is set and the horizons differ.

    """
    support, horizon = bed.support, bed.config.horizon
    read = read and support.action.shape[1] > 0
    if read and support.action.shape[-1] != horizon:
        raise ValueError(
            f"demonstrations: must have the {horizon} stages of the episodes, since "
            "the oracle's actions depend on the remaining stages, found "
            f"{support.action.shape[-1]}"
        )
    found = posterior(bed)
    q = backward_induction(states_observed(found.models), horizon=horizon).q
    log = jnp.log(found.weight)
    if read:
        log += log_choices(q, support)
    mean = jnp.einsum("bg,gtsa->btsa", jax.nn.softmax(log, axis=-1), q)
    return deterministic(mean.argmax(-1), q.shape[-1])


@jax.jit
def log_choices(q: Float[Array, "G T S A"], support: Trajectory) -> Float[Array, "B G"]:
    """Return the log-likelihood of the demonstrated actions under each candidate.

    Args:
        q: optimal values of actions under each candidate.
        support: the demonstrations, [B, N, T].

    """
    best = q.max(-1, keepdims=True)
    optimal = q >= best - TIE * jnp.maximum(1, jnp.abs(best))
    stage = jnp.arange(support.action.shape[-1])

    def of_task(played: Trajectory) -> Array:
        took = optimal[:, stage, played.observation, played.action]
        return (~took).sum((-2, -1)).astype(q.dtype)

    return jax.lax.map(of_task, support) * np.log(SLIP)
