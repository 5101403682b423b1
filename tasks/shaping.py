r"""Additional rewards of MDPs: potential differences, and rewards of the next state.

A potential Φ(s) adds γ Φ(s') − Φ(s) to the reward of a transition. Over T decisions,
these rewards add up to γ^T Φ(s_T) − Φ(s_0). If the potential counts as zero after the
last decision, they shift the return of every policy by −Φ(s_0), and

    Q'_t(s,a) = Q_t(s,a) − Φ(s),

so that the optimal policies remain (Ng, Harada and Russell, 1999; for episodes that
end, Grześ, 2017).
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdm.tasks.models import MDP, check_horizon
from sdm.tasks.stages import check_stationary
from sdm.tasks.transitions import expected


def with_potential(mdp: MDP, potential: Float[Array, "*B S"], *, horizon: int) -> MDP:
    """Return MDPs with the differences of a potential added to their rewards.

    Args:
        mdp: tasks whose arrays do not depend on the stage.
        potential: Φ(s), in units of reward; after decision T it counts as zero.
        horizon: number of decisions T.

    Returns:
        Tasks with rewards [*B, T, S, A] and the same optimal policies.

    Raises:
        ValueError: if the horizon is invalid, or an array depends on the stage.

    """
    check_horizon(horizon)
    check_stationary(mdp, "a shaped reward")
    here = potential[..., None]
    ahead = mdp.discount * expected(mdp.transition, potential)
    early, last = mdp.reward + ahead - here, mdp.reward - here
    stages = jnp.repeat(early[..., None, :, :], horizon, axis=-3)
    return _with_reward(mdp, stages.at[..., -1, :, :].set(last))


def with_state_reward(mdp: MDP, bonus: Float[Array, "*B S"]) -> MDP:
    """Return MDPs with a reward for the next state added: r + Σ P(s'|s,a) b(s').

    Raises:
        ValueError: if an array depends on the stage.

    """
    check_stationary(mdp, "a shaped reward")
    return _with_reward(mdp, mdp.reward + expected(mdp.transition, bonus))


def only_state_reward(mdp: MDP, bonus: Float[Array, "*B S"]) -> MDP:
    """Return MDPs whose only reward is that of the next state, Σ P(s'|s,a) b(s').

    Raises:
        ValueError: if an array depends on the stage.

    """
    check_stationary(mdp, "a shaped reward")
    return _with_reward(mdp, expected(mdp.transition, bonus))


def _with_reward(mdp: MDP, reward: Float[Array, "..."]) -> MDP:
    made: MDP = eqx.tree_at(lambda m: m.reward, mdp, reward)
    return made
