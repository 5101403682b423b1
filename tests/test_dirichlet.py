"""Gamma variables and rows of probabilities made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sdm.tasks.dirichlet import LEAST, NUMBERS, TINY, log_gamma, normalized

DRAWS = 400_000


@pytest.mark.parametrize("shape", [0.3, 1.0, 6.0])
def test_gamma_variables_have_their_law(shape):
    numbers = (NUMBERS, DRAWS)
    uniform = jax.random.uniform(jax.random.key(0), numbers, jnp.float32, minval=TINY)
    found = log_gamma(uniform, jnp.full(DRAWS, shape, jnp.float32))
    law = stats.gamma(shape)
    # 1.95 / √n is exceeded once in a thousand samples of n.
    distance = stats.kstest(np.exp(np.asarray(found, float)), law.cdf).statistic
    assert distance < 1.95 / np.sqrt(DRAWS)


def test_rows_keep_impossible_outcomes_and_a_least_probability():
    weight = jnp.array([[0.0, -jnp.inf, np.log(3.0), -1e9]])
    row = np.asarray(normalized(weight))[0]
    assert row[1] == 0 and row.sum() == pytest.approx(1)
    assert row[2] / row[0] == pytest.approx(3)
    assert row[3] / row[2] == pytest.approx(LEAST)
