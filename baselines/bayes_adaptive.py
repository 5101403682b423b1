r"""The best plan for someone who has the demonstrations and keeps learning p, exactly.

In an energy task all that is learned of p are two counts, so the Bayes-adaptive MDP
(Duff, 2002) is small: its states are (s, i, j), with i moves that succeeded and j that
failed in this episode so far. With the mean of the truncated Beta posterior

    m = E[p | demonstrations, i, j],

a move that can change the state leads to (s', i + 1, j) with probability m and else to
(s, i, j + 1); one that cannot leads back to (s, i, j). Backward induction over these is
optimal on average over tasks from the prior, exploration included, among policies that
read moves only. Demonstrated actions say more where they are optimal for the true p.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.baselines.certainty_equivalence import count_moves, truncated_beta_mean
from sdm.solvers_jax.families import EnergyFamily
from sdm.solvers_jax.models import Model
from sdm.solvers_jax.rollout import Trajectory


class Counted(NamedTuple):
    """What is remembered in an episode: counts, the last state and the last action."""

    succeeded: Int[Array, "B N"]
    failed: Int[Array, "B N"]
    state: Int[Array, "B N"]
    action: Int[Array, "B N"]


class BayesAdaptivePolicy(eqx.Module):
    """Takes the plan's action for the counts so far.

    Attributes:
        plan: an action for each stage, state and counts (i, j) of this episode.
        work: the action that lowers the state.
        highest: the highest state.

    """

    plan: Int[Array, "B T S I I"]
    work: int = eqx.field(static=True)
    highest: int = eqx.field(static=True)

    def init(self, model: Model) -> None:
        """The first decision starts to count: it knows the number of episodes."""

    def act(
        self,
        memory: Counted | None,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], Counted]:
        """Count what the last move did, and look the action up."""
        if memory is None:
            succeeded = failed = jnp.zeros_like(observation)
        else:
            able = jnp.where(
                memory.action == self.work,
                memory.state > 0,
                memory.state < self.highest,
            )
            moved = observation != memory.state
            succeeded = memory.succeeded + (able & moved).astype(jnp.int32)
            failed = memory.failed + (able & ~moved).astype(jnp.int32)
        task = jnp.arange(len(observation))[:, None]
        action = self.plan[task, t, observation, succeeded, failed]
        action = action.astype(jnp.int32)
        return action, Counted(succeeded, failed, observation, action)


def bayes_adaptive(
    family: EnergyFamily, support: Trajectory, *, horizon: int
) -> BayesAdaptivePolicy:
    """Plan for every count that an episode can come to.

    Args:
        family: whose range of p is the prior.
        support: demonstrations of fully observed tasks; perhaps none.
        horizon: decisions of an episode.

    """
    attempted, succeeded = count_moves(family, support)
    i, j = np.indices((horizon, horizon))
    wins = 1.0 + succeeded[:, None, None] + i
    losses = 1.0 + (attempted - succeeded)[:, None, None] + j
    mean = truncated_beta_mean(wins, losses, family.p_min, family.p_max)
    believed = jnp.asarray(mean, jnp.result_type(float))
    plan, _ = _recursion(family, believed, horizon=horizon, plan=None)
    return BayesAdaptivePolicy(plan, family.work, family.max_energy)


def expected_return(
    policy: BayesAdaptivePolicy, family: EnergyFamily, p: Float[Array, " B"]
) -> Float[Array, " B"]:
    """Exact value in tasks whose success probability is `p`."""
    horizon = policy.plan.shape[1]
    true = jnp.broadcast_to(p[:, None, None], (len(p), horizon, horizon))
    _, value = _recursion(family, true, horizon=horizon, plan=policy.plan)
    return value


def _recursion(
    family: EnergyFamily,
    chance: Float[Array, "B I I"],
    *,
    horizon: int,
    plan: Int[Array, "B T S I I"] | None,
) -> tuple[Int[Array, "B T S I I"], Float[Array, " B"]]:
    """The best plan where moves succeed with `chance`, or the value of a given one."""
    level = jnp.arange(family.states)
    up = jnp.minimum(level + 1, family.max_energy)
    down = jnp.maximum(level - 1, 0)
    pay = (level / family.max_energy).astype(chance.dtype)
    success = chance[:, None]

    def move(after: Array, to: Array) -> Array:
        """What follows a move to `to`; edges hold counts that no episode comes to."""
        won = jnp.pad(after, ((0, 0), (0, 0), (0, 1), (0, 0)))[:, to, 1:]
        lost = jnp.pad(after, ((0, 0), (0, 0), (0, 0), (0, 1)))[..., 1:]
        able = (to != level)[None, :, None, None]
        return jnp.where(able, success * won + (1 - success) * lost, after)

    @jax.jit
    def stage(after: Array, given: Array | None) -> tuple[Array, Array]:
        charge = -family.charge_cost + family.discount * move(after, up)
        work = pay[None, :, None, None] + family.discount * move(after, down)
        best = jnp.where(work > charge, family.work, family.charge[0])
        action = best.astype(jnp.int8) if given is None else given
        return jnp.where(action == family.work, work, charge), action

    shape = (len(chance), family.states, horizon, horizon)
    value, actions = jnp.zeros(shape, chance.dtype), []
    for t in reversed(range(horizon)):
        value, action = stage(value, None if plan is None else plan[:, t])
        actions.append(action)
    return jnp.stack(actions[::-1], axis=1), value[..., 0, 0].mean(-1)
