r"""Belief filtering, and the oracle that acts on what it believes.

The Bayes operator, for one model or several at once:

    joint'(k, s') ∝ Z_k(o|s',a) Σ_s P_k(s'|s,a) joint(k, s)
    b'(s')        = Σ_k joint'(k, s')

With one model this is the usual belief update; with several it is that of the mixture,
whose weights are the posterior probabilities of the models, equal at the start. Where
the agent sees its rewards, those tell about the state that the action was taken in:

    joint(k, s) ∝ 1[the reward is r(s, a)] joint(k, s)

comes first. A symbol or a reward that no state explains leaves what was believed before
as it is, and is counted.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.tasks.models import APOMDP, POMDP, Model
from sdm.tasks.rewards import agrees


class FilterState(NamedTuple):
    """What is believed in N episodes of B tasks.

    Attributes:
        joint: probability of each model and state.
        impossible: how often a symbol or a reward had probability zero.

    """

    joint: Float[Array, "B N K S"]
    impossible: Int[Array, "B N"]

    @property
    def belief(self) -> Float[Array, "B N S"]:
        """Probability of each state."""
        return self.joint.sum(-2)


class BeliefFilter(eqx.Module):
    """The Bayes operator of a batch of tasks.

    Attributes:
        transition: P_k(s' | s, a) of the models that the agent reckons with.
        observation: Z_k(o | s', a) of each.
        initial: distribution of the first state.
        initial_observation: Z_1k(o | s) of each, or None.
        reward: r(s, a), where the agent sees what it is paid; None where not.

    """

    transition: Float[Array, "B K S A S"]
    observation: Float[Array, "B K A S O"]
    initial: Float[Array, "B S"]
    initial_observation: Float[Array, "B K S O"] | None
    reward: Float[Array, "B S A"] | None = None

    def start(self, episodes: int) -> FilterState:
        """Before anything is seen."""
        tasks, models = self.transition.shape[:2]
        shape = (tasks, episodes, models, self.initial.shape[-1])
        prior = jnp.broadcast_to(self.initial[:, None, None] / models, shape)
        return FilterState(prior, jnp.zeros((tasks, episodes), jnp.int32))

    def see_first(
        self, state: FilterState, observation: Int[Array, "B N"]
    ) -> FilterState:
        """After the first symbol; unchanged where there is none."""
        if self.initial_observation is None:
            return state
        task = jnp.arange(len(self.initial))[:, None]
        seen = jnp.moveaxis(self.initial_observation, -1, 1)[task, observation]
        return _weigh(state, state.joint, seen)

    def update(
        self,
        state: FilterState,
        action: Int[Array, "B N"],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"] | None = None,
    ) -> FilterState:
        """After an action, what it paid and the symbol that followed it.

        Raises:
            ValueError: if rewards are seen, and none is given.

        """
        task = jnp.arange(len(self.initial))[:, None]
        if self.reward is not None:
            if reward is None:
                raise ValueError("this filter needs the rewards that the agent sees")
            expected = jnp.moveaxis(self.reward, 2, 1)[task, action]  # [B, N, S]
            same = agrees(reward[..., None].astype(expected.dtype), expected)
            state = _weigh(state, state.joint, same[:, :, None].astype(expected.dtype))
        moves = jnp.moveaxis(self.transition, 3, 1)[task, action]  # [B, N, K, S, S']
        predicted = jnp.einsum("bnks,bnksm->bnkm", state.joint, moves)
        shown = jnp.moveaxis(self.observation, (2, 4), (1, 2))  # [B, A, O, K, S']
        return _weigh(state, predicted, shown[task, action, observation])


def _weigh(state: FilterState, predicted: Array, likelihood: Array) -> FilterState:
    """Condition on what was seen; keep the prediction where that was impossible."""
    joint = predicted * likelihood
    mass = joint.sum((-2, -1), keepdims=True)
    possible = mass > 0
    joint = jnp.where(possible, joint / jnp.where(possible, mass, 1), predicted)
    wrong = (~possible[..., 0, 0]).astype(jnp.int32)
    return FilterState(joint, state.impossible + wrong)


def belief_filter(
    model: POMDP | APOMDP, *, believe: int | str = 0, rewards: bool = False
) -> BeliefFilter:
    """The filter of an agent in a batch of tasks.

    Args:
        model: a batch, one leading axis.
        believe: for an APOMDP, the index of the model that the agent filters with, or
            `"mixture"` for all of them, weighted by their posterior probabilities.
        rewards: whether the agent sees its rewards.

    Raises:
        ValueError: if there is no such model, or this is a single task.

    """
    if np.ndim(model.reward) != 3:
        raise ValueError(
            f"reward has shape {np.shape(model.reward)}: a filter is for a batch of "
            "tasks, with one leading axis; of one task, too"
        )
    paid = model.reward if rewards else None
    if isinstance(model, POMDP):
        first = model.initial_observation
        return BeliefFilter(
            model.transition[:, None],
            model.observation[:, None],
            model.initial,
            None if first is None else first[:, None],
            paid,
        )
    chosen = _chosen(model, believe)
    first = model.initial_observation
    return BeliefFilter(
        model.transition[:, chosen],
        model.observation[:, chosen],
        model.initial,
        None if first is None else first[:, chosen],
        paid,
    )


def check_believe(believe: int | str, models: int) -> None:
    """Raise `ValueError` unless one of `models` models, or their mixture, is meant."""
    if isinstance(believe, str):
        known = believe == "mixture"
    else:
        whole = isinstance(believe, int | np.integer) and not isinstance(believe, bool)
        known = whole and 0 <= believe < models
    if not known:
        raise ValueError(
            f"believe = {believe!r}: must be `mixture`, or a model 0 to {models - 1}"
        )


def _chosen(model: APOMDP, believe: int | str) -> slice:
    check_believe(believe, model.transition.shape[1])
    return slice(None) if isinstance(believe, str) else slice(believe, believe + 1)


def true_model(model: APOMDP, k: int = 0) -> POMDP:
    """Model k of every task, as the environment that is played in."""
    index = np.asarray(k)
    first = model.initial_observation
    return POMDP(
        jnp.take(model.transition, index, axis=-4),
        jnp.take(model.observation, index, axis=-4),
        model.reward,
        model.initial,
        model.discount,
        None if first is None else jnp.take(first, index, axis=-3),
    )


@runtime_checkable
class BeliefPlan(Protocol):
    """What says how to act in a belief; a solution is one."""

    def action(
        self, t: int | Int[Array, ""], x: Float[Array, "*B N S"]
    ) -> Int[Array, "*B N"]:
        """Actions at stage `t` in beliefs `x`, for N beliefs of every task."""
        ...


class BeliefPolicy(eqx.Module):
    """Filters its belief, and takes the plan's action in it.

    Attributes:
        plan: what to do in a belief.
        filter: how to come by one.

    """

    plan: BeliefPlan
    filter: BeliefFilter

    def init(self, model: Model) -> None:
        """The first decision starts the filter: it knows the number of episodes."""

    def act(
        self,
        memory: tuple[FilterState, Int[Array, "B N"]] | None,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], tuple[FilterState, Int[Array, "B N"]]]:
        """Update the belief with what was seen and paid, and act in it."""
        if memory is None:
            start = self.filter.start(observation.shape[1])
            state = self.filter.see_first(start, observation)
        else:
            state = self.filter.update(*memory, observation, reward)
        action = self.plan.action(t, state.belief)
        return action, (state, action)
