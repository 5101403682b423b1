r"""Nature's problem in a Kullback–Leibler ball: a root in one dimension, to rounding.

    min { Σ p v : Σ p log(p/q) ≤ ρ }  =  max_θ>0  -(ψ(θ) + ρ)/θ,
    ψ(θ) = log Σ q e^(-θv)

The minimiser is the tilted row p_θ ∝ q e^(-θv) whose divergence is ρ; the divergence
increases with θ, up to -log q(outcomes of the smallest value), from which on all mass
is on those outcomes (Iyengar, 2005; Nilim, El Ghaoui, 2005).

The mean of p_θ exceeds the dual value by exactly (ρ - KL(p_θ))/θ. Newton's method on
the square root of the divergence, which is nearly linear in θ, runs within a bracket
until that gap is rounding. The divergence is summed as Σ q (x eˣ - eˣ + 1) with
x = log(p_θ/q), whose terms are not negative, so that small radii lose no digits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

STEPS = 200  # far above the number that the bracket needs
GROWTH = 16.0  # largest factor of θ per step while it has no upper end
GAP_IN_UNITS = 4  # duality gap at which to stop, in units of rounding of the range


class _Tilted(NamedTuple):
    """Rows p_θ, with their divergence from q, and mean and variance of v."""

    row: Float[Array, "*B N"]
    divergence: Float[Array, "*B"]
    mean: Float[Array, "*B"]
    variance: Float[Array, "*B"]


class _Search(NamedTuple):
    """State of the search for θ, in the bracket from `low` to `high`."""

    theta: Float[Array, "*B"]
    low: Float[Array, "*B"]
    high: Float[Array, "*B"]
    done: Bool[Array, "*B"]
    step: Array


def kl_rows(
    value: Float[Array, "*#B N"],
    nominal: Float[Array, "*B N"],
    radius: Float[Array, "*B"],
) -> Float[Array, "*B N"]:
    """Return the rows with the smallest mean within a KL divergence of `nominal`.

    Args:
        value: v, of each outcome.
        nominal: q; outcomes of probability 0 keep it.
        radius: ρ in nats; 0 returns `nominal`, infinity all mass on the outcomes of
            the smallest value among those of positive probability.

    """
    possible = nominal > 0
    total = nominal.sum(-1, keepdims=True)
    q = nominal / total
    smallest = jnp.where(possible, value, jnp.inf).min(-1, keepdims=True)
    above = jnp.where(possible, value - smallest, 0)
    span = above.max(-1, keepdims=True)
    v = above / jnp.where(span > 0, span, 1)
    worst = jnp.where(possible & (v == 0), q, 0)
    mass = worst.sum(-1, keepdims=True)
    inside = (radius > 0) & (radius < -jnp.log(mass[..., 0]))
    theta = _search(v, q, jnp.where(inside, radius, 0), ~inside)
    tilted = _tilt(v, q, theta).row
    row = jnp.where(inside[..., None], tilted, worst / mass)
    return jnp.where((radius > 0)[..., None], row * total, nominal)


def _tilt(
    v: Float[Array, "*B N"], q: Float[Array, "*B N"], theta: Float[Array, "*B"]
) -> _Tilted:
    exponent = -theta[..., None] * v
    normaliser = (q * jnp.exp(exponent)).sum(-1, keepdims=True)
    x = jnp.where(q > 0, exponent - jnp.log(normaliser), 0)
    ratio = jnp.exp(x)
    row = q * ratio
    mean = (row * v).sum(-1)
    variance = (row * (v - mean[..., None]) ** 2).sum(-1)
    divergence = (q * (x * ratio - jnp.expm1(x))).sum(-1)
    return _Tilted(row, divergence, mean, variance)


def _search(
    v: Float[Array, "*B N"],
    q: Float[Array, "*B N"],
    radius: Float[Array, "*B"],
    skip: Bool[Array, "*B"],
) -> Float[Array, "*B"]:
    """Return the θ at which p_θ has the divergence `radius`; v has range 1."""
    small = GAP_IN_UNITS * jnp.finfo(q.dtype).eps
    start = _tilt(v, q, jnp.zeros_like(radius))
    some = jnp.where(skip, 1, start.mean)
    spread = jnp.where(skip, 1, start.variance)
    # The dual value lies between the smallest v, 0, and the mean: θ ≥ ρ / mean.
    low = radius / some
    theta = jnp.maximum(low, jnp.sqrt(2 * radius / spread))

    def step(now: _Search) -> _Search:
        found = _tilt(v, q, now.theta)
        short = radius - found.divergence
        done = now.done | (jnp.abs(short) <= small * now.theta)
        low = jnp.where(short > 0, now.theta, now.low)
        high = jnp.where(short > 0, now.high, now.theta)
        root = jnp.sqrt(2 * found.divergence)
        slope = now.theta * found.variance
        newton = now.theta + (jnp.sqrt(2 * radius) - root) * root / slope
        between = jnp.where(
            jnp.isfinite(high),
            jnp.sqrt(low) * jnp.sqrt(high),
            GROWTH * now.theta,
        )
        newton = jnp.minimum(newton, GROWTH * now.theta)
        good = (newton > low) & (newton < high)
        theta = jnp.where(good, newton, between)
        return _Search(jnp.where(done, now.theta, theta), low, high, done, now.step + 1)

    def unfinished(now: _Search) -> Array:
        return ~now.done.all() & (now.step < STEPS)

    begin = _Search(theta, low, jnp.full_like(theta, jnp.inf), skip, jnp.int32(0))
    return jax.lax.while_loop(unfinished, step, begin).theta
