"""The flow ends where Theorem 4.1 says, and as fast as the Hessian there says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import ROUNDING

from sdm.theory.covariances import log_spaced_eigenvalues
from sdm.theory.finite_training import (
    _largest_curvature,
    least_squares,
    population_risks,
    train_on_tasks,
)
from sdm.theory.gamma_estimator import estimate_gamma
from sdm.theory.gradient_flow import gradient_flow, initialise, largest_scale
from sdm.theory.linear_attention import (
    Attention,
    global_minimum,
    population_loss,
    sample_prompts,
)
from sdm.theory.risk import estimator, exact_risk, gamma_matrix


@pytest.fixture(scope="module", params=[1.0, 10.0, 100.0])
def flowed(request):
    covariance = np.diag(log_spaced_eigenvalues(4, request.param))
    start = initialise(jax.random.key(1), covariance, 12)
    return covariance, start, gradient_flow(start, covariance, 12)


def test_both_blocks_end_where_the_theorem_says(flowed):
    covariance, _, path = flowed
    wanted = global_minimum(jnp.asarray(covariance), 12)
    # The integrator's tolerance is 1e-9 a step; u and U drift along the flat direction.
    for ours, theirs in zip(path.end, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert path.loss[-1] == pytest.approx(path.loss_at_minimum, rel=1e-12)
    truth = gamma_matrix(covariance, 12)
    assert estimate_gamma(path.end).relative_error(truth) <= 1e-6


def test_the_loss_falls_and_its_invariant_stays(flowed):
    covariance, start, path = flowed
    assert (np.diff(path.loss) <= 1e-13).all() and path.time[0] >= 0
    size = float(path.end.value[-1, -1] ** 2)
    # Zero at the start; tolerance of the integrator, some hundred steps.
    np.testing.assert_allclose(path.conserved, 0, atol=1e-5 * size)
    first = population_loss(start, jnp.asarray(covariance), 12)
    assert path.loss[0] <= float(first)


def test_the_rate_is_that_of_the_hessian(flowed):
    # The slope is fitted where the excess is 1e-6 to 1e-12: not yet all in one mode.
    assert flowed[2].rate == pytest.approx(flowed[2].predicted_rate, rel=0.02)


@pytest.mark.slow
def test_no_other_entry_has_a_slope_on_the_way(flowed):
    covariance, start, path = flowed
    for layer in (start, path.end):
        slope = jax.grad(population_loss)(layer, jnp.asarray(covariance), 12)
        assert (slope.value[:-1] == 0).all() and (slope.value[:, :-1] == 0).all()
        assert (slope.key_query[-1] == 0).all()
        assert (slope.key_query[:, -1] == 0).all()


@pytest.mark.slow
def test_ten_dimensions_as_well():
    covariance = np.diag(log_spaced_eigenvalues(10, 100.0))
    path = gradient_flow(initialise(jax.random.key(0), covariance, 20), covariance, 20)
    error = estimate_gamma(path.end).relative_error(gamma_matrix(covariance, 20))
    assert error <= 1e-3


def test_a_scale_that_is_too_large_names_the_condition_and_the_limit():
    covariance = np.eye(3)
    limit = largest_scale(covariance, 10)
    gamma = (1 + 1 / 10) + 3 / 10
    assert limit == pytest.approx(np.sqrt(2 / (gamma * np.sqrt(3))))
    for scale in (limit, 0.0, -1.0):
        with pytest.raises(ValueError, match=rf"‖Γ‖ √d < 2.*below {limit:.6g}"):
            initialise(jax.random.key(0), covariance, 10, scale=scale)
    start = initialise(jax.random.key(0), covariance, 10, scale=0.99 * limit)
    block = start.key_query[:-1, :-1] / start.value[-1, -1]
    assert float(jnp.linalg.norm(block)) == pytest.approx(1)
    assert (jnp.linalg.eigvalsh(block) > -1e-12).all()


def test_the_flow_starts_from_its_two_blocks_only():
    start = initialise(jax.random.key(0), np.eye(2), 5)
    other = Attention(start.value.at[-1, 0].set(0.1), start.key_query)
    with pytest.raises(ValueError, match=r"found 0\.1 in another entry"):
        gradient_flow(other, np.eye(2), 5)


def test_gamma_is_found_whatever_the_scale_and_in_the_presence_of_other_blocks():
    covariance = np.array([[2.0, 0.3], [0.3, 0.5]])
    best = global_minimum(jnp.asarray(covariance), 7)
    truth = gamma_matrix(covariance, 7)
    for c in (1.0, -3.0, 1e-4):
        layer = Attention(c * best.value, best.key_query / c)
        assert estimate_gamma(layer).relative_error(truth) < 1e-12
    other = Attention(best.value.at[-1, 0].set(0.2), best.key_query.at[-1, 1].set(0.1))
    found = estimate_gamma(other)
    b = np.array(best.value[-1, -1] * best.key_query[:-1, :-1])
    b[0, 1] += 0.2 * 0.1
    wanted = np.linalg.inv(b)
    np.testing.assert_allclose(found.gamma, (wanted + wanted.T) / 2, rtol=ROUNDING)
    assert found.outside > 0.05 and found.asymmetry > 0.001
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), best, other)
    several = estimate_gamma(both)
    half = np.abs(found.gamma - truth) / 2  # the standard error of two
    np.testing.assert_allclose(several.standard_error, half, atol=1e-12)
    with pytest.raises(ValueError, match="layer 0: B must be invertible"):
        estimate_gamma(jax.tree.map(jnp.zeros_like, best))


@pytest.mark.slow
def test_more_tasks_leave_less_excess_risk_and_gamma_is_found_from_sgd():
    covariance, tasks = np.diag(log_spaced_eigenvalues(3, 2.0)), (128, 1024, 8192)
    layers, prompts = train_on_tasks(
        jax.random.key(0), covariance, train=10, tasks=tasks, steps=6000
    )
    best = exact_risk(estimator(covariance, 10), covariance, 10)
    excess = population_risks(layers, covariance, 10) - best
    fitted = [
        exact_risk(least_squares(prompts, n), covariance, 10) - best for n in tasks
    ]
    for found in (excess, np.array(fitted)):
        assert (found > 0).all()
        # 1/n: a factor of 64 in n; within a factor of 3, as each is a single draw.
        assert 64 / 3 < found[0] / found[2] < 64 * 3
    last = jax.tree.map(lambda x: x[2], layers)
    truth = gamma_matrix(covariance, 10)
    assert estimate_gamma(last).relative_error(truth) < 0.1


@pytest.mark.slow
def test_least_squares_finds_the_estimator_and_not_its_transpose():
    wanted = np.array([[0.5, 0.3], [-0.4, 0.2]])
    prompts = sample_prompts(jax.random.key(0), jnp.eye(2), tasks=50, examples=4)
    h = jnp.einsum("bdn,bn->bd", prompts.prompt[:, :-1], prompts.prompt[:, -1]) / 4
    label = jnp.einsum("bi,ij,bj->b", prompts.prompt[:, :-1, -1], wanted, h)
    found = least_squares(prompts._replace(label=label), 50)
    np.testing.assert_allclose(found, wanted, rtol=ROUNDING)


@pytest.mark.slow
def test_the_step_size_knows_the_largest_curvature():
    lam = jnp.diag(jnp.asarray(log_spaced_eigenvalues(3, 5.0)))
    best = global_minimum(lam, 10)

    def loss(flat):
        blocks = jnp.zeros((4, 4))
        value = blocks.at[-1, -1].set(flat[0])
        inner = blocks.at[:-1, :-1].set(flat[1:].reshape(3, 3))
        return population_loss(Attention(value, inner), lam, 10)

    at = jnp.concatenate([best.value[-1:, -1], best.key_query[:-1, :-1].reshape(-1)])
    largest = jnp.linalg.eigvalsh(jax.hessian(loss)(at))[-1]
    found = _largest_curvature(lam, 10)
    assert largest <= found * (1 + 1e-12) and found < 2 * largest
