r"""Belief over the hidden part, given the visible part, and a policy that acts on it.

After action a and reward r at x, and next visible value x' and symbol o,

    b'(y') ∝ Z(o|x',y',a) Σ_y P(y'|x,y,a,x') P(x'|x,y,a) 1[r is r(x,y,a)] b(y)

without the reward if the agent does not observe it. What has probability zero is not
conditioned on, and counted.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.tasks.host_checks import check_indices
from sdm.tasks.models import Model
from sdm.tasks.momdp import AXES, MOMDP
from sdm.tasks.momdp_flat import SeesVisible, flat_mdp
from sdm.tasks.rewards import agrees
from sdm.tasks.simulation import OneTask, Plan, Played, in_its_model
from sdm.tasks.transitions import chances


class HiddenBelief(NamedTuple):
    """What is known in N episodes of B tasks.

    Attributes:
        visible: the visible value.
        belief: probability of each hidden value.
        impossible: number of observations with probability zero.

    """

    visible: Int[Array, "B N"]
    belief: Float[Array, "B N Y"]
    impossible: Int[Array, "B N"]


class HiddenFilter(eqx.Module):
    """Bayes filter of the hidden part in a batch of tasks.

    Attributes:
        model: the tasks, with one batch axis, or none but in `initial`.

    """

    model: MOMDP

    def start(
        self, visible: Int[Array, "B N"], symbol: Int[Array, "B N"] | None = None
    ) -> HiddenBelief:
        """Return the belief after the first visible value, and symbol if there is one.

        Raises:
            ValueError: if a value is out of range, unless JAX traces it.

        """
        check_indices("visible", visible, self.model.sizes[0], "visible values")
        task = jnp.arange(len(self.model.initial))[:, None]
        # The belief before, if the visible value has probability zero.
        before = self.model.initial.sum(-2)[:, None]
        before = jnp.broadcast_to(before, (*visible.shape, before.shape[-1]))
        nothing = jnp.zeros(visible.shape, jnp.int32)
        state = HiddenBelief(visible, before, nothing)
        joint = self.model.initial[task, visible]
        state = _weigh(state, before, joint, visible, moved=True)
        if self.model.initial_observation is None or symbol is None:
            return state
        check_indices("symbol", symbol, self.model.sizes[3], "symbols")
        row = self._at("initial_observation", visible)  # [B, N, Y, O]
        seen = jnp.take_along_axis(row, symbol[..., None, None], axis=-1)[..., 0]
        return _weigh(state, state.belief, seen, visible)

    def update(
        self,
        state: HiddenBelief,
        action: Int[Array, "B N"],
        visible: Int[Array, "B N"],
        symbol: Int[Array, "B N"] | None = None,
        reward: Float[Array, "B N"] | None = None,
    ) -> HiddenBelief:
        """Return the belief after an action, its reward and what was observed next.

        Raises:
            ValueError: if a value is out of range, unless JAX traces it; if the agent
                observes symbols or rewards and they are None.

        """
        sizes = self.model.sizes
        check_indices("action", action, sizes[2], "actions")
        check_indices("visible", visible, sizes[0], "visible values")
        if self.model.observes_reward:
            if reward is None:
                raise ValueError("reward: this filter needs the rewards, found None")
            expected = _of_action(self._at("reward", state.visible), action, 3)
            same = agrees(reward[..., None].astype(expected.dtype), expected)
            seen = same.astype(expected.dtype)
            state = _weigh(state, state.belief, seen, state.visible)
        listed = _of_action(self._at("successors", state.visible), action, 2)
        chance = _of_action(self._at("transition", state.visible), action, 3)
        same = (listed == visible[..., None])[:, :, None]
        chance = jnp.where(same, chance, 0)  # [B, N, Y, N']
        if self.model.hidden_transition is None:
            moved = state.belief * chance.sum(-1)
        else:
            after = self._at("hidden_transition", state.visible)
            after = _of_action(after, action, 3)  # [B, N, Y, N', Y']
            moved = jnp.einsum("bny,bnys,bnysz->bnz", state.belief, chance, after)
        # If the visible value is impossible, the hidden part is taken not to change.
        state = _weigh(state, state.belief, moved, visible, moved=True)
        if self.model.observation is None:
            return state
        if symbol is None:
            raise ValueError("symbol: this filter needs the symbols, found None")
        check_indices("symbol", symbol, sizes[3], "symbols")
        shown = self._symbols(action, visible)
        seen = jnp.take_along_axis(shown, symbol[..., None, None], axis=-1)[..., 0]
        return _weigh(state, state.belief, seen, visible)

    def _at(self, name: str, visible: Int[Array, "B N"]) -> Any:
        """Return the rows of an array [*B, X, …] at visible values, [B, N, …]."""
        array = getattr(self.model, name)
        if array is None:  # no lists of successors
            array = self.model.listed()
        axes = {**AXES, "successors": "XAN"}[name]
        if array.ndim == len(axes):
            return array[visible]
        return array[jnp.arange(len(visible))[:, None], visible]

    def _symbols(self, action: Any, visible: Any) -> Float[Array, "B N Y O"]:
        shown = self.model.observation
        assert shown is not None
        if shown.ndim == len(AXES["observation"]):
            return shown[action, visible]
        return shown[jnp.arange(len(action))[:, None], action, visible]


def _of_action(rows: Array, action: Int[Array, "B N"], axis: int) -> Array:
    """Return the rows [B, N, …] of actions, which are on an axis."""
    place = action.reshape(*action.shape, *[1] * (rows.ndim - 2))
    return jnp.take_along_axis(rows, place, axis=axis).squeeze(axis)


def _weigh(
    state: HiddenBelief,
    belief: Array,
    likelihood: Array,
    visible: Array,
    *,
    moved: bool = False,
) -> HiddenBelief:
    """Condition a belief on an observation, unless its probability is zero."""
    joint = likelihood if moved else belief * likelihood
    mass = joint.sum(-1, keepdims=True)
    some = mass > 0
    joint = jnp.where(some, joint / jnp.where(some, mass, 1), belief)
    wrong = (~some[..., 0]).astype(jnp.int32)
    return HiddenBelief(visible, joint, state.impossible + wrong)


@runtime_checkable
class HiddenPlan(Protocol):
    """A mapping from visible values and beliefs to actions, such as a solution."""

    def action(
        self, t: int | Int[Array, ""], x: tuple[Int[Array, "*B N"], Array]
    ) -> Int[Array, "*B N"]:
        """Return the actions at stage `t`."""
        ...


class HiddenPolicy(eqx.Module):
    """Policy that filters its belief and takes the plan's action.

    It observes the symbol x O + o, which is x if there are no symbols: see
    `momdp_flat`.

    Attributes:
        plan: mapping from visible values and beliefs to actions.
        filter: belief filter.

    """

    plan: HiddenPlan
    filter: HiddenFilter

    def init(self, model: Model) -> None:
        """Return None: the first decision makes the memory, for N episodes."""

    def act(
        self,
        memory: tuple[HiddenBelief, Int[Array, "B N"]] | None,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], tuple[HiddenBelief, Int[Array, "B N"]]]:
        """Update the belief with what is observed, and act on it."""
        symbols = self.filter.model.sizes[3]
        seen, symbol = observation // symbols, observation % symbols
        if memory is None:
            state = self.filter.start(seen, symbol)
        else:
            state = self.filter.update(*memory, seen, symbol, reward)
        action = self.plan.action(t, (state.visible, state.belief))
        return action, (state, action)


class _OneTask(OneTask):
    """The plan of one task, for a batch of one."""

    def action(self, t: int | Int[Array, ""], x: Any) -> Int[Array, "1 N"]:
        """Return the actions at stage `t`."""
        return self.plan.action(t, jax.tree.map(lambda each: each[0], x))[None]


@in_its_model.register
def _(model: MOMDP, plan: Plan) -> Played:
    batch = jax.tree.map(lambda x: x[None] if np.ndim(x) else x, model)
    policy = HiddenPolicy(_OneTask(plan), HiddenFilter(batch))
    _, hidden, _, symbols = model.sizes
    world = flat_mdp(model)
    one = jax.tree.map(lambda x: x[None] if np.ndim(x) else x, world)
    # Rows of the world and of the filter, and about 64 α-vectors.
    numbers = chances(world.transition).shape[-1] * hidden + 64 * hidden
    return Played(one, SeesVisible(policy, hidden, symbols), numbers)
