r"""Backward induction: exact optimal control of finite-horizon MDPs, in batches.

    V_T(s)   = 0
    Q_t(s,a) = r(s,a) + γ Σ_s' P(s'|s,a) V_{t+1}(s')
    V_t(s)   = max_a Q_t(s,a),   π_t(s) = the lowest a that attains it

Exact but for rounding, in O(T S² A) operations per task. Reference: Puterman (2005),
*Markov Decision Processes*, §4.5; the recursion of Zhang, Aghaei, Saghafian (2026).

On a CPU a large batch is worked off in chunks whose transitions stay in the cache.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.models import MDP, Scalar, batch_shape

# Transitions worked on together on a CPU, in bytes: near the fastest of those tried in
# benchmarks/backward_induction.py, and well inside one core's cache.
CPU_CHUNK_BYTES = 1 << 18


class MDPSolution(eqx.Module):
    """Optimal values and actions of every state at every stage.

    Attributes:
        q: value of an action now and optimal ones afterwards, in units of reward.
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
        """Optimal actions in states `x` at stage `t`, for N states of every task."""
        return jnp.take_along_axis(self.policy[..., t, :], x, axis=-1)


def backward_induction(mdp: MDP, *, horizon: int) -> MDPSolution:
    """Solve every MDP of the batch exactly.

    Args:
        mdp: a task or a batch of tasks; their values are not checked here, `solve` is
            the door that does.
        horizon: number of decisions T, at least 1.

    Returns:
        The solution, with the leading axes of `mdp`.

    """
    batch = batch_shape(mdp)
    states, actions = mdp.reward.shape[-2:]
    transition = mdp.transition.reshape(-1, states, actions, states)
    reward = mdp.reward.reshape(-1, states, actions)
    tasks, bytes_per_task = len(reward), transition[0].nbytes
    chunk = tasks
    if jax.default_backend() == "cpu":
        chunk = max(1, min(tasks, CPU_CHUNK_BYTES // bytes_per_task))
    q, policy, state_value = _solve_chunks(
        transition, reward, mdp.discount, horizon=horizon, chunk=chunk
    )
    state_value = state_value.reshape(*batch, horizon + 1, states)
    return MDPSolution(
        q=q.reshape(*batch, horizon, states, actions),
        policy=policy.reshape(*batch, horizon, states),
        state_value=state_value,
        value=(mdp.initial * state_value[..., 0, :]).sum(-1),
    )


@partial(jax.jit, static_argnames=("horizon", "chunk"))
def _solve_chunks(
    transition: Float[Array, "B S A S"],
    reward: Float[Array, "B S A"],
    discount: Scalar,
    *,
    horizon: int,
    chunk: int,
) -> tuple[Float[Array, "B T S A"], Int[Array, "B T S"], Float[Array, "B T+1 S"]]:
    def solve_one_chunk(
        task: tuple[Float[Array, "C S A S"], Float[Array, "C S A"]],
    ) -> tuple[Array, Array, Array]:
        p, r = task

        def backup(next_value: Array, _: None) -> tuple[Array, tuple[Array, ...]]:
            q = r + discount * jnp.einsum("csan,cn->csa", p, next_value)
            value = q.max(axis=-1)
            return value, (q, q.argmax(axis=-1).astype(jnp.int32), value)

        terminal = jnp.zeros_like(r[..., 0])
        _, stages = jax.lax.scan(backup, terminal, length=horizon, reverse=True)
        q, policy, value = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), stages)
        return q, policy, jnp.concatenate([value, terminal[:, None]], axis=1)

    tasks = len(reward)
    if tasks <= chunk:
        return solve_one_chunk((transition, reward))
    whole = tasks // chunk * chunk
    parts = jax.lax.map(
        solve_one_chunk,
        jax.tree.map(
            lambda x: x[:whole].reshape(-1, chunk, *x.shape[1:]), (transition, reward)
        ),
    )
    parts = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), parts)
    if whole == tasks:
        return parts
    rest = solve_one_chunk((transition[whole:], reward[whole:]))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), parts, rest)
