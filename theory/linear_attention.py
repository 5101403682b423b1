r"""Linear self-attention (Zhang, Frei, Bartlett, 2024), and its exact population loss.

A prompt of N examples (x_i, y_i) and a query x is the matrix

    E = [ x_1 … x_N  x ]
        [ y_1 … y_N  0 ]        of shape [d+1, N+1],

the layer is f(E) = E + W_PV E (Eᵀ W_KQ E) / N, and the prediction is the bottom right
entry of f(E). It depends only on the last row p = (p₁, p₂) of W_PV and the first d
columns V₁, v₂ᵀ of W_KQ. With S = Σ x_i x_iᵀ / N and noiseless labels y_i = ⟨w, x_i⟩,

    ŷ = wᵀ S B x + a,       B = p₁ v₂ᵀ + p₂ V₁,
    a = p₁ᵀ (S + x xᵀ/N) V₁ x + p₂ (wᵀ S w) v₂ᵀ x.

With h = S w the first part is hᵀ B x. The module `risk` writes it as xᵀ B h, with the
transpose of this B. At the minimum B is symmetric.

For x, x_i ~ N(0, Λ) and w ~ N(0, I) the two parts are uncorrelated, since one is odd in
w and the other even. Isserlis' theorem gives every moment.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from sdm.theory.covariances import Number


class Attention(NamedTuple):
    """Parameters of the layer for features of dimension d.

    Attributes:
        value: W_PV, the product of projection and value matrices.
        key_query: W_KQ, the product of key and query matrices.

    """

    value: Float[Array, "*B d+1 d+1"]
    key_query: Float[Array, "*B d+1 d+1"]


def make_prompt(
    x: Float[Array, "*B N d"], y: Float[Array, "*B N"], query: Float[Array, "*B d"]
) -> Float[Array, "*B d+1 N+1"]:
    """Return the matrix E of N examples and a query, whose label entry is 0."""
    examples = jnp.concatenate([x, y[..., None]], axis=-1)
    asked = jnp.concatenate([query, jnp.zeros_like(query[..., :1])], axis=-1)
    columns = jnp.concatenate([examples, asked[..., None, :]], axis=-2)
    return jnp.swapaxes(columns, -1, -2)


def attend(
    parameters: Attention, prompt: Float[Array, "*B D L"]
) -> Float[Array, "*B D L"]:
    """Return E + W_PV E (Eᵀ W_KQ E) / N, where E has N + 1 columns."""
    examples = prompt.shape[-1] - 1
    scores = jnp.swapaxes(prompt, -1, -2) @ parameters.key_query @ prompt
    return prompt + parameters.value @ prompt @ scores / examples


def predict(
    parameters: Attention, prompt: Float[Array, "*B D L"]
) -> Float[Array, "*B"]:
    """Return the predicted label: the bottom right entry of the layer's output.

    The other entries are not computed.
    """
    asked = parameters.key_query @ prompt[..., -1:]
    scores = jnp.swapaxes(prompt, -1, -2) @ asked / (prompt.shape[-1] - 1)
    return prompt[..., -1, -1] + (parameters.value[-1] @ (prompt @ scores))[..., 0]


class LinearSelfAttention(nnx.Module):
    """The layer as a Flax module, for training with any optimiser."""

    def __init__(self, parameters: Attention) -> None:
        """Set the initial parameters."""
        self.value = nnx.Param(parameters.value)
        self.key_query = nnx.Param(parameters.key_query)

    @property
    def parameters(self) -> Attention:
        """Current parameters."""
        return Attention(self.value[...], self.key_query[...])

    def __call__(self, prompt: Float[Array, "*B D L"]) -> Float[Array, "*B D L"]:
        """Return the layer's output."""
        return attend(self.parameters, prompt)


class Prompts(NamedTuple):
    """Regression tasks as prompts, one prompt per task.

    Attributes:
        prompt: the matrices E; example labels may be noisy.
        label: ⟨w, x⟩ of the query, without noise.

    """

    prompt: Float[Array, "B d+1 L"]
    label: Float[Array, " B"]


def sample_prompts(
    key: Key[Array, ""],
    covariance: Float[Array, "d d"],
    *,
    tasks: int,
    examples: int,
    noise: Number = 0.0,
) -> Prompts:
    """Draw prompts of random tasks, with w ~ N(0, I) and features ~ N(0, Λ).

    Args:
        key: random key of tasks, features and noise.
        covariance: Λ, [d, d].
        tasks: number of prompts B.
        examples: N, examples in each prompt.
        noise: standard deviation of the noise on example labels.

    """
    for_task, for_feature, for_noise = jax.random.split(key, 3)
    dim = len(covariance)
    w = jax.random.normal(for_task, (tasks, dim), covariance.dtype)
    root = jnp.linalg.cholesky(covariance)
    shape = (tasks, examples + 1, dim)
    x = jax.random.normal(for_feature, shape, covariance.dtype) @ root.T
    y = jnp.einsum("bnd,bd->bn", x, w)
    seen = y[:, :-1] + noise * jax.random.normal(for_noise, y[:, :-1].shape, y.dtype)
    return Prompts(make_prompt(x[:, :-1], seen, x[:, -1]), y[:, -1])


def gamma(
    covariance: Float[Array, "d d"],
    examples: int | Float[Array, ""],
    *,
    noise: Number = 0.0,
) -> Float[Array, "d d"]:
    """Return Γ = (1 + 1/N) Λ + ((tr Λ + σ²)/N) I for prompts of N examples.

    The papers have σ = 0; `noise` is σ, the standard deviation of the label noise.
    """
    identity = jnp.eye(len(covariance), dtype=covariance.dtype)
    spread = (covariance.trace() + noise**2) / examples
    return (1 + 1 / examples) * covariance + spread * identity


def global_minimum(covariance: Float[Array, "d d"], examples: int) -> Attention:
    """Return the limit of gradient flow (Zhang, Frei, Bartlett, 2024, Theorem 4.1)."""
    inverse = jnp.linalg.inv(gamma(covariance, examples))
    scale = jnp.trace(inverse @ inverse) ** 0.25
    pad = ((0, 1), (0, 1))
    last = jnp.zeros_like(jnp.pad(inverse, pad)).at[-1, -1].set(1)
    return Attention(scale * last, jnp.pad(inverse, pad) / scale)


def population_loss(
    parameters: Attention, covariance: Float[Array, "d d"], examples: int
) -> Float[Array, ""]:
    """Return ½ E (ŷ - ⟨w, x⟩)² over tasks and noiseless prompts of N examples.

    The closed form holds for any parameters, not only those on the gradient flow.
    """
    lam, n = covariance, examples
    p1, p2 = parameters.value[-1, :-1], parameters.value[-1, -1]
    v1, v2 = parameters.key_query[:-1, :-1], parameters.key_query[-1, :-1]
    return 0.5 * (
        _odd_part(p1, p2, v1, v2, lam, n) + _even_part(p1, p2, v1, v2, lam, n)
    )


def _odd_part(
    p1: Array, p2: Array, v1: Array, v2: Array, lam: Array, n: int
) -> Float[Array, ""]:
    """Return E (wᵀ S B x - wᵀ x)², using E S² = Λ Γ."""
    b = jnp.outer(p1, v2) + p2 * v1
    second = lam @ gamma(lam, n)
    return (
        jnp.trace(b @ lam @ b.T @ second)
        - 2 * jnp.trace(lam @ lam @ b)
        + jnp.trace(lam)
    )


def _even_part(
    p1: Array, p2: Array, v1: Array, v2: Array, lam: Array, n: int
) -> Float[Array, ""]:
    """Return E a² as the squares and products of its three terms (Isserlis)."""
    a = (v1 + v1.T) / 2
    trace, spread = jnp.trace(lam), p1 @ lam @ p1
    al = a @ lam
    first = v1 @ lam @ v1.T
    # p₁ᵀ S V₁ x
    square_1 = (1 + 1 / n) * p1 @ lam @ first @ lam @ p1
    square_1 += spread * jnp.trace(first @ lam) / n
    # (p₁ᵀ x)(xᵀ V₁ x) / N
    tr_al, turned = jnp.trace(al), lam @ al
    square_2 = (
        spread * (tr_al**2 + 2 * jnp.trace(al @ al))
        + 4 * tr_al * p1 @ turned @ p1
        + 8 * p1 @ turned @ al @ p1
    ) / n**2
    # p₂ (wᵀ S w)(v₂ᵀ x)
    fourth = trace**2 + 2 * jnp.trace(lam @ lam) / n
    fourth += 2 * jnp.trace(lam @ gamma(lam, n))
    square_3 = p2**2 * fourth * v2 @ lam @ v2
    q = v1.T @ lam @ p1
    product_12 = (q @ lam @ p1 * tr_al + 2 * q @ turned @ p1) / n
    mean = trace * lam + 2 * lam @ lam / n
    product_13 = p2 * p1 @ mean @ v1 @ lam @ v2
    product_23 = p2 * trace * (p1 @ lam @ v2 * tr_al + 2 * v2 @ turned @ p1) / n
    return square_1 + square_2 + square_3 + 2 * (product_12 + product_13 + product_23)
