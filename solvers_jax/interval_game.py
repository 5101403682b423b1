r"""One decision against nature at beliefs of an `IntervalPOMDP`, for one task.

After a decision (b, a), nature chooses p(s', o | s, a) in a convex set for every hidden
state s (`interval_sets`); then the agent sees o and follows a plan (Osogami, 2015,
*Robust partially observable Markov decision process*, ICML):

    H(b,a) = b·r_a + γ min_p Σ_o max_α Σ_{s'} b_p(o,s') α(s'),
    b_p(o,s') = Σ_s b(s) p(s', o | s, a)

The set of p is convex, and so the minimax theorem gives H as a maximum over mixtures of
assignments o → α. Against a mixture, nature replies separately for every s, by sorting;
the result is an α-vector

    α'(s) = r(s,a) + γ min_p Σ p(s', o | s, a) Σ_i x_i α_i(o)(s'),

a lower bound at every belief, which the agent attains by drawing i before it sees o.
Every p gives an upper bound. Both are improved by the double-oracle method (McMahan,
Gordon, Blum, 2003): each player adds its best reply to the optimal mixture of the
replies so far, until the bounds meet.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.interval_sets import Sets
from sdm.solvers_jax.matrix_game import matrix_game


class Decision(NamedTuple):
    """Every action at N beliefs, with plans from L vectors of the next stage.

    Attributes:
        lower: value of the plan against nature.
        vector: its α-vector.
        weight: probability of each of R assignments of vectors to symbols.
        after: the assignments.
        upper: upper bound on the value of the best plan from these vectors.
        reached: next states and symbols under nature's strategy of `upper`.

    """

    lower: Float[Array, "N A"]
    vector: Float[Array, "N A S"]
    weight: Float[Array, "N A R"]
    after: Int[Array, "R N A O"]
    upper: Float[Array, "N A"]
    reached: Float[Array, "N A O S"]


class _Search(NamedTuple):
    """State of the double-oracle method: replies so far, and the best bounds."""

    gain: Float[Array, "R N A O S"]
    chance: Float[Array, "R N A O S"]
    payoff: Float[Array, "N A R R"]
    best: Decision
    held: Int[Array, ""]


def decide(
    sets: Sets,
    belief: Float[Array, "N S"],
    vectors: Float[Array, "L S"],
    *,
    replies: int,
    tolerance: float,
) -> Decision:
    """Solve the game of every action at every belief.

    Args:
        sets: the task.
        belief: beliefs before the decision.
        vectors: α-vectors of the next stage.
        replies: largest number of replies of each player.
        tolerance: difference of the bounds at which to stop.

    """

    def unfinished(now: _Search) -> Array:
        best = now.best
        matters = best.upper > best.lower.max(-1, keepdims=True)
        apart = (best.upper - best.lower > tolerance) & matters
        return (now.held <= replies) & (apart.any() | (now.held == 1))

    def step(now: _Search) -> _Search:
        return _add_replies(sets, belief, vectors, now)

    start = _first_replies(sets, belief, vectors, replies)
    return jax.lax.while_loop(unfinished, step, start).best


def _play(
    vectors: Float[Array, "L S"], chance: Float[Array, "N A O S"]
) -> tuple[Int[Array, "N A O"], Float[Array, "N A"]]:
    """Return the agent's best plan after each symbol, and the value of all."""
    score = chance @ vectors.T
    return score.argmax(-1).astype(jnp.int32), score.max(-1).sum(-1)


def _first_replies(sets: Sets, belief: Array, vectors: Array, replies: int) -> _Search:
    """Return the search with nature in the middle of its sets, and the reply to it."""
    first = sets.middle(belief)
    plan, value = _play(vectors, first)
    kind, (count, actions, _, states) = first.dtype, first.shape
    pair = (count, actions)
    best = Decision(
        lower=jnp.full(pair, -jnp.inf, kind),
        vector=jnp.zeros((*pair, states), kind),
        weight=jnp.zeros((*pair, replies), kind),
        after=jnp.zeros((replies, *plan.shape), jnp.int32).at[0].set(plan),
        upper=belief @ sets.reward + sets.discount * value,
        reached=first,
    )
    empty = jnp.zeros((replies, *first.shape), kind)
    payoff = jnp.zeros((*pair, replies, replies), kind).at[..., 0, 0].set(value)
    gain, chance = empty.at[0].set(vectors[plan]), empty.at[0].set(first)
    return _Search(gain, chance, payoff, best, jnp.int32(1))


def _add_replies(sets: Sets, belief: Array, vectors: Array, now: _Search) -> _Search:
    """Add each player's reply to the optimal mixture of the other's replies."""
    known = jnp.arange(now.payoff.shape[-1], dtype=jnp.int32) < now.held
    game = jax.vmap(jax.vmap(matrix_game, (0, None, None)), (0, None, None))
    agent, nature = game(now.payoff, known, known)
    # Nature replies to the mixture of plans: its value is a lower bound.
    mixed = jnp.einsum("nar,rnaos->naos", agent, now.gain)
    chance, future = sets.reply(belief, mixed)
    vector = sets.reward.T[None] + sets.discount * future
    lower = jnp.einsum("ns,nas->na", belief, vector)
    # The agent replies to the mixture of nature's rows: its value is an upper bound.
    reached = jnp.einsum("nar,rnaos->naos", nature, now.chance)
    plan, value = _play(vectors, reached)
    upper = belief @ sets.reward + sets.discount * value
    gain = vectors[plan]
    gains = now.gain.at[now.held].set(gain, mode="drop")
    chances = now.chance.at[now.held].set(chance, mode="drop")
    column = jnp.einsum("rnaos,naos->nar", gains, chance)
    row = jnp.einsum("naos,rnaos->nar", gain, chances)
    payoff = now.payoff.at[..., now.held].set(column, mode="drop")
    payoff = payoff.at[..., now.held, :].set(row, mode="drop")
    best, raised, cut = now.best, lower > now.best.lower, upper < now.best.upper
    found = Decision(
        lower=jnp.where(raised, lower, best.lower),
        vector=jnp.where(raised[..., None], vector, best.vector),
        weight=jnp.where(raised[..., None], agent, best.weight),
        after=best.after.at[now.held].set(plan, mode="drop"),
        upper=jnp.where(cut, upper, best.upper),
        reached=jnp.where(cut[..., None, None], reached, best.reached),
    )
    return _Search(gains, chances, payoff, found, now.held + 1)
