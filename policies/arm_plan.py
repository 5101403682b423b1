r"""The Bayes-optimal plan of Bernoulli bandits, over numbers of successes and failures.

What the agent has seen before round t is summarised by the counts n = (won, lost) of
the K arms, 2K numbers whose sum is t. With p_a(n) the probability that arm a pays 1
given n under the distribution of tasks,

    V_t(n) = max_a [ p_a(n) (1 + V_{t+1}(n + e_a^won))
                     + (1 - p_a(n)) V_{t+1}(n + e_a^lost) ],    V_T = 0.

No policy that learns from its own rewards has a higher mean return over tasks (Bellman,
1956; Gittins, 1979, for the discounted problem without end).

The counts with sum t are numbered by the combinatorial number system: the first 2K - 1
of them, with prefix sums c_i, are the sets {c_i + i - 1} of 2K - 1 numbers below
t + 2K - 1, and the number is Σ_i binom(c_i + i - 1, i). It does not depend on t.

Cost: binom(T + 2K - 1, 2K) bytes of the plan, and operations in proportion to K² times
that number.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.tasks.arms_family import ArmsFamily
from sdm.tasks.models import Model

MOST_ENTRIES = 1 << 25  # of a plan, one byte each; for K = 3, 25 s and 1.2 GB


class Plan(eqx.Module):
    """A plan for the counts of every round.

    Attributes:
        action: arm for each counts of each round, one round after the other.
        first: index of each round's first entry.
        binomial: binom(p, i) by p and i.
        value: expected return over the distribution of tasks.

    """

    action: Int[Array, " E"]
    first: Int[Array, " T"]
    binomial: Int[Array, "P C"]
    value: float


def entries(arms: int, horizon: int) -> int:
    """Return the number of entries of a plan."""
    return math.comb(horizon + 2 * arms - 1, 2 * arms)


def check_small(arms: int, horizon: int) -> None:
    """Raise `ValueError` if a plan is too large."""
    needed = entries(arms, horizon)
    if needed > MOST_ENTRIES:
        raise ValueError(
            f"policy `bayes-optimal`: a plan must have at most {MOST_ENTRIES:.2g} "
            f"entries, found {needed:.2g} for {arms} arms and {horizon} rounds: lower "
            "`--horizon` or `--arms`"
        )


def binomials(arms: int, horizon: int) -> Int[np.ndarray, "P C"]:
    """Return binom(p, i) for p < T + 2K and i < 2K, by Pascal's rule."""
    rows, columns = horizon + 2 * arms, 2 * arms
    table = np.zeros((rows, columns), np.int64)
    table[:, 0] = 1
    for p in range(1, rows):
        table[p, 1:] = table[p - 1, 1:] + table[p - 1, :-1]
    return table


def number_of(
    counts: Int[np.ndarray, "N D"], table: Int[np.ndarray, "P C"]
) -> Int[np.ndarray, " N"]:
    """Return the number of counts, given all but the last."""
    i = np.arange(1, counts.shape[-1] + 1)
    return np.asarray(table[np.cumsum(counts, -1) + i - 1, i].sum(-1))


def all_counts(arms: int, most: int) -> Int[np.ndarray, "N D"]:
    """Return all but the last of the counts whose sum is at most `most`, by number."""
    rows = np.zeros((1, 0), np.int16)
    for _ in range(2 * arms - 1):
        room = most - rows.sum(-1) + 1
        before = np.repeat(np.cumsum(room) - room, room)
        new = np.arange(room.sum()) - before
        rows = np.column_stack([np.repeat(rows, room, axis=0), new.astype(np.int16)])
    order = np.argsort(number_of(rows, binomials(arms, most)), kind="stable")
    return rows[order]


def arm_plan(family: ArmsFamily, horizon: int) -> Plan:
    """Return the plan for a family's distribution of tasks.

    Raises:
        ValueError: if the plan is too large.

    """
    check_small(family.arms, horizon)
    arms, table = family.arms, binomials(family.arms, horizon)
    known, plan = all_counts(arms, horizon - 1), []
    value = np.zeros(math.comb(horizon + 2 * arms - 1, 2 * arms - 1))
    for t in reversed(range(horizon)):
        here = known[: math.comb(t + 2 * arms - 1, 2 * arms - 1)].astype(np.int64)
        counts = np.column_stack([here, t - here.sum(-1)])
        chance = family.predictive(counts[:, :arms], counts[:, arms:])
        place = number_of(here, table)
        q = np.empty((len(here), arms))
        for arm in range(arms):
            won, lost = (_after(here, place, j, table) for j in (arm, arms + arm))
            p = chance[:, arm]
            q[:, arm] = p * (1 + value[won]) + (1 - p) * value[lost]
        plan.append(q.argmax(-1).astype(np.int8))
        value = q.max(-1)
    plan.reverse()
    first = np.cumsum([0, *(len(x) for x in plan[:-1])])
    return Plan(
        jnp.asarray(np.concatenate(plan)),
        jnp.asarray(first, jnp.int32),
        jnp.asarray(table, jnp.int32),
        float(value[0]),
    )


def _after(
    counts: Int[np.ndarray, "N D"],
    place: Int[np.ndarray, " N"],
    j: int,
    table: Int[np.ndarray, "P C"],
) -> Int[np.ndarray, " N"]:
    """Return the numbers of counts after one more of entry j.

    By Pascal's rule, each term from the j-th grows by binom(c_i + i - 1, i - 1).
    """
    i = np.arange(1, counts.shape[-1] + 1)
    growth = table[np.cumsum(counts, -1) + i - 1, i - 1]
    return np.asarray(place + growth[:, j:].sum(-1))


class Counts(eqx.Module):
    """Memory of an episode: successes and failures of each arm, and the last arm."""

    counts: Int[Array, "B N C"]
    action: Int[Array, "B N"]


class PlannedArms(eqx.Module):
    """The policy that follows a plan.

    Attributes:
        plan: the plan.
        arms: number of arms.

    """

    plan: Plan
    arms: int = eqx.field(static=True)

    def init(self, model: Model) -> None:
        """Return None; the first decision makes the memory, for N episodes."""

    def act(
        self,
        memory: Counts | None,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], Counts]:
        """Count the last reward, and look the arm up."""
        if memory is None:
            counts = jnp.zeros((*observation.shape, 2 * self.arms), jnp.int32)
        else:
            entry = memory.action + jnp.where(reward > 0.5, 0, self.arms)
            own = jax.nn.one_hot(entry, 2 * self.arms, dtype=jnp.int32)
            counts = memory.counts + own
        i = jnp.arange(1, 2 * self.arms, dtype=jnp.int32)
        sums = jnp.cumsum(counts[..., :-1], axis=-1)
        shift = (i - 1).reshape(1, 1, -1)
        terms = self.plan.binomial[sums + shift, i.reshape(1, 1, -1)]
        place = terms.sum(-1, dtype=jnp.int32)
        action = self.plan.action[self.plan.first[t] + place].astype(jnp.int32)
        return action, Counts(counts, action)

    def follow(self, memory: Counts, action: Int[Array, "B N"]) -> Counts:
        """Return the memory if the last decision had been `action`."""
        return Counts(memory.counts, action)
