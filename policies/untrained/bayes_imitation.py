r"""Bayesian imitation: learn from the demonstrated actions as well as the moves.

A demonstration says two things about a task: where actions led, and which actions an
oracle that knows the task took. Each candidate g is weighed by both,

    w_g ∝ w_g L_moves(g) Π_t ε^[a_t is not optimal for g at t in s_t],

and the action is the best on average over the posterior, argmax_a Σ_g w_g Q_g(t, s, a).
It is what an ideal reader with this prior makes of the demonstrations: the yardstick
for a model that has to learn to read them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.data.benchmark import Benchmark
from sdm.policies.posterior import posterior
from sdm.policies.prepared import Prepared, table
from sdm.policies.registry import only, register_policy
from sdm.solvers_jax.backward_induction import backward_induction
from sdm.tasks.models import states_observed
from sdm.tasks.policy import TabularPolicy, deterministic
from sdm.tasks.rollout import Trajectory

# The true task lies between the candidates, and perhaps outside of the prior: there a
# choice may contradict all of them, and those that fewest choices contradict are left.
SLIP = 1e-3
TIE = 1e-9  # of the largest value: actions this close are both optimal


@register_policy("bayes-imitation", only("mdp"))
def bayes_imitation(bed: Benchmark) -> Prepared:
    """Imitate the oracle that demonstrated.

    Of episodes of others only the moves are read.

    Raises:
        ValueError: if the demonstrations have another horizon than the episodes: the
            oracle's choices depend on the stages that are left.

    """
    read = bed.config.demonstrations == "optimal"
    return table(bed, imitation(bed, read=read))


def imitation(bed: Benchmark, *, read: bool) -> TabularPolicy:
    """Return the policy; with `read`, the demonstrated choices count as an oracle's."""
    support, horizon = bed.support, bed.config.horizon
    read = read and support.action.shape[1] > 0
    if read and support.action.shape[-1] != horizon:
        raise ValueError(
            f"the demonstrations have {support.action.shape[-1]} stages and the "
            f"episodes {horizon}: the oracle's choices depend on the stages left"
        )
    found = posterior(bed)
    q = backward_induction(states_observed(found.models), horizon=horizon).q
    log = jnp.log(found.weight)
    if read:
        log += log_choices(q, support)
    mean = jnp.einsum("bg,gtsa->btsa", jax.nn.softmax(log, axis=-1), q)
    return deterministic(mean.argmax(-1), q.shape[-1])


def log_choices(q: Float[Array, "G T S A"], support: Trajectory) -> Float[Array, "B G"]:
    """Return the log-probability of the demonstrated choices under each candidate."""
    best = q.max(-1, keepdims=True)
    optimal = q >= best - TIE * jnp.maximum(1, jnp.abs(best))
    stage = jnp.arange(support.action.shape[-1])

    def of_task(played: Trajectory) -> Array:
        took = optimal[:, stage, played.observation, played.action]
        return (~took).sum((-2, -1)).astype(q.dtype)

    return jax.lax.map(of_task, support) * np.log(SLIP)
