"""K candidate MDPs, one of which runs, as a model with mixed observability."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.tasks.admissible import check_no_mask
from sdm.tasks.array_checks import check_rows
from sdm.tasks.models import MDP
from sdm.tasks.momdp import MOMDP
from sdm.tasks.stages import check_stationary
from sdm.tasks.transitions import SparseTransition


def hidden_model(
    models: MDP,
    prior: Float[Array, "*B K"] | Float[np.ndarray, "*B K"],
    *,
    observes_reward: bool = False,
) -> MOMDP:
    """Return the Bayes-adaptive problem over K candidate MDPs, one of which runs.

    The visible part is the state, the hidden part is the candidate. The solution is the
    best policy of an agent that knows the candidates and their prior, and learns from
    transitions and, if it observes them, rewards (Duff, 2002, *Optimal learning*).

    Args:
        models: the candidates, on one leading axis.
        prior: probability of each candidate, before the first state is observed; with
            leading axes for a batch of tasks, which share the candidates.
        observes_reward: whether the agent observes its rewards.

    Raises:
        ValueError: if the models have more or fewer than one leading axis, a mask or
            arrays that depend on the stage, or observed random rewards, or the prior is
            not a distribution over them.

    Example:
        >>> import jax.numpy as jnp
        >>> from sdm.solvers_jax import EnergyFamily, hidden_model
        >>> candidates = EnergyFamily().mdp(jnp.array([0.3, 0.8]))
        >>> model = hidden_model(candidates, prior=jnp.array([0.5, 0.5]))
        >>> model.sizes  # visible states, candidates, actions, symbols
        (10, 2, 3, 1)

    """
    check_no_mask(models, "`hidden_model`")
    check_stationary(models, "`hidden_model`")
    if observes_reward and models.law is not None:
        raise ValueError(
            "law: `hidden_model` cannot learn from random rewards, found a law of "
            "rewards; set observes_reward = False"
        )
    if np.ndim(models.reward) != 3:
        raise ValueError(
            f"reward has shape {np.shape(models.reward)}: must be [K, S, A], for K "
            "candidates on one leading axis"
        )
    weight = jnp.asarray(prior, models.reward.dtype)
    if weight.shape[-1:] != (len(models.reward),):
        raise ValueError(
            f"prior has shape {weight.shape}: must be [*B, K] with K = "
            f"{len(models.reward)}, a probability for each candidate"
        )
    check_rows("prior", weight)
    successors, chance = None, models.transition
    if isinstance(chance, SparseTransition):
        successors, chance = chance.successors, chance.probabilities
        if successors.ndim > 3:
            successors, chance = _common_lists(np.asarray(successors), chance)
    return MOMDP(
        transition=jnp.moveaxis(chance, 0, 1),
        reward=jnp.moveaxis(models.reward, 0, 1),
        initial=jnp.einsum("...k,kx->...xk", weight, models.initial),
        discount=models.discount,
        successors=successors,
        observes_reward=observes_reward,
    )


def _common_lists(index: np.ndarray, chance: Array) -> tuple[Array, Array]:
    """Return one list of successors for all candidates, their own lists one by one."""
    models, *shape, count = index.shape
    joined = np.moveaxis(index, 0, -2).reshape(*shape, models * count)
    wide = np.zeros((models, *shape, models, count), np.asarray(chance).dtype)
    every = np.arange(models)
    wide[every, :, :, every] = np.asarray(chance)
    return jnp.asarray(joined), jnp.asarray(wide.reshape(models, *joined.shape))
