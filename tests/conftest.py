"""Numerics are tested in double precision, with every silent promotion forbidden."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
