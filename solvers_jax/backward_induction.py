r"""Backward induction: solve batches of finite-horizon MDPs exactly.

    V_T(s)   = 0
    Q_t(s,a) = r(s,a) + γ Σ_s' P(s'|s,a) V_{t+1}(s')
    V_t(s)   = max_a Q_t(s,a),   π_t(s) = the lowest a that attains it

Exact up to rounding, in O(T S² A) operations per task, or O(T S A N) if the transition
lists N next states for each state and action. Reference: Puterman (2005), *Markov
Decision Processes*, §4.5; the recursion of Zhang, Aghaei, Saghafian (2026).

On a CPU, a large batch is solved in chunks whose transitions fit in the cache. If a
chunk holds many tasks, their axis comes last, so that SIMD instructions process several
tasks at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.chunks import in_chunks
from sdm.solvers_jax.methods import register_method
from sdm.tasks.admissible import masked_rewards
from sdm.tasks.host_checks import check_indices, check_stage
from sdm.tasks.models import MDP, batch_shape
from sdm.tasks.stages import at_stage, stage_lengths, stage_numbers
from sdm.tasks.transitions import (
    Transition,
    by_task,
    expectation,
    expected,
    flat,
    is_sparse,
)

# Transitions per chunk on a CPU, in bytes: near the fastest size in
# benchmarks/backward_induction.py, and well below the size of one core's cache.
CPU_CHUNK_BYTES = 1 << 17
# Smallest chunk with the axis of tasks last; vector registers hold 4 or 8 numbers.
CPU_LANES = 8


class MDPSolution(eqx.Module):
    """Optimal values and actions of every state at every stage.

    Attributes:
        q: optimal action values Q_t(s, a), in units of reward; -inf where the action is
            not admissible.
        policy: an optimal action; ties go to the lowest index.
        state_value: value to go of each state; stage T, the last, is zero.
        value: expected discounted return from the initial distribution.

    """

    q: Float[Array, "*B T S A"]
    policy: Int[Array, "*B T S"]
    state_value: Float[Array, "*B T+1 S"]
    value: Float[Array, "*B"]

    @property
    def lower(self) -> Float[Array, "*B"]:
        """Certified lower bound on the optimal value: the value itself."""
        return self.value

    @property
    def upper(self) -> Float[Array, "*B"]:
        """Certified upper bound on the optimal value: the value itself."""
        return self.value

    def action(
        self, t: int | Int[Array, ""], x: Int[Array, "*B N"]
    ) -> Int[Array, "*B N"]:
        """Return the optimal actions at stage `t` for N states `x` of every task.

        Raises:
            ValueError: if `t` is not a stage or an entry of `x` not a state, unless JAX
                traces them.

        """
        check_stage(t, self.policy.shape[-2])
        check_indices("x", x, self.policy.shape[-1], "states")
        return jnp.take_along_axis(self.policy[..., t, :], jnp.asarray(x), axis=-1)


def backward_induction(mdp: MDP, *, horizon: int) -> MDPSolution:
    """Solve every MDP of the batch exactly.

    Args:
        mdp: a task or a batch of tasks; validated by `solve`.
        horizon: number of decisions T, at least 1.

    Returns:
        The solution, with the leading axes of `mdp`.

    """
    batch = batch_shape(mdp)
    states, actions = mdp.reward.shape[-2:]
    reward = masked_rewards(mdp)
    task = MDP(
        flat(mdp.transition, len(batch)),
        reward.reshape(-1, *reward.shape[len(batch) :]),
        jnp.reshape(mdp.initial, (-1, states)),
        mdp.discount,
    )
    chunk, tasks_last = max(1, len(task.reward)), False
    if jax.default_backend() == "cpu":
        stages = stage_lengths(task).get("transition", 1)
        size = task.transition.nbytes // max(1, len(task.reward) * stages)
        fit = max(1, CPU_CHUNK_BYTES // size)
        tasks_last = fit >= CPU_LANES and not is_sparse(task.transition)
        chunk = _chunk(chunk, fit)
    q, policy, state_value = _solve_chunks(
        task, horizon=horizon, chunk=chunk, tasks_last=tasks_last
    )
    state_value = state_value.reshape(*batch, horizon + 1, states)
    return MDPSolution(
        q=q.reshape(*batch, horizon, states, actions),
        policy=policy.reshape(*batch, horizon, states),
        state_value=state_value,
        value=(mdp.initial * state_value[..., 0, :]).sum(-1),
    )


def _chunk(tasks: int, fit: int) -> int:
    """Return the tasks per chunk: `fit`, or fewer if that divides the batch evenly."""
    if tasks <= fit:
        return tasks
    return next((n for n in range(fit, fit // 2, -1) if tasks % n == 0), fit)


Stages = tuple[Float[Array, "*C T S A"], Int[Array, "*C T S"], Float[Array, "*C T+1 S"]]


@partial(jax.jit, static_argnames=("horizon", "chunk", "tasks_last"))
def _solve_chunks(mdp: MDP, *, horizon: int, chunk: int, tasks_last: bool) -> Stages:
    recursion: Callable[..., Stages] = _tasks_last if tasks_last else _tasks_first
    arrays, rebuild = by_task(mdp.transition)

    def task(part: tuple[Any, Array, Array]) -> MDP:
        return MDP(rebuild(part[0]), part[1], part[2], mdp.discount)

    def solve_one_chunk(part: tuple[Any, Array, Array]) -> Stages:
        return recursion(task(part), horizon)

    def solve_one(part: tuple[Any, Array, Array]) -> Stages:
        # XLA reads listed states slowly if there is an axis of tasks, even of size 1.
        alone = task(jax.tree.map(lambda x: x[0], part))
        return jax.tree.map(lambda x: x[None], _recursion(alone, expectation, horizon))

    listed = chunk == 1 and is_sparse(mdp.transition)
    work = solve_one if listed else solve_one_chunk
    stages: Stages = in_chunks(work, (arrays, mdp.reward, mdp.initial), chunk)
    return stages


def _tasks_first(mdp: MDP, horizon: int) -> Stages:
    """Run the recursion with one matrix-vector product per task."""
    return _recursion(mdp, lambda p: partial(expected, p), horizon)


def _recursion(
    mdp: MDP, mean: Callable[[Transition], Callable[[Array], Array]], horizon: int
) -> Stages:
    """Run the recursion.

    Args:
        mdp: tasks with one leading axis, or one task.
        mean: function of a transition law that returns what maps values to the expected
            values of next states.
        horizon: number of decisions T.

    """
    steady = None if "transition" in stage_lengths(mdp) else mean(mdp.transition)

    def backup(next_value: Array, t: Array) -> tuple[Array, tuple[Array, ...]]:
        now = at_stage(mdp, t)
        ahead = mean(now.transition) if steady is None else steady
        q = now.reward + mdp.discount * ahead(next_value)
        value = q.max(axis=-1)
        return value, (q, q.argmax(axis=-1).astype(jnp.int32), value)

    terminal, numbers = jnp.zeros_like(mdp.initial), stage_numbers(horizon)
    tasks = terminal.ndim - 1
    _, stages = jax.lax.scan(backup, terminal, numbers, reverse=True)
    q, policy, value = jax.tree.map(lambda x: jnp.moveaxis(x, 0, tasks), stages)
    terminal = jnp.expand_dims(terminal, tasks)
    return q, policy, jnp.concatenate([value, terminal], axis=tasks)


def _tasks_last(mdp: MDP, horizon: int) -> Stages:
    """Run the recursion with explicit sums, each for all tasks of the chunk."""
    lengths = stage_lengths(mdp)

    def turned(name: str) -> Callable[[Array], Array]:
        """Return a function of the stage: an array with the axis of tasks last."""
        x = getattr(mdp, name).T
        if name not in lengths:
            return lambda t: x
        by_stage = jnp.moveaxis(x, -2, 0)
        return lambda t: by_stage[t]

    move, pay = turned("transition"), turned("reward")

    def backup(next_value: Array, t: Array) -> tuple[Array, tuple[Array, ...]]:
        moves, paid = move(t), pay(t)
        future = moves[0] * next_value[0][None, None]
        for n in range(1, len(moves)):
            future = future + moves[n] * next_value[n][None, None]
        q = paid + mdp.discount * future  # [A, S, C]
        value, policy = q[0], jnp.zeros(q.shape[1:], jnp.int32)
        for a in range(1, len(q)):
            better = q[a] > value  # strict, so that ties go to the lowest action
            value = jnp.where(better, q[a], value)
            policy = jnp.where(better, a, policy)
        return value, (q, policy, value)

    terminal, numbers = jnp.zeros_like(mdp.initial).T, stage_numbers(horizon)
    _, (q, policy, value) = jax.lax.scan(backup, terminal, numbers, reverse=True)
    value = jnp.concatenate([value, terminal[None]])
    return (
        jnp.transpose(q, (3, 0, 2, 1)),
        jnp.transpose(policy, (2, 0, 1)),
        jnp.transpose(value, (2, 0, 1)),
    )


def optimal_action(
    solution: MDPSolution, observation: Int[Array, "B N T"]
) -> Int[Array, "B N T"]:
    """Return the oracle's action in every state of a batch of trajectories."""
    stage = jnp.arange(observation.shape[-1])
    task = jnp.arange(observation.shape[0])[:, None, None]
    return solution.policy[task, stage, observation]


@register_method(default=True)
@dataclass(frozen=True)
class BackwardInduction:
    """Exact backward induction over states and stages."""

    name: ClassVar[str] = "backward-induction"
    handles: ClassVar[tuple[type, ...]] = (MDP,)
    by_stage: ClassVar[bool] = True

    def solve(self, model: MDP, *, horizon: int) -> MDPSolution:
        """Solve every MDP of the batch; JAX can trace it."""
        return backward_induction(model, horizon=horizon)
