"""Nature's row: linear programmes, a bisection in long doubles, limits, invariances."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog
from tolerances import ROUNDING

from sdm.solvers_jax.inner_problems import interval_rows, l1_rows
from sdm.solvers_jax.kl_ball import kl_rows

# HiGHS accepts constraints that are violated by 1e-7; rows have up to 40 entries and
# values of at most 3.
HIGHS = 1e-5


def problem(seed, size, zeros=0):
    random = np.random.default_rng(seed)
    row = random.dirichlet(np.full(size, 0.6))
    row[:zeros] = 0
    value = random.normal(size=size)
    if seed % 3 == 0:
        value[-1] = value[-2]  # a tie
    return random, value, row / row.sum()


@pytest.mark.parametrize("size", [2, 6, 40])  # 40 outcomes are sorted, fewer compared
@pytest.mark.parametrize("seed", range(4))
def test_interval_rows_solve_the_linear_programme(size, seed):
    random, value, row = problem(seed, size)
    lower = np.maximum(row - random.uniform(0, 0.2, size), 0)
    upper = np.minimum(row + random.uniform(0, 0.2, size), 1)
    found = np.asarray(interval_rows(*map(jnp.asarray, (value, lower, upper))))
    assert (found >= lower).all() and (found <= upper + 1e-15).all()
    assert found.sum() == pytest.approx(1, abs=1e-13)
    best = linprog(
        value, A_eq=np.ones((1, size)), b_eq=[1], bounds=np.stack([lower, upper], 1)
    )
    assert found @ value == pytest.approx(best.fun, abs=HIGHS)


@pytest.mark.parametrize("size", [2, 6, 40])
@pytest.mark.parametrize("radius", [0.1, 0.7, 1.9])
def test_l1_rows_solve_the_linear_programme(size, radius):
    _, value, row = problem(size, size)
    found = np.asarray(l1_rows(*map(jnp.asarray, (value, row, radius))))
    assert (found >= 0).all() and found.sum() == pytest.approx(1, abs=1e-13)
    assert np.abs(found - row).sum() <= radius + 1e-13
    one = np.eye(size)
    best = linprog(
        np.r_[value, np.zeros(size)],
        A_ub=np.block([[one, -one], [-one, -one], [0 * one[:1], 0 * one[:1] + 1]]),
        b_ub=np.r_[row, -row, radius],
        A_eq=np.r_[np.ones(size), np.zeros(size)][None],
        b_eq=[1],
    )
    assert found @ value == pytest.approx(best.fun, abs=HIGHS)


def smallest_mean_in_kl_ball(value, row, radius):
    """By bisection for θ in long doubles, from the definition of the divergence."""
    q, v = (x[row > 0].astype(np.longdouble) for x in (row, value))
    v = v - v.min()

    def tilted(theta):
        p = q * np.exp(-theta * v)
        p = p / p.sum()
        some = p > 0
        return p @ v, (p[some] * np.log(p[some] / q[some])).sum()

    low, high = np.longdouble(0), np.longdouble(1)
    while tilted(high)[1] < radius and high < 1e6:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if tilted(middle)[1] < radius else (low, middle)
    return float(tilted(high)[0]) + value[row > 0].min()


@pytest.mark.slow
@pytest.mark.parametrize("radius", [1e-6, 1e-3, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_kl_rows_have_the_smallest_mean(radius, seed):
    _, value, row = problem(seed, 6, zeros=seed % 2)
    found = np.asarray(kl_rows(*map(jnp.asarray, (value, row, radius))))
    assert (found[row == 0] == 0).all() and found.sum() == pytest.approx(1)
    some = found > 0
    divergence = (found[some] * np.log(found[some] / row[some])).sum()
    assert divergence <= radius * (1 + 1e-6) + 1e-15  # sqrt of rounding, near radius 0
    best = smallest_mean_in_kl_ball(value, row, radius)
    assert found @ value == pytest.approx(best, abs=1e-12)


@pytest.mark.slow
def test_kl_rows_in_single_precision():
    for seed in range(8):
        _, value, row = problem(seed, 6, zeros=1)
        for radius in (1e-5, 0.1, 2.0):
            single = [jnp.asarray(x, jnp.float32) for x in (value, row, radius)]
            found = kl_rows(*single)
            assert found.dtype == jnp.float32
            best = smallest_mean_in_kl_ball(value, row, radius)
            # Some units in the last place of float32, 6e-8, of values of order one.
            assert float(found @ single[0]) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("rows", [l1_rows, kl_rows])
def test_radius_zero_and_infinity(rows):
    _, value, row = problem(1, 6, zeros=1)
    value[0] = -9.0  # the smallest, where the nominal probability is zero
    given = jnp.asarray(value), jnp.asarray(row)
    np.testing.assert_array_equal(rows(*given, jnp.asarray(0.0)), row)
    worst = rows(*given, jnp.asarray(jnp.inf)) @ given[0]
    support = value if rows is l1_rows else value[row > 0]
    assert float(worst) == pytest.approx(support.min(), abs=1e-12)


def test_kl_rows_of_equal_values_and_of_tiny_probabilities_are_finite():
    _, value, row = problem(1, 6)
    radius = jnp.asarray(0.3)
    same = kl_rows(jnp.ones(6), jnp.asarray(row), radius)
    assert float(same.sum()) == pytest.approx(1) and bool(jnp.isfinite(same).all())
    row[value.argmin()] = 1e-200
    row /= row.sum()
    found = np.asarray(kl_rows(jnp.asarray(value), jnp.asarray(row), jnp.asarray(9.0)))
    best = smallest_mean_in_kl_ball(value, row, 9.0)
    assert found @ value == pytest.approx(best, abs=1e-12)
    value[1:3] = value[0] + np.array([1e-14, 2e-14])  # nearly a tie
    found = kl_rows(jnp.asarray(value), jnp.asarray(row), radius)
    assert bool(jnp.isfinite(found).all())


@pytest.mark.slow
def test_rows_of_listed_successors_are_those_of_all_states():
    """With values gathered for each successor, as in a sparse transition."""
    _, value, row = problem(2, 8)
    row[[1, 4, 6]] = 0
    row /= row.sum()
    listed = np.flatnonzero(row)
    upper = np.where(row > 0, np.minimum(row + 0.2, 1), 0)
    lower = np.maximum(row - 0.2, 0)
    whole = interval_rows(*map(jnp.asarray, (value, lower, upper)))
    part = interval_rows(*(jnp.asarray(x[listed]) for x in (value, lower, upper)))
    np.testing.assert_allclose(whole[listed], part, rtol=0, atol=ROUNDING)
    whole = kl_rows(jnp.asarray(value), jnp.asarray(row), jnp.asarray(0.2))
    part = kl_rows(*(jnp.asarray(x[listed]) for x in (value, row)), jnp.asarray(0.2))
    np.testing.assert_allclose(whole[listed], part, rtol=0, atol=ROUNDING)


@pytest.mark.slow
def test_rows_share_values_or_have_their_own():
    random = np.random.default_rng(0)
    row = jnp.asarray(random.dirichlet(np.ones(5), (3, 2)))
    value = jnp.asarray(random.normal(size=(3, 1, 5)))
    radius = jnp.asarray(random.uniform(0, 1, (3, 2)))
    for rows in (l1_rows, kl_rows):
        shared = rows(value, row, radius)
        own = rows(jnp.broadcast_to(value, row.shape), row, radius)
        np.testing.assert_allclose(shared, own, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("rows", [l1_rows, kl_rows])
def test_order_and_units_do_not_matter(rows):
    _, value, row = problem(1, 6)
    radius, order = jnp.asarray(0.4), np.random.default_rng(1).permutation(6)
    found = rows(jnp.asarray(value), jnp.asarray(row), radius)
    again = rows(jnp.asarray(1e4 * value[order] - 7), jnp.asarray(row[order]), radius)
    np.testing.assert_allclose(found[order], again, rtol=0, atol=ROUNDING)
