"""Numerics are tested in double precision, with every silent promotion forbidden."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # tests compile themselves
if "PYTEST_XDIST_WORKER" in os.environ:
    # Threads of two processes that wait for each other take ten times as long.
    os.environ["OMP_NUM_THREADS"] = "1"

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

MAPS = Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="module")
def few_compiled_programs() -> Iterator[None]:
    """Forget compiled programs before the process has too many of them.

    XLA maps about seven regions of memory for every program that it compiles for a CPU,
    and Linux allows a process 65,530 of them: the compilation after that is a
    segmentation fault.
    """
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
