r"""Decisions by in-context regression, simulated: the paper's appendix E.2.

In every task a weight vector w ~ N(0, I) is drawn and M examples (x_i, y_i) of it
shown. At each of T steps there are A candidates with features N(0, Λ); the best has the
largest Q*(a) = wᵀ φ_a, and the policy takes the largest Q̂(a) = φ_aᵀ B h, h = Σ y_i x_i
/ M.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from sdm.theory.covariances import (
    Number,
    check_at_least,
    check_covariance,
    check_discount,
)
from sdm.theory.precision import in_double_precision

MOST_EXAMPLES = 1_000_000  # M that a simulation of one task has memory for
EXAMPLES_TOGETHER = 1 << 19  # of all tasks that are worked on at once


class TaskErrors(NamedTuple):
    """What happened in each task B, for every support size M and estimator N.

    Attributes:
        gap: Σ_t γ^t (max_a Q* - Q*(taken)).
        square: mean of (Q̂ - Q*)² over all candidates.
        absolute: mean of |Q̂ - Q*| over all candidates.
        square_best: mean of (Q̂ - Q*)² at the best candidates.
        square_taken: the same at those taken.
        moments_best: means of Q̂², Q̂ Q* and Q*² at the best candidates.
        moments_taken: the same at those taken.
        absolute_best: mean of |Q̂ - Q*| at the best candidates.
        absolute_taken: the same at those taken.
        discounted: Σ_t γ^t (|Q̂ - Q*| at the best + at the one taken): no smaller than
            the gap, in every task.

    """

    gap: Float[np.ndarray, "M N B"]
    square: Float[np.ndarray, "M N B"]
    absolute: Float[np.ndarray, "M N B"]
    square_best: Float[np.ndarray, "M N B"]
    square_taken: Float[np.ndarray, "M N B"]
    moments_best: Float[np.ndarray, "M N 3 B"]
    moments_taken: Float[np.ndarray, "M N 3 B"]
    absolute_best: Float[np.ndarray, "M N B"]
    absolute_taken: Float[np.ndarray, "M N B"]
    discounted: Float[np.ndarray, "M N B"]


@in_double_precision
def simulate(
    key: Key[Array, ""],
    covariance: Float[np.ndarray, "d d"],
    estimators: Float[np.ndarray, "M N d d"],
    supports: tuple[int, ...],
    *,
    tasks: int = 1000,
    horizon: int = 20,
    actions: int = 5,
    discount: Number = 0.95,
    noise: Number = 0.0,
) -> TaskErrors:
    """Play tasks with every estimator B and every support size.

    All cells share the tasks, the candidates and the examples: M are the first M.

    Args:
        key: decides everything; task i depends on it and on i only.
        covariance: Λ of examples and candidates.
        estimators: B of each cell.
        supports: M, growing.
        tasks: number of tasks B.
        horizon: steps T of each.
        actions: candidates A at each step.
        discount: γ.
        noise: standard deviation of the examples' labels.

    Raises:
        ValueError: if one of these is out of range.

    """
    check_covariance(covariance)
    check_discount(discount)
    for name, count in (
        ("number of tasks", tasks),
        ("T", horizon),
        ("A", actions),
        *(("M", m) for m in supports),
    ):
        check_at_least(name, count, 1)
    if max(supports) > MOST_EXAMPLES:
        raise ValueError(f"M = {max(supports)}: must be {MOST_EXAMPLES} or fewer")
    together = max(1, min(tasks, EXAMPLES_TOGETHER // max(supports)))
    found = _simulate(
        jax.random.split(key, tasks),
        jnp.linalg.cholesky(jnp.asarray(covariance, jnp.float64)),
        jnp.asarray(estimators, jnp.float64),
        jnp.asarray(supports, jnp.int32),
        jnp.asarray(discount, jnp.float64),
        jnp.asarray(noise, jnp.float64),
        sizes=(max(supports), horizon, actions, together),
    )
    last = {name: np.moveaxis(np.asarray(x), 0, -1) for name, x in found.items()}
    return TaskErrors(**last)


@partial(jax.jit, static_argnames="sizes")
def _simulate(
    keys: Key[Array, " B"],
    root: Float[Array, "d d"],
    estimators: Float[Array, "M N d d"],
    supports: Array,
    discount: Float[Array, ""],
    noise: Float[Array, ""],
    *,
    sizes: tuple[int, int, int, int],
) -> dict[str, Array]:
    most, horizon, actions, together = sizes
    dim = len(root)

    def one(key: Array) -> dict[str, Array]:
        for_task, for_example, for_noise, for_step = jax.random.split(key, 4)
        w = jax.random.normal(for_task, (dim,), root.dtype)
        x = jax.random.normal(for_example, (most, dim), root.dtype) @ root.T
        y = x @ w + noise * jax.random.normal(for_noise, (most,), root.dtype)
        sums = jnp.cumsum(x * y[:, None], axis=0)[supports - 1]
        h = sums / supports[:, None].astype(root.dtype)
        phi = jax.random.normal(for_step, (horizon, actions, dim), root.dtype) @ root.T
        truth = phi @ w
        guess = jnp.einsum("tae,mned,md->mnta", phi, estimators, h)
        error = guess - truth[None, None]
        best = truth.argmax(-1)[None, None, :, None]
        taken = guess.argmax(-1)[..., None]

        def at(values: Array, index: Array) -> Array:
            return jnp.take_along_axis(values, index, axis=-1)[..., 0]

        def moments(index: Array) -> Array:
            q, value = at(guess, index), at(every_truth, index)
            return jnp.stack([(q**2), q * value, value**2], axis=-1).mean(-2)

        every_truth = jnp.broadcast_to(truth[None, None], error.shape)
        best = jnp.broadcast_to(best, taken.shape)
        at_best, at_taken = at(error, best), at(error, taken)
        earned = at(every_truth, taken)
        weight = discount ** jnp.arange(horizon, dtype=root.dtype)
        return dict(
            gap=(truth.max(-1)[None, None] - earned) @ weight,
            square=(error**2).mean((-2, -1)),
            absolute=abs(error).mean((-2, -1)),
            square_best=(at_best**2).mean(-1),
            square_taken=(at_taken**2).mean(-1),
            moments_best=moments(best),
            moments_taken=moments(taken),
            absolute_best=abs(at_best).mean(-1),
            absolute_taken=abs(at_taken).mean(-1),
            discounted=(abs(at_best) + abs(at_taken)) @ weight,
        )

    return jax.lax.map(one, keys, batch_size=together)
