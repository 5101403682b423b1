"""Work on some tasks of a batch, and their shares among devices."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdm.solvers_jax import EnergyFamily, solve
from sdm.solvers_jax.chunks import of_first

# Solves five tasks with as many devices as the argument says, and saves the
# bounds. The number of devices cannot change in a process that has used JAX.
SOLVE = """
import sys
import jax
import numpy as np
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
from sdm.solvers_jax import EnergyFamily, solve
family = EnergyFamily(q=0.7)
p = family.parameters(jax.random.key(0), 5, split="train")["p"]
found = solve(family.pomdp(p), horizon=3)
np.savez(sys.argv[2], lower=found.lower, upper=found.upper, rounds=found.rounds.value)
"""


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_only_the_first_tasks_are_worked_on(count):
    rows = jnp.arange(10.0).reshape(5, 2)
    found = jax.jit(lambda x, n: of_first(lambda t: (t.sum(), t * t), x, n))(
        rows, jnp.asarray(count)
    )
    np.testing.assert_array_equal(found[0][:count], np.array(rows).sum(1)[:count])
    np.testing.assert_array_equal(found[1][:count], np.array(rows)[:count] ** 2)
    assert not np.array(found[0])[count:].any()
    assert not np.array(found[1])[count:].any()


def test_one_program_serves_every_number_of_tasks():
    traced = []

    def work(task):
        traced.append(task)
        return task + 1

    of_some = jax.jit(lambda rows, count: of_first(work, rows, count))
    for count in (1, 2, 3):
        of_some(jnp.zeros(3), jnp.asarray(count))
    assert len(traced) == 1


@pytest.mark.slow
def test_the_number_of_devices_does_not_change_what_is_found(tmp_path):
    path = tmp_path / "found.npz"
    subprocess.run([sys.executable, "-c", SOLVE, "2", path], check=True)
    family = EnergyFamily(q=0.7)
    p = family.parameters(jax.random.key(0), 5, split="train")["p"]
    expected = solve(family.pomdp(p), horizon=3)
    with np.load(path) as found:
        # Programs for one task are the same on every device: equal to the last bit but
        # for the flags with which the tests compile, hence a few units of rounding.
        for name in ("lower", "upper"):
            np.testing.assert_allclose(found[name], getattr(expected, name), rtol=1e-12)
        np.testing.assert_allclose(found["rounds"], expected.rounds.value, rtol=1e-12)
