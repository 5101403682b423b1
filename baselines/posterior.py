r"""What demonstrations say about p, in every setting, on a grid.

Where states are seen, p is weighed by p^k (1 - p)^(n - k): k of n moves that could have
changed the state did. Where they are hidden, by the probability of the symbols seen,

    L(p) = Π_t Pr_p(o_t | o_1, a_1, ..., a_{t-1}),

which the forward filter of the task with that p gives. The prior is uniform over the
family's range.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.baselines.certainty_equivalence import count_moves
from sdm.solvers_jax.families import EnergyFamily
from sdm.solvers_jax.models import POMDP
from sdm.solvers_jax.policies import draw
from sdm.solvers_jax.rollout import Trajectory

SURE = 1e-9  # as near to 0 and 1 as p comes
POINTS = 141  # on the default range, one every half of a hundredth


class Posterior(eqx.Module):
    """Probabilities of the values that p may have.

    Attributes:
        p: the values, in the middle of cells of one width.
        weight: probability of each in each task.

    """

    p: Float[Array, " G"]
    weight: Float[Array, "B G"]

    @property
    def mean(self) -> Float[Array, " B"]:
        """Posterior mean of each task's p."""
        return self.weight @ self.p

    def draw(self, uniform: Float[Array, "B N"]) -> Array:
        """Places in `p`, N for each task, drawn by inverse transform."""
        return draw(self.weight[:, None, :], uniform.astype(self.weight.dtype))


def grid(family: EnergyFamily) -> Float[Array, " G"]:
    """Values of p that stand for the family's range."""
    cells = (np.arange(POINTS) + 0.5) / POINTS
    values = family.p_min + (family.p_max - family.p_min) * cells
    # Of a p of 0 or 1 a single surprise would leave nothing to weigh.
    return jnp.asarray(np.clip(values, SURE, 1 - SURE), jnp.result_type(float))


def posterior(
    family: EnergyFamily, support: Trajectory, *, hidden: bool = False
) -> Posterior:
    """What the demonstrations of each task say.

    Args:
        family: whose range of p is the prior.
        support: demonstrations; perhaps none, which leaves the prior.
        hidden: whether observations are symbols, not states.

    """
    p = grid(family)
    tasks, episodes, _ = support.observation.shape
    if not episodes:
        log = jnp.zeros((tasks, len(p)), p.dtype)
    elif hidden:
        log = _log_likelihood(family.pomdp(p), support)
    else:
        n, k = (jnp.asarray(x, p.dtype)[:, None] for x in count_moves(family, support))
        log = _times_log(k, p[None]) + _times_log(n - k, 1 - p[None])
    return Posterior(p, jax.nn.softmax(log, axis=-1))


def _times_log(count: Array, chance: Array) -> Array:
    """Count * log(chance), with nothing made of 0 times infinity."""
    return jnp.where(count == 0, 0, count * jnp.log(chance))


@jax.jit
def _log_likelihood(models: POMDP, support: Trajectory) -> Float[Array, "B G"]:
    """Log-probability of each task's symbols under each of G models."""
    first = models.initial_observation
    assert first is not None  # energy tasks show a symbol before the first action

    def weigh(joint: Array, likelihood: Array) -> tuple[Array, Array]:
        joint = joint * likelihood
        mass = joint.sum(-1, keepdims=True)
        return joint / jnp.where(mass > 0, mass, 1), jnp.log(mass[..., 0])

    def step(joint: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        action, symbol = now
        moved = jnp.einsum("gs,gsm->gm", joint, models.transition[:, :, action])
        return weigh(moved, models.observation[:, action, :, symbol])

    def of_episode(seen: Array, done: Array) -> Array:
        belief, log = weigh(models.initial, first[:, :, seen[0]])
        _, logs = jax.lax.scan(step, belief, (done[:-1], seen[1:]))
        return log + logs.sum(0)

    def of_task(episodes: tuple[Array, Array]) -> Array:
        return jax.vmap(of_episode)(*episodes).sum(0)

    # Task by task: the filters of all at once would not fit.
    return jax.lax.map(of_task, (support.observation, support.action))
