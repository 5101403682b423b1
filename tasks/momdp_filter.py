r"""Belief over the hidden part, given the visible part, and a policy that acts on it.

After action a and reward r at x, and next visible value x' and symbol o,

    b'(y') ∝ Z(o|x',y',a) Σ_y P(y'|x,y,a,x') P(x'|x,y,a) 1[r is r(x,y,a)] b(y)

without the reward if the agent does not observe it. What has probability zero is not
conditioned on, and counted.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sdm.tasks.belief import BeliefPolicy
from sdm.tasks.host_checks import check_indices
from sdm.tasks.momdp import MOMDP, rows_of
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
        likelihood: probability of what was observed last, given the history.

    """

    visible: Int[Array, "B N"]
    belief: Float[Array, "B N Y"]
    impossible: Int[Array, "B N"]
    likelihood: Float[Array, "B N"]

    @property
    def known(self) -> tuple[Int[Array, "B N"], Float[Array, "B N Y"]]:
        """What a plan acts on: the visible value and the belief."""
        return self.visible, self.belief


class HiddenFilter(eqx.Module):
    """Bayes filter of the hidden part in a batch of tasks.

    Attributes:
        model: the tasks, with one batch axis, or none but in `initial`.
        task: index of each episode's task; None if row b has the episodes of task b.

    """

    model: MOMDP
    task: Int[Array, "B N"] | None = None

    def begin(self, observation: Int[Array, "B N"]) -> HiddenBelief:
        """Return the belief after the first symbol x O + o."""
        symbols = self.model.sizes[3]
        return self.start(observation // symbols, observation % symbols)

    def follow(
        self,
        t: int | Int[Array, ""],
        state: HiddenBelief,
        action: Int[Array, "B N"],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
    ) -> HiddenBelief:
        """Return the belief before decision `t`, after the symbol x O + o."""
        symbols = self.model.sizes[3]
        seen, symbol = observation // symbols, observation % symbols
        return self.update(state, action, seen, symbol, reward)

    def rewarded(
        self,
        state: HiddenBelief,
        action: Int[Array, "B N"],
        reward: Float[Array, "B N"] | None,
    ) -> HiddenBelief:
        """Return the belief after the reward of an action, if it is observed.

        Raises:
            ValueError: if the agent observes rewards and they are None.

        """
        state = state._replace(likelihood=jnp.ones_like(state.likelihood))
        if not self.model.observes_reward:
            return state
        if reward is None:
            raise ValueError("reward: this filter needs the rewards, found None")
        expected = self._rows("reward", state.visible, slice(None), action)
        same = agrees(reward[..., None].astype(expected.dtype), expected)
        return _weigh(state, state.belief, same.astype(expected.dtype), state.visible)

    def _tasks(self, rows: int) -> Int[Array, "B ..."]:
        return jnp.arange(rows)[:, None] if self.task is None else self.task

    def _rows(self, name: str, *place: Any) -> Any:
        """Return rows of an array at visible values, [B, N, …]."""
        rows = len(next(x for x in place if not isinstance(x, slice)))
        return rows_of(self.model, name, self._tasks(rows), *place)

    def start(
        self, visible: Int[Array, "B N"], symbol: Int[Array, "B N"] | None = None
    ) -> HiddenBelief:
        """Return the belief after the first visible value, and symbol if there is one.

        Raises:
            ValueError: if a value is out of range, unless JAX traces it.

        """
        check_indices("visible", visible, self.model.sizes[0], "visible values")
        task = self._tasks(len(visible))
        # The belief before, if the visible value has probability zero.
        before = self.model.initial.sum(-2)[task]
        before = jnp.broadcast_to(before, (*visible.shape, before.shape[-1]))
        nothing = jnp.zeros(visible.shape, jnp.int32)
        state = HiddenBelief(visible, before, nothing, jnp.ones_like(before[..., 0]))
        joint = self.model.initial[task, visible]
        state = _weigh(state, before, joint, visible, moved=True)
        if self.model.initial_observation is None or symbol is None:
            return state
        check_indices("symbol", symbol, self.model.sizes[3], "symbols")
        row = self._rows("initial_observation", visible)  # [B, N, Y, O]
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
        state = self.rewarded(state, action, reward)
        listed = self._rows("successors", state.visible, action)
        chance = self._rows("transition", state.visible, slice(None), action)
        same = (listed == visible[..., None])[:, :, None]
        chance = jnp.where(same, chance, 0)  # [B, N, Y, N']
        if self.model.hidden_transition is None:
            moved = state.belief * chance.sum(-1)
        else:
            place = (state.visible, slice(None), action)
            after = self._rows("hidden_transition", *place)  # [B, N, Y, N', Y']
            moved = jnp.einsum("bny,bnys,bnysz->bnz", state.belief, chance, after)
        # If the visible value is impossible, the hidden part is taken not to change.
        state = _weigh(state, state.belief, moved, visible, moved=True)
        if self.model.observation is None:
            return state
        if symbol is None:
            raise ValueError("symbol: this filter needs the symbols, found None")
        check_indices("symbol", symbol, sizes[3], "symbols")
        shown = self._rows("observation", action, visible)  # [B, N, Y, O]
        seen = jnp.take_along_axis(shown, symbol[..., None, None], axis=-1)[..., 0]
        return _weigh(state, state.belief, seen, visible)


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
    chance = state.likelihood * mass[..., 0]
    return HiddenBelief(visible, joint, state.impossible + wrong, chance)


# The policy that filters beliefs over hidden values.
HiddenPolicy = BeliefPolicy


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
