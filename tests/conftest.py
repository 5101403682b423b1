"""Numerics are tested in double precision, with every silent promotion forbidden."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

# What is compiled once in these tests, here or in a process of theirs, is not again.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
    Path(__file__).parents[1] / ".pytest_cache" / "xla"
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
