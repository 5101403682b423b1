r"""Plans that ignore future observations: QMDP, and symbols as states.

QMDP (Littman, Cassandra, Kaelbling, 1995) acts in belief b by

    argmax_a Σ_s b(s) Q_t(s, a),

as if the state were observed after this decision. It needs no planning over beliefs.
With an exact filter it is close to optimal if actions for information have no value.
"""

import dataclasses
from functools import singledispatch
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.backward_induction import backward_induction
from sdm.tasks.belief import BeliefPolicy, belief_filter
from sdm.tasks.models import APOMDP, POMDP, Model, states_observed
from sdm.tasks.momdp import MOMDP
from sdm.tasks.momdp_filter import HiddenFilter
from sdm.tasks.policy import TabularPolicy, deterministic
from sdm.tasks.worlds import sizes_of


class QMDPPlan(eqx.Module):
    """QMDP's plan, which maps beliefs to actions.

    Attributes:
        q: optimal action values of states, as if states were observed.

    """

    q: Float[Array, "B T S A"]

    def action(
        self, t: int | Int[Array, ""], x: Float[Array, "B N S"]
    ) -> Int[Array, "B N"]:
        """Return the actions at stage `t` in beliefs `x`; ties go to the lowest."""
        values = jnp.einsum("bns,bsa->bna", x, self.q[:, t])
        return values.argmax(-1).astype(jnp.int32)


class HiddenQMDPPlan(eqx.Module):
    """QMDP's plan for visible values and beliefs over hidden values.

    Attributes:
        q: optimal action values of states, as if states were observed.

    """

    q: Float[Array, "B T X Y A"]

    def action(
        self, t: int | Int[Array, ""], x: tuple[Int[Array, "B N"], Array]
    ) -> Int[Array, "B N"]:
        """Return the actions at stage `t`; ties go to the lowest."""
        visible, belief = x
        task = jnp.arange(len(visible))[:, None]
        rows = self.q[task, t, visible]  # [B, N, Y, A]
        values = jnp.einsum("bny,bnya->bna", belief, rows)
        return values.argmax(-1).astype(jnp.int32)


@singledispatch
def qmdp(model: Any, *, horizon: int, rewards: bool = False) -> BeliefPolicy:
    """Return QMDP with the exact filter, for a batch of tasks.

    Args:
        model: the tasks.
        horizon: decisions per episode.
        rewards: whether the agent observes its rewards, which the filter then uses.

    Raises:
        TypeError: if it is unknown for this class of models.

    """
    raise TypeError(f"QMDP: not available for {type(model).__name__} models")


@qmdp.register
def _(model: POMDP, *, horizon: int, rewards: bool = False) -> BeliefPolicy:
    q = backward_induction(states_observed(model), horizon=horizon).q
    return BeliefPolicy(QMDPPlan(q), belief_filter(model, rewards=rewards))


@qmdp.register
def _(model: MOMDP, *, horizon: int, rewards: bool = False) -> BeliefPolicy:
    q = backward_induction(states_observed(model), horizon=horizon).q
    visible, hidden, actions, _ = model.sizes
    plan = HiddenQMDPPlan(q.reshape(*q.shape[:2], visible, hidden, actions))
    known = dataclasses.replace(model, observes_reward=rewards)
    return BeliefPolicy(plan, HiddenFilter(known))


def observation_as_state(model: Model, *, horizon: int) -> TabularPolicy:
    """Return the policy that acts optimally for the state with the symbol's number.

    Raises:
        ValueError: if the numbers of symbols and states differ.

    """
    states, actions, symbols = sizes_of(model)
    if states != symbols:
        raise ValueError(f"{symbols} symbols cannot stand for {states} states")
    solution = backward_induction(states_observed(model), horizon=horizon)
    return deterministic(solution.policy, actions)


def mixture(model: APOMDP) -> POMDP:
    """Return a POMDP whose hidden state includes the model of the ambiguity set.

    States are pairs (k, s), in this order; the prior over models is uniform.
    """
    tasks, models, states, actions, _ = model.transition.shape
    same = jnp.eye(models, dtype=model.reward.dtype)
    pairs = models * states
    first = model.initial_observation
    return POMDP(
        transition=jnp.einsum("bksam,kl->bksalm", model.transition, same).reshape(
            tasks, pairs, actions, pairs
        ),
        observation=jnp.moveaxis(model.observation, 1, 2).reshape(
            tasks, actions, pairs, -1
        ),
        reward=jnp.tile(model.reward, (1, models, 1)),
        initial=jnp.tile(model.initial, (1, models)) / models,
        discount=model.discount,
        initial_observation=None if first is None else first.reshape(tasks, pairs, -1),
    )
