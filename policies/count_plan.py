r"""The exact Bayes-adaptive plan of conjugate families with few counts.

In a conjugate family, a vector n of counts is a sufficient statistic of the observed
transitions, so the Bayes-adaptive MDP (Duff, 2002) is small. Its states are (s, n),
with the counts of this episode added to those of the demonstrations, and

    V_t(s, n) = max_a [ r(s, a)
                        + γ Σ_{s'} P(s' | s, a; n) V_{t+1}(s', n + tally(s, a, s')) ]

where P(· ; n) is the model of the posterior mean. Backward induction over these states,
which includes the value of exploration, has the highest mean return over tasks from the
prior among policies that learn from transitions only. A policy that also learns from
the demonstrated actions, if they are optimal for the true task, can have a higher one.
"""

import math
from functools import partial
from itertools import combinations_with_replacement
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.data.benchmark import Shown
from sdm.policies.posterior import count_moves
from sdm.tasks.conjugate_family import ConjugateFamily
from sdm.tasks.models import MDP, Model
from sdm.tasks.transitions import dense

# Limits of a plan: bytes of one task's table of models and of all tasks' plans, and
# multiply-adds of all tasks.
MOST_BYTES, MOST_WORK = 1 << 29, 1e11


class CountTable(NamedTuple):
    """All counts that an episode can reach, and the counts after each transition.

    Attributes:
        counts: vectors of counts, in the order of their sums.
        step: index of the counts after a transition from state s by action a to s'; if
            an episode cannot reach them, the index of the counts before it.

    """

    counts: Int[np.ndarray, "H C"]
    step: Int[np.ndarray, "H S A S"]


class Counted(NamedTuple):
    """Memory of an episode.

    Attributes:
        place: index of the counts.
        state: the last state.
        action: the last action.

    """

    place: Int[Array, "B N"]
    state: Int[Array, "B N"]
    action: Int[Array, "B N"]


class CountPolicy(eqx.Module):
    """A policy that takes the plan's action for the counts so far.

    Attributes:
        plan: an action for each stage, counts and state.
        step: index of the counts after each transition.

    """

    plan: Int[Array, "B T H S"]
    step: Int[Array, "H S A S"]

    def init(self, model: Model) -> None:
        """Return None; the first decision makes the memory, for N episodes."""

    def act(
        self,
        memory: Counted | None,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], Counted]:
        """Count the last transition, and look the action up."""
        if memory is None:
            place = jnp.zeros_like(observation)
        else:
            place = self.step[memory.place, memory.state, memory.action, observation]
        task = jnp.arange(len(observation))[:, None]
        action = self.plan[task, t, place, observation].astype(jnp.int32)
        return action, Counted(place, observation, action)

    def follow(self, memory: Counted, action: Int[Array, "B N"]) -> Counted:
        """Return the memory if the last decision had been `action`."""
        return memory._replace(action=action)


def is_small(family: ConjugateFamily, *, horizon: int, tasks: int) -> bool:
    """Return whether the plan is estimated to be within the limits of memory and time.

    Args:
        family: the family.
        horizon: decisions per episode.
        tasks: number of tasks.

    """
    vectors = math.comb(horizon - 1 + family.counts, family.counts)
    states, actions = family.spaces.states, len(family.spaces.actions)
    models = vectors * states**2 * actions
    plans = tasks * horizon * vectors * states
    return max(3 * 8 * models, plans) <= MOST_BYTES and (
        models * horizon * tasks <= MOST_WORK
    )


def count_plan(bed: Shown) -> CountPolicy:
    """Return the plan for each task's demonstrations."""
    family, horizon = bed.config.prior_family, bed.config.horizon
    assert isinstance(family, ConjugateFamily)
    table, shown = count_table(family, horizon), count_moves(bed)
    params = family.posterior_mean(shown[:, None] + table.counts)  # [B, H]
    steps = jnp.asarray(table.step)
    plan = _plans(dict(params), steps, family=family, horizon=horizon)
    return CountPolicy(plan, steps)


@partial(jax.jit, static_argnames=("family", "horizon"))
def _plans(
    params: dict[str, Array],
    step: Int[Array, "H S A S"],
    *,
    family: ConjugateFamily,
    horizon: int,
) -> Int[Array, "B T H S"]:
    """Return the plan of every task; task by task, to save memory."""

    def of_task(params: dict[str, Array]) -> Array:
        model = family.model(params, "mdp")
        assert isinstance(model, MDP)
        return _recursion(model, step, horizon)[0]

    return jax.lax.map(of_task, params)


def _recursion(
    believed: MDP, step: Int[Array, "H S A S"], horizon: int
) -> tuple[Int[Array, "T H S"], Float[Array, "H S"]]:
    """Return plan and value at stage 0; counts h have the model `believed[h]`."""
    place = jnp.arange(len(step))

    def stage(after: Array, _: None) -> tuple[Array, Array]:
        # [H, S, A, S']: the value of reaching s' with the counts after the transition.
        following = after[step, jnp.arange(after.shape[-1])]
        q = believed.reward + believed.discount * (
            dense(believed.transition) * following
        ).sum(-1)
        best = q.argmax(-1)
        return q[place[:, None], jnp.arange(q.shape[1]), best], best.astype(jnp.int8)

    nothing = jnp.zeros(believed.reward.shape[:-1], believed.reward.dtype)
    value, plan = jax.lax.scan(stage, nothing, None, length=horizon, reverse=True)
    return plan, value


@eqx.filter_jit
def expected_return(policy: CountPolicy, tasks: MDP) -> Float[Array, " B"]:
    """Return the exact value of a plan in the true tasks."""
    step = policy.step
    place, state = jnp.arange(len(step))[:, None], jnp.arange(step.shape[1])

    def of_task(task: tuple[Array, ...]) -> Array:
        plan, transition, reward, initial = task

        def stage(after: Array, action: Array) -> tuple[Array, None]:
            following = after[step[place, state, action], state[None, None]]
            moved = (transition[state, action] * following).sum(-1)
            return reward[state, action] + tasks.discount * moved, None

        nothing = jnp.zeros(plan.shape[1:], reward.dtype)
        value, _ = jax.lax.scan(stage, nothing, plan.astype(jnp.int32), reverse=True)
        return value[0] @ initial

    parts = (policy.plan, tasks.transition, tasks.reward, tasks.initial)
    return jax.lax.map(of_task, parts)


def count_table(family: ConjugateFamily, horizon: int) -> CountTable:
    """Enumerate the counts of an episode of `horizon` decisions.

    No decision follows the last outcome, so sums go up to `horizon - 1`.
    """
    kinds = range(family.counts)
    vectors = [
        np.bincount(chosen, minlength=family.counts)
        for moves in range(horizon)
        for chosen in combinations_with_replacement(kinds, moves)
    ]
    counts = np.asarray(vectors, np.int64).reshape(len(vectors), family.counts)
    index = {tuple(row): i for i, row in enumerate(counts.tolist())}
    states, actions = family.spaces.states, len(family.spaces.actions)
    before, action, after = np.indices((states, actions, states))
    added = family.tally(before, action, after)  # [S, A, S, C]
    distinct, which = np.unique(
        added.reshape(-1, family.counts), axis=0, return_inverse=True
    )
    moved = np.array(
        [
            [index.get(tuple(row), i) for row in (counts[i] + distinct).tolist()]
            for i in range(len(counts))
        ]
    )
    step = moved[:, which.reshape(before.shape)].astype(np.int32)
    return CountTable(counts, step)
