"""Random rows of probabilities from Dirichlet distributions, quick to compile.

A row with the distribution Dirichlet(c p) has the mean p and variances
p (1 - p) / (c + 1). It is a vector of Gamma(c p) variables over their sum; logarithms
keep those with a small shape apart.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Smallest probability of a possible outcome, relative to the row's most likely one, so
# that it stays positive in single precision.
LEAST = 1e-12
TRIES = 8  # rejection-sampling attempts; all fail with a probability below 1e-10
NUMBERS = 2 * TRIES + 1  # uniform numbers that one variable needs
TINY = 1e-30  # smallest of them


def log_gamma(
    uniform: Float[Array, "U *B N"], shape: Float[Array, "*B N"]
) -> Float[Array, "*B N"]:
    """Return logarithms of Gamma variables (Marsaglia and Tsang, 2000).

    The rejection loop of `jax.random.loggamma` takes seconds to compile; this function
    makes all attempts at once. An attempt fails with a probability of at most 5 %.

    Args:
        uniform: numbers in (0, 1), with U = `NUMBERS` for each variable.
        shape: shape parameter of each variable.

    """
    d = jnp.where(shape < 1, shape + 1, shape) - 1 / 3  # the method needs shape >= 1
    x = jax.scipy.special.ndtri(uniform[:TRIES])
    v = jnp.maximum(1 + x / jnp.sqrt(9 * d)[None], 0) ** 3
    log_v = jnp.log(jnp.maximum(v, TINY))
    bound = 0.5 * x**2 + d[None] * (1 - v + log_v)
    accepted = (v > 0) & (jnp.log(uniform[TRIES:-1]) < bound)
    chosen = jnp.argmax(accepted, axis=0)[None]
    found = jnp.log(d) + jnp.take_along_axis(log_v, chosen, 0)[0]
    return found + jnp.where(shape < 1, jnp.log(uniform[-1]) / shape, 0)


def normalized(weight: Float[Array, "*B N"]) -> Float[Array, "*B N"]:
    """Return rows of probabilities from logarithms of weights.

    Args:
        weight: logarithm of each weight; -inf for impossible outcomes, which keep the
            probability 0.

    """
    least = weight.max(-1, keepdims=True) + np.log(LEAST)
    possible = ~jnp.isneginf(weight)
    return jax.nn.softmax(
        jnp.where(possible, jnp.maximum(weight, least), weight), axis=-1
    )
