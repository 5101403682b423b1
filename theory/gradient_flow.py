r"""Gradient flow of linear self-attention on its population loss.

From the initialisation of Zhang, Frei, Bartlett (2024), Assumption 3.3,

    W_PV(0) = σ e eᵀ,   W_KQ(0) = σ [ ΘΘᵀ 0; 0 0 ],   ‖ΘΘᵀ‖_F = 1,  e the last unit
    vector,

with σ² ‖Γ‖ √d < 2, the flow converges to a global minimum of the loss (Theorem 4.1);
`linear_attention.global_minimum` returns it. Along the flow u² = ‖U‖²_F, where u is the
last entry of W_PV and U the upper left block of W_KQ.

All other entries stay zero: the loss contains each of them only in products with
another one, so its gradient in them vanishes. The flow is therefore one of (u, U).

The flow is stiff: its rates differ by up to the cube of the condition number of Λ. An
implicit method of diffrax (Kvaerno, order 5) integrates it until its speed is below
`STOPPED`. Near the end the excess loss decays like exp(-2 μ t), where μ is the smallest
positive eigenvalue of the Hessian of the loss at the minimum.
"""

from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, Float, Key

from sdm.theory.covariances import Number, check_at_least, check_covariance
from sdm.theory.linear_attention import (
    Attention,
    gamma,
    global_minimum,
    population_loss,
)
from sdm.theory.precision import in_double_precision

# Relative error per step; the resulting error of Γ is far below the 1e-3 of the tests.
STEP_TOLERANCE = 1e-9
# Speed, relative to the parameters, at which the flow counts as converged.
STOPPED = 1e-12
LONGEST = 1e15  # time units
MOST_STEPS = 1 << 15


class Flow(NamedTuple):
    """A trajectory of the flow.

    Attributes:
        time: time of each integrator step.
        loss: population loss at these times.
        conserved: u² - ‖U‖²_F at these times, an invariant of the flow.
        end: parameters at the last time.
        loss_at_minimum: global minimum of the loss.
        rate: measured decay rate of the excess loss near the end; NaN if fewer than
            five steps lie there.
        predicted_rate: 2 μ, from the Hessian at the minimum.

    """

    time: Float[np.ndarray, " R"]
    loss: Float[np.ndarray, " R"]
    conserved: Float[np.ndarray, " R"]
    end: Attention
    loss_at_minimum: float
    rate: float
    predicted_rate: float


def largest_scale(covariance: Float[np.ndarray, "d d"], examples: int) -> float:
    """Return the supremum of the scales σ for which Theorem 4.1 holds."""
    norm = float(np.linalg.norm(np.asarray(_gamma(covariance, examples)), 2))
    return float(np.sqrt(2 / (norm * np.sqrt(len(covariance)))))


@in_double_precision
def _gamma(covariance: np.ndarray, examples: int) -> Array:
    return gamma(jnp.asarray(covariance, jnp.float64), examples)


@in_double_precision
def initialise(
    key: Key[Array, ""],
    covariance: Float[np.ndarray, "d d"],
    examples: int,
    *,
    scale: Number | None = None,
) -> Attention:
    """Draw the initial parameters of Assumption 3.3, with a random Θ.

    Args:
        key: random key of Θ.
        covariance: Λ, [d, d].
        examples: N, the length of the training prompts.
        scale: σ; half of `largest_scale` if None.

    Raises:
        ValueError: if Λ or N is out of range, or σ violates the condition of
            Theorem 4.1.

    """
    check_covariance(covariance)
    check_at_least("N", examples, 1)
    limit = largest_scale(covariance, examples)
    sigma = limit / 2 if scale is None else scale
    if not 0 < sigma < limit:
        raise ValueError(
            "σ: must satisfy σ² ‖Γ‖ √d < 2 (convergence), so be above 0 and below "
            f"{limit:.6g}, found {sigma:g}"
        )
    dim = len(covariance)
    theta = jax.random.normal(key, (dim, dim), jnp.float64)
    square = theta @ theta.T
    square = square / jnp.linalg.norm(square)
    last = jnp.zeros((dim + 1, dim + 1), jnp.float64).at[-1, -1].set(1)
    return Attention(sigma * last, sigma * jnp.pad(square, ((0, 1), (0, 1))))


@in_double_precision
def gradient_flow(
    start: Attention, covariance: Float[np.ndarray, "d d"], examples: int
) -> Flow:
    """Integrate the gradient flow of the population loss until it stops.

    Args:
        start: initial parameters, for instance from `initialise`.
        covariance: Λ of the features, [d, d].
        examples: N, the length of the training prompts.

    Raises:
        ValueError: if Λ or N is out of range, or an entry of `start` outside u and U is
            not zero.
        RuntimeError: if the flow does not converge within `MOST_STEPS` steps.

    """
    check_covariance(covariance)
    check_at_least("N", examples, 1)
    lam = jnp.asarray(covariance, jnp.float64)
    begin = _blocks(jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), start))
    solution = _integrate(begin, lam, jnp.asarray(float(examples)))
    if solution.result != diffrax.RESULTS.event_occurred:
        raise RuntimeError(
            f"gradient flow: no convergence within {MOST_STEPS} steps, found condition "
            f"number {np.linalg.cond(covariance):.3g} of Λ: it may be too large"
        )
    steps = int(solution.stats["num_accepted_steps"])
    time = np.asarray(solution.ts)[:steps]
    u, key_query = (x[:steps] for x in solution.ys)
    loss = np.asarray(_losses((u, key_query), lam, jnp.asarray(float(examples))))
    conserved = u**2 - (key_query**2).sum((-2, -1))
    best = global_minimum(lam, examples)
    minimum = float(population_loss(best, lam, examples))
    return Flow(
        time=time,
        loss=loss,
        conserved=np.asarray(conserved),
        end=_layer((u[-1], key_query[-1])),
        loss_at_minimum=minimum,
        rate=_tail_rate(time, loss - minimum),
        predicted_rate=2 * _slowest(best, lam, examples),
    )


Blocks = tuple[Float[Array, "*R"], Float[Array, "*R d d"]]  # u and U


def _blocks(parameters: Attention) -> Blocks:
    """Return the blocks u and U; raise `ValueError` if another entry is not zero."""
    found = parameters.value[-1, -1], parameters.key_query[:-1, :-1]
    rest = jax.tree.map(lambda a, b: abs(a - b).max(), parameters, _layer(found))
    if max(rest) > 0:
        raise ValueError(
            "start: only the last entry of W_PV and the upper left block of W_KQ may "
            f"differ from 0, found {float(max(rest)):g} in another entry"
        )
    return found


def _layer(blocks: Blocks) -> Attention:
    """Return the layer with these blocks and zeros elsewhere."""
    u, key_query = blocks
    size = len(key_query) + 1
    value = jnp.zeros((size, size), key_query.dtype).at[-1, -1].set(u)
    return Attention(value, jnp.pad(key_query, ((0, 1), (0, 1))))


def _loss(
    blocks: Blocks, lam: Float[Array, "d d"], examples: Float[Array, ""]
) -> Float[Array, ""]:
    """Return `population_loss` of a layer that is zero outside these blocks."""
    b = blocks[0] * blocks[1]
    second = lam @ gamma(lam, examples)
    return 0.5 * (
        jnp.trace(b @ lam @ b.T @ second)
        - 2 * jnp.trace(lam @ lam @ b)
        + jnp.trace(lam)
    )


@jax.jit
def _integrate(
    start: Blocks, lam: Float[Array, "d d"], examples: Float[Array, ""]
) -> diffrax.Solution:
    def velocity(t: Any, blocks: Blocks, args: Any) -> Blocks:
        slope = jax.grad(_loss)(blocks, lam, examples)
        return jax.tree.map(jnp.negative, slope)

    return diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        diffrax.Kvaerno5(),
        t0=0.0,
        t1=LONGEST,
        dt0=None,
        y0=start,
        stepsize_controller=diffrax.PIDController(
            rtol=STEP_TOLERANCE, atol=STEP_TOLERANCE
        ),
        saveat=diffrax.SaveAt(steps=True),
        event=diffrax.Event(
            diffrax.steady_state_event(rtol=STOPPED, atol=0.0, norm=optimistix.max_norm)
        ),
        max_steps=MOST_STEPS,
        throw=False,
    )


@jax.jit
def _losses(
    path: Blocks, lam: Float[Array, "d d"], examples: Float[Array, ""]
) -> Float[Array, " R"]:
    return jax.vmap(_loss, in_axes=(0, None, None))(path, lam, examples)


def _tail_rate(time: np.ndarray, excess: np.ndarray) -> float:
    """Return the decay rate of the excess loss where it is small but above rounding."""
    shown = (excess < 1e-6 * excess[0]) & (excess > 1e-12 * excess[0])
    if shown.sum() < 5:
        return float("nan")
    return -float(np.polyfit(time[shown], np.log(excess[shown]), 1)[0])


def _slowest(best: Attention, lam: Float[Array, "d d"], examples: int) -> float:
    """Return μ, the Hessian's smallest positive eigenvalue at the minimum."""
    dim = len(lam)

    def loss(flat: Array) -> Array:
        blocks = flat[0], flat[1:].reshape(dim, dim)
        return _loss(blocks, lam, jnp.asarray(float(examples)))

    at = jnp.concatenate([best.value[-1:, -1], best.key_query[:-1, :-1].reshape(-1)])
    rates = jnp.linalg.eigvalsh(jax.hessian(loss)(at))
    # The smallest is 0: the loss is invariant to (u, U) → (c u, U / c).
    return float(jnp.sort(rates)[1])
