r"""Baum–Welch with inputs: hidden-state models of actions and observations, in JAX.

A hidden state s_t and an action a_t lead to s_{t+1}, which shows o_{t+1}:

    P(s_0) b_0(o_0 | s_0) Π_t P(s_{t+1} | s_t, a_t) Z(o_{t+1} | s_{t+1}, a_t).

Actions are inputs: the behavior policy, which sees what the log has, cancels. Each
iteration computes expected counts by the forward–backward recursion (Rabiner, 1989, *A
tutorial on hidden Markov models*) and divides them by their sums, so that the
likelihood never decreases (Dempster, Laird, Rubin, 1977; Bengio, Frasconi, 1995, *An
input output HMM architecture*). A probability of 0 stays 0, which is how structure is
imposed.

Costs: O(N T S²) per iteration for N episodes; restarts are a leading axis. Episodes are
processed in blocks, so that memory holds the joint probabilities of one block.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

BLOCK = 1 << 21  # joint probabilities of two states in memory, of each restart


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


class _Passed(NamedTuple):
    """Forward pass: filtered states and the factors of the likelihood.

    Attributes:
        shown: probability of the symbol after each decision, in each state; 1 for none.
        filtered: P(s_t | o_0, …, o_t), for t = 0, …, T.
        factor: P(o_t | o_0, …, o_{t-1}), for t = 0, …, T.

    """

    shown: Float[Array, "T N S"]
    filtered: Float[Array, "T1 N S"]
    factor: Float[Array, "T1 N"]


def _present(chance: Float[Array, "*B S"], symbol: Int[Array, "*B"]) -> Array:
    """Return the probability of a symbol in each state; 1 if there is no symbol."""
    return jnp.where(symbol[..., None] >= 0, chance, jnp.ones_like(chance))


def _by_stage(episodes: Sequences) -> tuple[Array, Array, Array]:
    """Return actions, symbols and moves with stages on the first axis."""
    return episodes.action.T, episodes.symbol.T, episodes.moves.T


def _divided(weight: Float[Array, "N S"]) -> tuple[Array, Array]:
    total = weight.sum(-1)
    return weight / jnp.where(total > 0, total, jnp.ones_like(total))[:, None], total


def _forward(model: HiddenModel, episodes: Sequences) -> _Passed:
    action, symbol, moves = _by_stage(episodes)
    opening = model.first.T[jnp.maximum(episodes.first, 0)]
    start, factor = _divided(model.initial[None] * _present(opening, episodes.first))
    table = jnp.moveaxis(model.observation, -1, 1)
    shown = _present(table[action, jnp.maximum(symbol, 0)], symbol)

    def step(before: Array, now: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        action, shows, moves = now
        reached = jnp.einsum("ns,nsm->nm", before, model.transition[action])
        after, own = _divided(reached * shows)
        after = jnp.where(moves[:, None], after, before)
        return after, (after, jnp.where(moves, own, jnp.ones_like(own)))

    _, (later, factors) = jax.lax.scan(step, start, (action, shown, moves))
    return _Passed(
        shown,
        jnp.concatenate([start[None], later]),
        jnp.concatenate([factor[None], factors]),
    )


def _expected_of_block(model: HiddenModel, episodes: Sequences) -> Expected:
    """Return the log likelihood and the expected counts of some episodes."""
    passed = _forward(model, episodes)
    action, symbol, moves = _by_stage(episodes)
    weight = episodes.weight

    def step(ahead: Array, now: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        """Go back over a decision; `ahead` is β of the state after it."""
        action, shows, moves, before, own = now
        scaled = shows * ahead / jnp.where(own > 0, own, jnp.ones_like(own))[:, None]
        through = model.transition[action] * scaled[:, None]
        joint = before[:, :, None] * through
        joint = jnp.where(moves[:, None, None], joint, jnp.zeros_like(joint))
        behind = jnp.where(moves[:, None], through.sum(-1), ahead)
        return behind, (joint, before * behind)

    before, own = passed.filtered[:-1], passed.factor[1:]
    ones = jnp.ones_like(passed.filtered[0])
    inputs = (action, passed.shown, moves, before, own)
    _, (joint, states) = jax.lax.scan(step, ones, inputs, reverse=True)
    joint, states = (
        x * weight.reshape(-1, *[1] * (x.ndim - 2))[None] for x in (joint, states)
    )
    actions, _, symbols = model.observation.shape
    chosen = jax.nn.one_hot(action, actions, dtype=weight.dtype)  # [T, N, A]
    decided = chosen * episodes.decides.T[..., None].astype(weight.dtype)
    visible = (symbol >= 0)[..., None]
    arrived = jnp.where(visible, joint.sum(2), jnp.zeros_like(states))
    place = action * symbols + jnp.maximum(symbol, 0)
    seen = jax.ops.segment_sum(
        arrived.reshape(-1, arrived.shape[-1]), place.reshape(-1), actions * symbols
    ).reshape(actions, symbols, -1)
    start = states[0]
    opened = jnp.where(episodes.first[:, None] >= 0, start, jnp.zeros_like(start))
    first = jax.ops.segment_sum(opened, jnp.maximum(episodes.first, 0), symbols)
    return Expected(
        log_likelihood=(jnp.log(passed.factor) @ weight).sum(),
        counts=HiddenModel(
            initial=start.sum(0),
            first=first.T,
            transition=jnp.einsum("tna,tnsm->asm", chosen, joint),
            observation=jnp.swapaxes(seen, 1, 2),
        ),
        visits=jnp.einsum("tna,tns->as", decided, states),
        paid=jnp.einsum("tna,tn,tns->as", decided, episodes.reward.T, states),
    )


def expected_counts(model: HiddenModel, episodes: Sequences) -> Expected:
    """Return the log likelihood and the expected counts of all episodes."""
    many, stages = episodes.action.shape
    size = max(1, min(many, BLOCK // (max(1, stages) * len(model.initial) ** 2)))
    blocks = -(-many // size)

    def padded(x: Array, blank: float | int) -> Array:
        width = ((0, blocks * size - many), *[(0, 0)] * (x.ndim - 1))
        wide = jnp.pad(x, width, constant_values=blank)
        return wide.reshape(blocks, size, *x.shape[1:])

    blanks: tuple[Any, ...] = (-1, 0, -1, 0.0, False, False, 0.0)
    parts = Sequences(*(padded(x, b) for x, b in zip(episodes, blanks, strict=True)))

    def add(total: Expected, part: Sequences) -> tuple[Expected, None]:
        return jax.tree.map(jnp.add, total, _expected_of_block(model, part)), None

    one = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(_expected_of_block, model, one)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zero, parts)[0]


@eqx.filter_jit
def log_factors(model: HiddenModel, episodes: Sequences) -> Float[Array, "N T1"]:
    """Return the log probability of each symbol given those before it, in nats.

    The first symbol is the one before the first decision. Without a symbol, it is 0.
    """
    return jnp.log(_forward(model, episodes).factor).T


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
