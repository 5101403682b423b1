"""Posterior sampling: draw a candidate before an episode, and act as if it were true.

Source: Thompson (1933); for reinforcement learning Strens (2000), Osband, Russo, Van
Roy (2013). The candidate is drawn from the posterior after the demonstrations, and
kept during the episode. If states are hidden, the candidate's plan is QMDP's, with the
candidate's belief filter.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sdm.data.benchmark import Shown
from sdm.policies.candidate_beliefs import believing
from sdm.policies.posterior import Posterior, posterior
from sdm.policies.prepared import Prepared
from sdm.policies.registry import register_policy
from sdm.solvers_jax.backward_induction import backward_induction
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.tasks.models import MDP, Model, states_observed
from sdm.tasks.policy import deterministic
from sdm.tasks.transitions import take_tasks


class Drawn(NamedTuple):
    """Memory of an episode.

    Attributes:
        place: index of the drawn candidate.
        belief: what is believed under that candidate.
        action: the last action.

    """

    place: Int[Array, "B N"]
    belief: Any
    action: Int[Array, "B N"]


class PosteriorSampling(eqx.Module):
    """The policy; all tasks share its plans, one per candidate.

    Attributes:
        posterior: the posterior of each task.
        q: optimal values of actions under each candidate.
        rewards: whether the agent observes its rewards.

    """

    posterior: Posterior
    q: Float[Array, "G T S A"]
    rewards: bool = eqx.field(default=False, static=True)

    def init(self, model: Model) -> None:
        """Return None; the first decision makes the memory, for N episodes."""

    def act(
        self,
        memory: Drawn | None,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], Drawn]:
        """Draw a candidate at the first stage; take its plan's action."""
        beliefs = believing(self.posterior.models, self.q, self.rewards)
        if memory is None:
            place = self.posterior.draw(jax.vmap(jax.vmap(jax.random.uniform))(key))
            belief = beliefs.begin(place, observation)
        else:
            place = memory.place
            belief = beliefs.follow(*memory, observation, reward)
        action = beliefs.values(place, t, belief).argmax(-1).astype(jnp.int32)
        return action, Drawn(place, belief, action)


@register_policy("psrl")
def posterior_sampling(bed: Shown) -> Prepared:
    """Plan for every candidate, and draw one before each episode."""
    found = posterior(bed)
    seen = states_observed(found.models)
    q = backward_induction(seen, horizon=bed.config.horizon).q
    policy = PosteriorSampling(found, q, bed.config.rewards_seen)
    if bed.config.kind == "mdp" and bed.states is not None:
        return Prepared(policy, expected_return(policy, bed.states))
    return Prepared(policy)


def expected_return(policy: PosteriorSampling, tasks: MDP) -> Float[Array, " B"]:
    """Return the exact value in tasks with observed states.

    It is the posterior mean of the values of the candidates' plans.
    """
    plans = deterministic(policy.q.argmax(-1).astype(jnp.int32), tasks.reward.shape[-1])

    def of_task(index: Array) -> Array:
        task = take_tasks(tasks, index)
        return jax.vmap(lambda table: evaluate_policy(task, table))(plans.probabilities)

    # Task by task, since a table of every plan for every task would not fit the memory.
    values = jax.lax.map(of_task, jnp.arange(len(tasks.initial)))
    return (policy.posterior.weight * values).sum(-1)
