"""What an agent believes that takes one candidate of each episode to be true.

Each class of models registers its own:

    @believing.register
    def _(models: MyModel, q, rewards) -> CandidateBeliefs: ...
"""

import dataclasses
from functools import singledispatch
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdm.tasks.models import MDP, POMDP
from sdm.tasks.momdp import MOMDP
from sdm.tasks.momdp_filter import HiddenBelief, HiddenFilter
from sdm.tasks.rewards import agrees
from sdm.tasks.transitions import dense


@runtime_checkable
class CandidateBeliefs(Protocol):
    """Beliefs in N episodes of each task, of which each has its candidate `place`."""

    def begin(self, place: Int[Array, "B N"], observation: Int[Array, "B N"]) -> Any:
        """Return the belief after the first observation."""
        ...

    def follow(
        self,
        place: Int[Array, "B N"],
        belief: Any,
        action: Int[Array, "B N"],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
    ) -> Any:
        """Return the belief after an action, its reward and an observation."""
        ...

    def values(
        self, place: Int[Array, "B N"], t: int | Int[Array, ""], belief: Any
    ) -> Float[Array, "B N A"]:
        """Return the candidate's values of actions at stage `t`, by QMDP."""
        ...


@singledispatch
def believing(
    models: Any, q: Float[Array, "G T S A"], rewards: bool
) -> CandidateBeliefs:
    """Return beliefs under candidates.

    Args:
        models: the candidates [G].
        q: values of actions under each candidate if states are observed.
        rewards: whether the agent observes its rewards.

    Raises:
        TypeError: if it is unknown for this class of models.

    """
    raise TypeError(f"beliefs: not available for {type(models).__name__} models")


class _States(eqx.Module):
    """States are observed."""

    q: Float[Array, "G T S A"]

    def begin(self, place: Any, observation: Any) -> Int[Array, "B N"]:
        return observation

    def follow(
        self, place: Any, belief: Any, action: Any, observation: Any, reward: Any
    ) -> Int[Array, "B N"]:
        return observation

    def values(self, place: Any, t: Any, belief: Any) -> Float[Array, "B N A"]:
        return self.q[place, t, belief]


@believing.register
def _(models: MDP, q: Any, rewards: bool) -> CandidateBeliefs:
    return _States(q)


class _Symbols(eqx.Module):
    """Symbols are observed: beliefs are over states."""

    models: POMDP
    q: Float[Array, "G T S A"]
    rewards: bool = eqx.field(static=True)

    def begin(self, place: Any, observation: Any) -> Float[Array, "B N S"]:
        belief, first = self.models.initial[place], self.models.initial_observation
        if first is None:
            return belief
        return _condition(belief, first[place, :, observation])

    def follow(
        self, place: Any, belief: Any, action: Any, observation: Any, reward: Any
    ) -> Float[Array, "B N S"]:
        if self.rewards:
            expected = jnp.moveaxis(self.models.reward, 2, 1)[place, action]
            same = agrees(reward[..., None].astype(expected.dtype), expected)
            belief = _condition(belief, same.astype(belief.dtype))
        moves = dense(self.models.transition)[place, :, action]
        belief = jnp.einsum("bns,bnsm->bnm", belief, moves)
        shown = self.models.observation[place, action]
        seen = jnp.take_along_axis(shown, observation[..., None, None], axis=-1)
        return _condition(belief, seen[..., 0])

    def values(self, place: Any, t: Any, belief: Any) -> Float[Array, "B N A"]:
        return jnp.einsum("bns,bnsa->bna", belief, self.q[place, t])


def _condition(
    belief: Float[Array, "B N S"], likelihood: Float[Array, "B N S"]
) -> Float[Array, "B N S"]:
    """Update a belief by Bayes' rule, unless all likelihoods are zero."""
    joint = belief * likelihood
    mass = joint.sum(-1, keepdims=True)
    return jnp.where(mass > 0, joint / jnp.where(mass > 0, mass, 1), belief)


@believing.register
def _(models: POMDP, q: Any, rewards: bool) -> CandidateBeliefs:
    return _Symbols(models, q, rewards)


class _Visible(eqx.Module):
    """A part of the state is observed: beliefs are over the hidden part."""

    models: MOMDP
    q: Float[Array, "G T X Y A"]

    def begin(self, place: Any, observation: Any) -> HiddenBelief:
        return HiddenFilter(self.models, place).begin(observation)

    def follow(
        self, place: Any, belief: Any, action: Any, observation: Any, reward: Any
    ) -> HiddenBelief:
        known = HiddenFilter(self.models, place)
        return known.follow(0, belief, action, observation, reward)

    def values(self, place: Any, t: Any, belief: Any) -> Float[Array, "B N A"]:
        rows = self.q[place, t, belief.visible]
        return jnp.einsum("bny,bnya->bna", belief.belief, rows)


@believing.register
def _(models: MOMDP, q: Any, rewards: bool) -> CandidateBeliefs:
    visible, hidden, _, _ = models.sizes
    shaped = q.reshape(*q.shape[:2], visible, hidden, -1)
    return _Visible(dataclasses.replace(models, observes_reward=rewards), shaped)
