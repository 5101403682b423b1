r"""Belief filtering, and a policy that acts on its belief.

The Bayes filter, for K models at once, is

    joint'(k, s') ∝ Z_k(o|s',a) Σ_s P_k(s'|s,a) joint(k, s)
    b'(s')        = Σ_k joint'(k, s')

With one model, this is the standard belief update of a POMDP; with several, it filters
their mixture under a uniform prior over models. If the agent observes its rewards, the
filter first conditions on the reward:

    joint(k, s) ∝ 1[the reward is r(s, a)] joint(k, s).

If a symbol or a reward has probability zero, the filter skips that conditioning and
counts the event.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.tasks.host_checks import check_indices
from sdm.tasks.models import APOMDP, POMDP, Model
from sdm.tasks.rewards import agrees
from sdm.tasks.stages import at_stage, axes, check_stationary
from sdm.tasks.transitions import Transition, of_models, of_one_model, predicted
from sdm.tasks.worlds import true_model as true_model


class FilterState(NamedTuple):
    """Beliefs in N episodes of B tasks.

    Attributes:
        joint: probability of each model and state.
        impossible: number of observed symbols or rewards with probability zero.

    """

    joint: Float[Array, "B N K S"]
    impossible: Int[Array, "B N"]

    @property
    def belief(self) -> Float[Array, "B N S"]:
        """Probability of each state."""
        return self.joint.sum(-2)

    @property
    def known(self) -> Float[Array, "B N S"]:
        """What a plan acts on: the belief."""
        return self.belief


class BeliefFilter(eqx.Module):
    """Bayes filter of a batch of tasks.

    Attributes:
        transition: P_k(s' | s, a) of the agent's candidate models.
        observation: Z_k(o | s', a) of each model.
        initial: distribution of the first state.
        initial_observation: Z_1k(o | s) of each model, or None.
        reward: r(s, a) if the agent observes its rewards, else None.

    """

    axes_at_a_stage: ClassVar[Mapping[str, int]] = axes(
        initial=1, transition=4, observation=4, reward=2
    )

    transition: Transition  # [B, K, S, A, S]
    observation: Float[Array, "B ... K A S O"]
    initial: Float[Array, "B S"]
    initial_observation: Float[Array, "B K S O"] | None
    reward: Float[Array, "B ... S A"] | None = None

    def begin(self, observation: Int[Array, "B N"]) -> FilterState:
        """Return the belief after the first symbol, if there is one."""
        return self.see_first(self.start(observation.shape[1]), observation)

    def follow(
        self,
        t: int | Int[Array, ""],
        state: FilterState,
        action: Int[Array, "B N"],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
    ) -> FilterState:
        """Return the belief before decision `t`, after the last decision's symbol."""
        return at_stage(self, t - 1).update(state, action, observation, reward)

    def start(self, episodes: int) -> FilterState:
        """Return the belief before the first observation."""
        tasks, models = len(self.initial), self.transition.shape[-4]
        shape = (tasks, episodes, models, self.initial.shape[-1])
        prior = jnp.broadcast_to(self.initial[:, None, None] / models, shape)
        return FilterState(prior, jnp.zeros((tasks, episodes), jnp.int32))

    def see_first(
        self, state: FilterState, observation: Int[Array, "B N"]
    ) -> FilterState:
        """Return the belief after the first symbol; unchanged if there is none.

        Raises:
            ValueError: if a symbol is out of range, unless JAX traces it.

        """
        if self.initial_observation is None:
            return state
        symbols = self.initial_observation.shape[-1]
        check_indices("observation", observation, symbols, "symbols")
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
        """Return the belief after an action, its reward and the next symbol.

        If arrays depend on the stage, use the filter of the action's stage t,
        `at_stage(filter, t)`; see `stages`.

        Raises:
            ValueError: if the agent observes rewards and `reward` is None; if an
                action or a symbol is out of range, unless JAX traces it; if arrays
                depend on the stage.

        """
        check_stationary(self, "`update`, of the filter `at_stage(filter, t)`,")
        actions, _, symbols = self.observation.shape[-3:]
        check_indices("action", action, actions, "actions")
        check_indices("observation", observation, symbols, "symbols")
        task = jnp.arange(len(self.initial))[:, None]
        if self.reward is not None:
            if reward is None:
                raise ValueError("reward: this filter needs the rewards, found None")
            expected = jnp.moveaxis(self.reward, 2, 1)[task, action]  # [B, N, S]
            same = agrees(reward[..., None].astype(expected.dtype), expected)
            state = _weigh(state, state.joint, same[:, :, None].astype(expected.dtype))
        joint = predicted(self.transition, state.joint, action)
        shown = jnp.moveaxis(self.observation, (2, 4), (1, 2))  # [B, A, O, K, S']
        return _weigh(state, joint, shown[task, action, observation])


def _weigh(state: FilterState, predicted: Array, likelihood: Array) -> FilterState:
    """Condition on an observation; keep the prediction if its likelihood is zero."""
    joint = predicted * likelihood
    mass = joint.sum((-2, -1), keepdims=True)
    possible = mass > 0
    joint = jnp.where(possible, joint / jnp.where(possible, mass, 1), predicted)
    wrong = (~possible[..., 0, 0]).astype(jnp.int32)
    return FilterState(joint, state.impossible + wrong)


def belief_filter(
    model: POMDP | APOMDP, *, believe: int | str = 0, rewards: bool = False
) -> BeliefFilter:
    """Return the Bayes filter of an agent in a batch of tasks.

    Args:
        model: a batch with one leading axis.
        believe: for an APOMDP, the index of the model that the agent filters with, or
            `"mixture"` for all of them, weighted by their posterior probabilities.
        rewards: whether the agent observes its rewards.

    Raises:
        ValueError: if `believe` is invalid, or the model is not a batch.

    Example:
        >>> import jax.numpy as jnp
        >>> from sdm.solvers_jax import EnergyFamily, belief_filter
        >>> bayes = belief_filter(EnergyFamily().pomdp(jnp.array([0.5])))
        >>> bayes.see_first(bayes.start(episodes=1), jnp.array([[7]])).belief.argmax()
        Array(7, dtype=int64)

    """
    if np.ndim(model.initial) != 2:
        raise ValueError(
            f"reward has shape {np.shape(model.reward)}: must be [B, S, A]; add a "
            "batch axis to a single task"
        )
    paid = model.reward if rewards else None
    if isinstance(model, POMDP):
        first = model.initial_observation
        return BeliefFilter(
            of_one_model(model.transition),
            model.observation[..., None, :, :, :],
            model.initial,
            None if first is None else first[:, None],
            paid,
        )
    chosen = _chosen(model, believe)
    first = model.initial_observation
    return BeliefFilter(
        of_models(model.transition, chosen),
        model.observation[..., chosen, :, :, :],
        model.initial,
        None if first is None else first[:, chosen],
        paid,
    )


def check_believe(believe: int | str, models: int) -> None:
    """Raise `ValueError` unless `believe` is a model's index or `"mixture"`."""
    if isinstance(believe, str):
        known = believe == "mixture"
    else:
        whole = isinstance(believe, int | np.integer) and not isinstance(believe, bool)
        known = whole and 0 <= believe < models
    if not known:
        raise ValueError(
            f"believe = {believe!r}: must be `mixture` or a model from 0 to "
            f"{models - 1}"
        )


def _chosen(model: APOMDP, believe: int | str) -> slice:
    check_believe(believe, model.transition.shape[-4])
    return slice(None) if isinstance(believe, str) else slice(believe, believe + 1)


@runtime_checkable
class Filter(Protocol):
    """What an agent knows, from what it has observed and done.

    What it knows is the property `known` of the filter's state. It is a belief over
    states, or whatever else plans for this class of models act on.
    """

    def begin(self, observation: Int[Array, "B N"]) -> Any:
        """Return the filter's state after the first observation."""
        ...

    def follow(
        self,
        t: int | Int[Array, ""],
        state: Any,
        action: Int[Array, "B N"],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
    ) -> Any:
        """Return the filter's state before decision `t`.

        Args:
            t: the stage.
            state: the filter's state before decision t - 1.
            action: the action of that decision.
            observation: what was observed after it.
            reward: its reward.

        """
        ...


@runtime_checkable
class BeliefPlan(Protocol):
    """A mapping from what a filter knows to actions, such as a solution of a POMDP."""

    def action(self, t: int | Int[Array, ""], x: Any) -> Int[Array, "*B N"]:
        """Return the actions at stage `t` for N beliefs `x` of every task."""
        ...


class BeliefPolicy(eqx.Module):
    """Policy that filters its belief and takes the plan's action for it.

    Attributes:
        plan: mapping from what the filter knows to actions.
        filter: belief filter.

    """

    plan: BeliefPlan
    filter: Filter

    def init(self, model: Model) -> None:
        """Return None: `act` starts the filter when it knows the number of episodes."""

    def act(
        self,
        memory: tuple[Any, Int[Array, "B N"]] | None,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], tuple[Any, Int[Array, "B N"]]]:
        """Update the belief with the observation and the reward, and act on it."""
        if memory is None:
            state = self.filter.begin(observation)
        else:
            state = self.filter.follow(t, *memory, observation, reward)
        action = self.plan.action(t, state.known)
        return action, (state, action)

    def follow(
        self, memory: tuple[Any, Int[Array, "B N"]], action: Int[Array, "B N"]
    ) -> tuple[Any, Int[Array, "B N"]]:
        """Return the memory if the last decision had been `action`."""
        return memory[0], action
