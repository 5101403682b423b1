"""Posterior sampling: draw p before an episode, and act as if it were the truth.

Thompson (1933); for reinforcement learning Strens (2000), Osband, Russo, Van Roy
(2013). The demonstrations' posterior is drawn from; what an episode itself shows is
not added to it. Where states are hidden the plan for the p drawn is QMDP's, with the
filter of the task that has it.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sdm.baselines.posterior import Posterior
from sdm.solvers_jax.backward_induction import backward_induction
from sdm.solvers_jax.families import EnergyFamily
from sdm.solvers_jax.models import MDP, POMDP, Model
from sdm.solvers_jax.policies import deterministic
from sdm.solvers_jax.policy_evaluation import evaluate_policy


class Drawn(NamedTuple):
    """What is remembered in an episode.

    Attributes:
        place: which p was drawn.
        belief: of the state, in the task with that p.
        action: the last one.

    """

    place: Int[Array, "B N"]
    belief: Float[Array, "B N S"]
    action: Int[Array, "B N"]


class PosteriorSampling(eqx.Module):
    """The policy; its plans are for the grid of p, and common to all tasks.

    Attributes:
        posterior: of each task.
        q: values of actions in the tasks of the grid.
        tasks: the tasks of the grid; MDPs where states are seen.

    """

    posterior: Posterior
    q: Float[Array, "G T S A"]
    tasks: MDP | POMDP

    def init(self, model: Model) -> None:
        """The first decision draws: it knows the number of episodes."""

    def act(
        self,
        memory: Drawn | None,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], Drawn]:
        """Draw p where an episode begins; then plan for it."""
        if memory is None:
            place = self.posterior.draw(jax.vmap(jax.vmap(jax.random.uniform))(key))
            belief = self.tasks.initial[place]
        else:
            place = memory.place
            moves = self.tasks.transition[place, :, memory.action]
            belief = jnp.einsum("bns,bnsm->bnm", memory.belief, moves)
        if isinstance(self.tasks, MDP):
            belief = jax.nn.one_hot(observation, self.q.shape[-2], dtype=self.q.dtype)
        else:
            belief = _condition(self.tasks, belief, place, memory, observation)
        values = jnp.einsum("bns,bnsa->bna", belief, self.q[place, t])
        action = values.argmax(-1).astype(jnp.int32)
        return action, Drawn(place, belief, action)


def _condition(
    tasks: POMDP,
    belief: Float[Array, "B N S"],
    place: Int[Array, "B N"],
    memory: Drawn | None,
    observation: Int[Array, "B N"],
) -> Float[Array, "B N S"]:
    """Weigh the states by the symbol, unless it is impossible in all of them."""
    if memory is None:
        first = tasks.initial_observation
        assert first is not None  # energy tasks show a symbol before the first action
        likelihood = first[place, :, observation]
    else:
        shown = tasks.observation[place, memory.action]
        likelihood = jnp.take_along_axis(shown, observation[..., None, None], axis=-1)
        likelihood = likelihood[..., 0]
    joint = belief * likelihood
    mass = joint.sum(-1, keepdims=True)
    return jnp.where(mass > 0, joint / jnp.where(mass > 0, mass, 1), belief)


def posterior_sampling(
    family: EnergyFamily, found: Posterior, *, horizon: int, hidden: bool = False
) -> PosteriorSampling:
    """Plan for every p of the grid."""
    seen = family.mdp(found.p)
    q = backward_induction(seen, horizon=horizon).q
    return PosteriorSampling(found, q, family.pomdp(found.p) if hidden else seen)


def expected_return(policy: PosteriorSampling, tasks: MDP) -> Float[Array, " B"]:
    """Exact value where states are seen: that of each plan, weighed by its chance."""
    plans = deterministic(policy.q.argmax(-1).astype(jnp.int32), tasks.reward.shape[-1])

    def of_task(transition: Array, reward: Array, initial: Array) -> Array:
        task = MDP(transition, reward, initial, tasks.discount)
        return jax.vmap(lambda table: evaluate_policy(task, table))(plans.probabilities)

    # Task by task: a table of every plan for every task would not fit.
    values = jax.lax.map(
        lambda arrays: of_task(*arrays), (tasks.transition, tasks.reward, tasks.initial)
    )
    return (policy.posterior.weight * values).sum(-1)
