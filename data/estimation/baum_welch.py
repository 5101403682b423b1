r"""Baum–Welch with inputs: hidden-state models of actions and observations, in JAX.

A hidden state s_t and an action a_t lead to s_{t+1}, which shows o_{t+1}:

    P(s_0) b_0(o_0 | s_0) Π_t P(s_{t+1} | s_t, a_t) Z(o_{t+1} | s_{t+1}, a_t).

Actions are inputs: the behavior policy, which sees what the log has, cancels. Each
iteration computes expected counts by the forward–backward recursion (Rabiner, 1989, *A
tutorial on hidden Markov models*) and divides them by their sums, so that the
likelihood never decreases (Dempster, Laird, Rubin, 1977; Bengio, Frasconi, 1995, *An
input output HMM architecture*). A probability of 0 stays 0, which is how structure is
imposed.

Costs: O(N T S²) per iteration for N episodes; restarts are a leading axis. Memory holds
the expected counts of `BLOCK` episodes at a time.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

BLOCK = 64  # episodes whose expected counts are in memory at a time


class Sequences(NamedTuple):
    """Episodes, padded to the longest.

    Attributes:
        first: symbol before the first decision; -1 for none.
        action: action of each decision.
        symbol: symbol after each decision; -1 for none.
        reward: reward of each decision.
        decides: whether the decision happened.
        moves: whether it happened and its next state counts.
        weight: number of times that an episode counts.

    """

    first: Int[Array, " N"]
    action: Int[Array, "N T"]
    symbol: Int[Array, "N T"]
    reward: Float[Array, "N T"]
    decides: Bool[Array, "N T"]
    moves: Bool[Array, "N T"]
    weight: Float[Array, " N"]


class HiddenModel(eqx.Module):
    """Probabilities of a hidden-state model.

    Attributes:
        initial: P(s_0).
        first: b_0(o | s_0), before the first decision.
        transition: P(s' | s, a).
        observation: Z(o | s', a).

    """

    initial: Float[Array, "*B S"]
    first: Float[Array, "*B S O"]
    transition: Float[Array, "*B A S S"]
    observation: Float[Array, "*B A S O"]


class Expected(NamedTuple):
    """Log likelihood and expected counts.

    Attributes:
        log_likelihood: of all episodes, in nats.
        counts: expected counts, in the shapes of the probabilities.
        visits: expected decisions in each state with each action.
        paid: expected sum of their rewards.

    """

    log_likelihood: Float[Array, ""]
    counts: HiddenModel
    visits: Float[Array, "A S"]
    paid: Float[Array, "A S"]


def _shown(rows: Float[Array, "*B O"], symbol: Int[Array, ""]) -> Float[Array, "*B"]:
    """Return the probability of a symbol in each row; 1 if there is none."""
    chance = rows[..., jnp.maximum(symbol, 0)]
    return jnp.where(symbol >= 0, chance, jnp.ones_like(chance))


class _Passed(NamedTuple):
    """Forward pass of one episode: filtered states and the factors of its likelihood.

    Attributes:
        filtered: P(s_t | o_0, …, o_t), for t = 0, …, T.
        factor: P(o_t | o_0, …, o_{t-1}), for t = 0, …, T.

    """

    filtered: Float[Array, "T1 S"]
    factor: Float[Array, " T1"]


def _divided(weight: Float[Array, " S"]) -> tuple[Array, Array]:
    total = weight.sum()
    return weight / jnp.where(total > 0, total, jnp.ones_like(total)), total


def _forward(model: HiddenModel, episode: Sequences) -> _Passed:
    start, factor = _divided(model.initial * _shown(model.first, episode.first))

    def step(before: Array, now: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        action, symbol, moves = now
        shown = _shown(model.observation[action], symbol)
        after, own = _divided((before @ model.transition[action]) * shown)
        after = jnp.where(moves, after, before)
        return after, (after, jnp.where(moves, own, jnp.ones_like(own)))

    inputs = (episode.action, episode.symbol, episode.moves)
    _, (later, factors) = jax.lax.scan(step, start, inputs)
    return _Passed(
        jnp.concatenate([start[None], later]),
        jnp.concatenate([factor[None], factors]),
    )


def _expected_of_one(model: HiddenModel, episode: Sequences) -> Expected:
    """Return the expected counts of one episode."""
    filtered, factor = _forward(model, episode)

    def step(
        carry: tuple[Array, Array, Array], now: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array, Array], Array]:
        ahead, moved, seen = carry  # ahead: β of the state after the decision
        action, symbol, moves, before, own = now
        shown = _shown(model.observation[action], symbol) * ahead
        scaled = shown / jnp.where(own > 0, own, jnp.ones_like(own))
        joint = before[:, None] * model.transition[action] * scaled[None]
        joint = jnp.where(moves, joint, jnp.zeros_like(joint))
        arrived = joint.sum(0)
        moved = moved.at[action].add(joint)
        visible = jnp.where(symbol >= 0, arrived, jnp.zeros_like(arrived))
        seen = seen.at[action, :, jnp.maximum(symbol, 0)].add(visible)
        behind = jnp.where(moves, model.transition[action] @ scaled, ahead)
        return (behind, moved, seen), before * behind

    zeros = (jnp.zeros_like(model.transition), jnp.zeros_like(model.observation))
    inputs = (episode.action, episode.symbol, episode.moves, filtered[:-1], factor[1:])
    (_, moved, seen), states = jax.lax.scan(
        step, (jnp.ones_like(model.initial), *zeros), inputs, reverse=True
    )
    here = jnp.where(episode.decides[:, None], states, jnp.zeros_like(states))
    by_action = jnp.zeros_like(model.transition[..., 0]).at[episode.action]
    start = states[0]
    visible = jnp.where(episode.first >= 0, start, jnp.zeros_like(start))
    first = jnp.zeros_like(model.first)
    first = first.at[:, jnp.maximum(episode.first, 0)].add(visible)
    found = Expected(
        jnp.log(factor).sum(),
        HiddenModel(start, first, moved, seen),
        by_action.add(here),
        by_action.add(here * episode.reward[:, None]),
    )
    return jax.tree.map(lambda x: episode.weight * x, found)


def expected_counts(model: HiddenModel, episodes: Sequences) -> Expected:
    """Return the log likelihood and the expected counts of all episodes."""
    many = len(episodes.first)
    size = min(many, BLOCK)
    blocks = -(-many // size)

    def padded(x: Array, blank: float | int) -> Array:
        width = ((0, blocks * size - many), *[(0, 0)] * (x.ndim - 1))
        wide = jnp.pad(x, width, constant_values=blank)
        return wide.reshape(blocks, size, *x.shape[1:])

    blanks: tuple[Any, ...] = (-1, 0, -1, 0.0, False, False, 0.0)
    parts = Sequences(*(padded(x, b) for x, b in zip(episodes, blanks, strict=True)))

    def add(total: Expected, part: Sequences) -> tuple[Expected, None]:
        each = jax.vmap(_expected_of_one, (None, 0))(model, part)
        return jax.tree.map(lambda x, y: x + y.sum(0), total, each), None

    one = jax.tree.map(lambda x: x[0], episodes)
    shapes = jax.eval_shape(_expected_of_one, model, one)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zero, parts)[0]


@eqx.filter_jit
def log_factors(model: HiddenModel, episodes: Sequences) -> Float[Array, "N T1"]:
    """Return the log probability of each symbol given those before it, in nats.

    The first symbol is the one before the first decision. Without a symbol, it is 0.
    """
    return jnp.log(jax.vmap(_forward, (None, 0))(model, episodes).factor)


def maximised(counts: HiddenModel, model: HiddenModel) -> HiddenModel:
    """Return the probabilities that maximise the expected log likelihood.

    A row without expected counts keeps its probabilities.
    """

    def rows(weight: Array, before: Array) -> Array:
        total = weight.sum(-1, keepdims=True)
        some = jnp.where(total > 0, total, jnp.ones_like(total))
        return jnp.where(total > 0, weight / some, before)

    return jax.tree.map(rows, counts, model)


@eqx.filter_jit
def fit(
    models: HiddenModel, episodes: Sequences, *, iterations: int, tolerance: float
) -> tuple[HiddenModel, Float[Array, " R"], Float[Array, "I R"]]:
    """Improve models by iterations of expectation and maximisation.

    Args:
        models: R models to start from, on a leading axis.
        episodes: the episodes.
        iterations: largest number of iterations.
        tolerance: relative change of the log likelihood at which a model has converged;
            iterations end when all have.

    Returns:
        The models, their log likelihoods, and the log likelihood before each iteration,
        NaN where none was needed.

    """
    restarts = models.initial.shape[0]
    dtype = models.initial.dtype

    def unfinished(carry: tuple[Array, HiddenModel, Array]) -> Array:
        done, _, path = carry
        now, before = path[done - 1], path[done - 2]
        still = jnp.abs(now - before) > tolerance * jnp.abs(now)
        return (done < iterations) & ((done < 2) | still.any())

    def iterate(
        carry: tuple[Array, HiddenModel, Array],
    ) -> tuple[Array, HiddenModel, Array]:
        done, models, path = carry

        def one(model: HiddenModel) -> tuple[HiddenModel, Array]:
            found = expected_counts(model, episodes)
            return maximised(found.counts, model), found.log_likelihood

        models, value = jax.vmap(one)(models)
        return done + 1, models, path.at[done].set(value)

    path = jnp.full((iterations, restarts), jnp.nan, dtype)
    start = (jnp.int32(0), models, path)
    _, models, path = jax.lax.while_loop(unfinished, iterate, start)
    last = jax.vmap(lambda model: log_factors(model, episodes).sum(-1))
    return models, last(models) @ episodes.weight, path
