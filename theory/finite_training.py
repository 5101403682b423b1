r"""Excess risk of training on finitely many tasks.

The two terms of Lemma 1 are for a layer at the minimum of the population loss. A layer
trained on n prompts has a third term: the excess of its risk over that minimum. This
module measures it in two ways: by training the layer with stochastic gradients (optax),
and by minimising the loss on the n prompts. The loss is quadratic in B, so the minimum
is least squares on the d² features x ⊗ h. Both excesses fall like 1/n.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from sdm.theory.covariances import check_at_least, check_covariance
from sdm.theory.gradient_flow import initialise
from sdm.theory.linear_attention import (
    Attention,
    Prompts,
    gamma,
    population_loss,
    predict,
    sample_prompts,
)
from sdm.theory.precision import in_double_precision

MOMENTUM, BATCH, STEP = 0.9, 64, 0.3


@in_double_precision
def train_on_tasks(
    key: Key[Array, ""],
    covariance: Float[np.ndarray, "d d"],
    *,
    train: int,
    tasks: tuple[int, ...],
    steps: int = 12_000,
) -> tuple[Attention, Prompts]:
    """Train one layer for each number of tasks, all from the same initial parameters.

    Stochastic gradient descent with momentum 0.9 on minibatches of 64 prompts, drawn
    with replacement from the first n. The learning rate starts at 0.3 (1 - momentum)/L
    and follows a cosine to zero. L is at least the largest curvature of the population
    loss at its minimum. A rate below 1/L is stable for a quadratic loss; the factor 0.3
    allows for the fourth moments of the prompts.

    Args:
        key: random key of tasks, initial parameters and minibatches.
        covariance: Λ, [d, d].
        train: N, examples in each prompt.
        tasks: each n, increasing; a layer with n tasks trains on the first n prompts.
        steps: optimiser steps.

    Returns:
        The layers, stacked over n, and the prompts.

    Raises:
        ValueError: if an argument is out of range.

    """
    check_covariance(covariance)
    check_at_least("N", train, 1)
    check_at_least("number of tasks", min(tasks), 1)
    check_at_least("steps", steps, 1)
    lam = jnp.asarray(covariance, jnp.float64)
    for_start, for_prompts, for_batches = jax.random.split(key, 3)
    prompts = sample_prompts(for_prompts, lam, tasks=max(tasks), examples=train)
    start = initialise(for_start, covariance, train)
    trained = _train(
        start,
        prompts,
        for_batches,
        jnp.asarray(tasks),
        STEP * (1 - MOMENTUM) / _largest_curvature(lam, train),
        steps=steps,
    )
    return trained, prompts


def _largest_curvature(lam: Float[Array, "d d"], train: int) -> Float[Array, ""]:
    """Return an upper bound on the Hessian's largest eigenvalue at the minimum."""
    eigenvalues = jnp.linalg.eigvalsh(lam)
    of_gamma = jnp.linalg.eigvalsh(gamma(lam, train))
    scale = (of_gamma**-2.0).sum() ** 0.25
    # ∂²/∂U² has the eigenvalues u² λ_i γ_i λ_j, and ∂²/∂u² is Σ λ_i²/(γ_i u²).
    inner = scale**2 * (eigenvalues * of_gamma).max() * eigenvalues.max()
    outer = (eigenvalues**2 / of_gamma).sum() / scale**2
    return inner + outer


@partial(jax.jit, static_argnames="steps")
def _train(
    start: Attention,
    prompts: Prompts,
    key: Key[Array, ""],
    tasks: Int[Array, " R"],
    step_size: Float[Array, ""],
    *,
    steps: int,
) -> Attention:
    def cosine(count: Array) -> Array:
        return step_size * (1 + jnp.cos(jnp.pi * count.astype(float) / steps)) / 2

    optimiser = optax.sgd(cosine, momentum=MOMENTUM)

    def loss(parameters: Attention, batch: Prompts) -> Array:
        return 0.5 * ((predict(parameters, batch.prompt) - batch.label) ** 2).mean()

    def train_one(count: Array) -> Attention:
        def step(now: tuple[Attention, optax.OptState], key: Array):  # type: ignore[no-untyped-def]
            parameters, state = now
            chosen = jax.random.randint(key, (BATCH,), 0, count)
            batch = jax.tree.map(lambda x: x[chosen], prompts)
            slope = jax.grad(loss)(parameters, batch)
            update, state = optimiser.update(slope, state, parameters)
            return (optax.apply_updates(parameters, update), state), None

        begin = (start, optimiser.init(start))
        (parameters, _), _ = jax.lax.scan(step, begin, jax.random.split(key, steps))
        return parameters

    return jax.vmap(train_one)(tasks)


def least_squares(prompts: Prompts, count: int) -> Float[np.ndarray, "d d"]:
    """Return the B of ŷ = xᵀ B h with the least squared error on `count` prompts.

    Where several B attain it, this is the one of smallest norm.
    """
    prompt = np.asarray(prompts.prompt[:count])
    examples = prompt.shape[-1] - 1
    query, h = prompt[:, :-1, -1], prompt[:, :-1, :] @ prompt[:, -1, :, None] / examples
    features = np.einsum("bi,bj->bij", query, h[..., 0]).reshape(len(prompt), -1)
    label = np.asarray(prompts.label[:count])
    flat, *_ = np.linalg.lstsq(features, label, rcond=None)
    return flat.reshape(query.shape[-1], -1)


@in_double_precision
def population_risks(
    layers: Attention, covariance: Float[np.ndarray, "d d"], train: int
) -> Float[np.ndarray, " R"]:
    """Return the risk E (ŷ - ⟨w, x⟩)² of each stacked layer, in closed form."""
    lam = jnp.asarray(covariance, jnp.float64)
    loss = jax.vmap(population_loss, in_axes=(0, None, None))
    return 2 * np.asarray(loss(layers, lam, train))
