"""The attention layer: written out, its loss against simulation, where it is least."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tolerances import ROUNDING

from sdm.theory.linear_attention import (
    Attention,
    LinearSelfAttention,
    attend,
    gamma,
    global_minimum,
    make_prompt,
    population_loss,
    predict,
    sample_prompts,
)


def random_layer(seed, dim=3, size=0.3):
    keys = jax.random.split(jax.random.key(seed), 2)
    shape = (dim + 1, dim + 1)
    return Attention(*(size * jax.random.normal(key, shape) for key in keys))


def random_covariance(seed, dim=3):
    a = np.random.default_rng(seed).normal(size=(dim, dim))
    return jnp.asarray(a @ a.T / dim + 0.3 * np.eye(dim))


def test_the_layer_is_the_formula_written_out():
    random = np.random.default_rng(0)
    x, y, query = (jnp.asarray(random.normal(size=s)) for s in ((4, 3), (4,), (3,)))
    layer, e = random_layer(1), np.zeros((4, 5))
    e[:3, :4], e[3, :4], e[:3, 4] = np.asarray(x).T, y, query
    np.testing.assert_array_equal(make_prompt(x, y, query), e)
    value, key_query = map(np.asarray, layer)
    wanted = np.array(e)
    for i in range(4):
        for j in range(5):  # one entry at a time, as the paper writes it
            wanted[i, j] += sum(
                value[i, k] * e[k, m] * (e[:, m] @ key_query @ e[:, j]) / 4
                for k in range(4)
                for m in range(5)
            )
    np.testing.assert_allclose(attend(layer, jnp.asarray(e)), wanted, rtol=ROUNDING)
    np.testing.assert_allclose(
        predict(layer, jnp.asarray(e)), wanted[3, 4], rtol=ROUNDING
    )


@pytest.mark.slow
def test_the_flax_module_is_the_function_and_has_its_gradient():
    layer = random_layer(2)
    prompts = sample_prompts(jax.random.key(3), jnp.eye(3), tasks=6, examples=5)
    module = LinearSelfAttention(layer)
    np.testing.assert_array_equal(module(prompts.prompt), attend(layer, prompts.prompt))
    slope = nnx.grad(lambda m: (m(prompts.prompt)[:, -1, -1] ** 2).sum())(module)
    wanted = jax.grad(lambda p: (predict(p, prompts.prompt) ** 2).sum())(layer)
    np.testing.assert_allclose(slope["value"][...], wanted.value, rtol=ROUNDING)
    np.testing.assert_allclose(slope["key_query"][...], wanted.key_query, rtol=ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_population_loss_is_what_simulation_tends_to(seed):
    layer, covariance = random_layer(seed), random_covariance(seed)
    exact = population_loss(layer, covariance, 4)

    def simulated(key):
        prompts = sample_prompts(key, covariance, tasks=50_000, examples=4)
        return 0.5 * ((predict(layer, prompts.prompt) - prompts.label) ** 2).mean()

    keys = jax.random.split(jax.random.key(10 + seed), 20)
    found = np.asarray(jax.lax.map(simulated, keys))
    error = found.std(ddof=1) / np.sqrt(len(found))
    # Four standard errors of a million prompts, about a half per cent.
    assert abs(found.mean() - exact) < 4 * error < 0.05 * exact


@pytest.mark.slow
def test_the_gradient_of_the_loss_is_what_simulation_tends_to():
    layer, covariance = random_layer(5), random_covariance(5)
    exact = jax.grad(population_loss)(layer, covariance, 4)

    def loss(layer, prompts):
        return 0.5 * ((predict(layer, prompts.prompt) - prompts.label) ** 2).mean()

    def simulated(key):
        prompts = sample_prompts(key, covariance, tasks=20_000, examples=4)
        return jax.grad(loss)(layer, prompts)

    found = jax.lax.map(simulated, jax.random.split(jax.random.key(6), 20))
    for ours, theirs in zip(exact, found, strict=True):
        error = np.std(theirs, axis=0, ddof=1) / np.sqrt(20)
        off = np.abs(np.mean(theirs, axis=0) - ours)
        # 32 entries, five standard errors each: one seed in 50,000 fails by chance.
        assert (off <= 5 * error + 1e-12).all()


def test_at_the_minimum_the_slope_is_zero_and_the_prediction_is_by_gamma():
    covariance = random_covariance(7)
    best = global_minimum(covariance, 6)
    slope = jax.grad(population_loss)(best, covariance, 6)
    assert max(float(abs(x).max()) for x in slope) < 1e-12  # rounding
    prompts = sample_prompts(jax.random.key(8), covariance, tasks=5, examples=9)
    x, y = prompts.prompt[:, :-1, :-1], prompts.prompt[:, -1, :-1]
    query = prompts.prompt[:, :-1, -1]
    h = jnp.einsum("bdn,bn->bd", x, y) / 9
    wanted = jnp.einsum("bd,de,be->b", query, jnp.linalg.inv(gamma(covariance, 6)), h)
    np.testing.assert_allclose(predict(best, prompts.prompt), wanted, rtol=ROUNDING)
    lower = population_loss(best, covariance, 6)
    for seed in range(5):
        other = jax.tree.map(lambda a, b: a + 0.1 * b, best, random_layer(seed))
        assert population_loss(other, covariance, 6) > lower


def test_labels_follow_the_noise_that_is_asked_for():
    key, lam = jax.random.key(0), jnp.eye(2)
    clean = sample_prompts(key, lam, tasks=2000, examples=3)
    noisy = sample_prompts(key, lam, tasks=2000, examples=3, noise=0.5)
    np.testing.assert_array_equal(clean.label, noisy.label)
    difference = np.asarray(noisy.prompt - clean.prompt)
    assert (difference[:, :-1] == 0).all() and (difference[:, -1, -1] == 0).all()
    # 6,000 draws: a standard error of 0.005.
    assert difference[:, -1, :-1].std() == pytest.approx(0.5, abs=0.02)
