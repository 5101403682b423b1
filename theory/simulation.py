r"""Simulation of decisions by in-context regression (appendix E.2 of the paper).

Each task has a weight vector w ~ N(0, I) and M examples (x_i, y_i). At each of T steps
there are A candidates with features φ_a ~ N(0, Λ). The best candidate has the largest
Q*(a) = wᵀ φ_a; the policy takes the one with the largest Q̂(a) = φ_aᵀ B h, with
h = Σ y_i x_i / M.
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

MOST_EXAMPLES = 1_000_000  # largest M; limits the memory of one task
EXAMPLES_TOGETHER = 1 << 19  # examples of all tasks simulated at once; limits memory


class TaskErrors(NamedTuple):
    """Loss and errors in each task B, for every support size M and estimator N.

    Attributes:
        gap: Σ_t γ^t (max_a Q* - Q*(taken)).
        square: mean of (Q̂ - Q*)² over all candidates.
        absolute: mean of |Q̂ - Q*| over all candidates.
        square_best: mean of (Q̂ - Q*)² at the best candidates.
        square_taken: mean of (Q̂ - Q*)² at the candidates taken.
        moments_best: means of Q̂², Q̂ Q* and Q*² at the best candidates.
        moments_taken: means of Q̂², Q̂ Q* and Q*² at the candidates taken.
        absolute_best: mean of |Q̂ - Q*| at the best candidates.
        absolute_taken: mean of |Q̂ - Q*| at the candidates taken.
        discounted: Σ_t γ^t (|Q̂ - Q*| at the best + at the one taken), which bounds the
            gap of every task from above.

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
    """Simulate tasks with every estimator B and every support size M.

    All cells share tasks, candidates and examples; a cell uses the first M examples.

    Args:
        key: random key; task i depends on this key and on i only.
        covariance: Λ of examples and candidates, [d, d].
        estimators: B of each cell.
        supports: each M, increasing.
        tasks: number of tasks B.
        horizon: T, steps per task.
        actions: A, candidates at each step.
        discount: γ.
        noise: standard deviation of the noise on example labels.

    Raises:
        ValueError: if an argument is out of range.

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
        raise ValueError(f"M: must be {MOST_EXAMPLES} or fewer, found {max(supports)}")
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
