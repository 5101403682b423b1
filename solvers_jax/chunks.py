"""Work on a batch in chunks of equal size, one after the other."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def in_chunks(work: Callable[[Any], Any], arrays: Any, chunk: int) -> Any:
    """Return `work` of arrays whose first axis is cut into chunks; JAX can trace it.

    Args:
        work: function of arrays with the same structure and at most `chunk` tasks; the
            first axis of its results is that of the tasks.
        arrays: arrays with the tasks on their first axis.
        chunk: tasks at once.

    """
    tasks = len(jax.tree.leaves(arrays)[0])
    if tasks <= chunk:
        return work(arrays)
    whole = tasks // chunk * chunk
    parts = jax.lax.map(
        work,
        jax.tree.map(lambda x: x[:whole].reshape(-1, chunk, *x.shape[1:]), arrays),
    )
    parts = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), parts)
    if whole == tasks:
        return parts
    rest = work(jax.tree.map(lambda x: x[whole:], arrays))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), parts, rest)
