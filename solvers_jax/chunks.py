"""Work on a batch in chunks of equal size, or on some of its tasks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


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


def of_first(work: Callable[[Any], Any], arrays: Any, count: Int[Array, ""]) -> Any:
    """Return `work` of each of the first tasks, one after the other; JAX can trace it.

    The number of tasks is no constant: one compiled program serves every number.

    Args:
        work: function of the arrays of one task.
        arrays: arrays with the tasks on their first axis.
        count: number of tasks to work on. The results of the others are zeros.

    """
    tasks = len(jax.tree.leaves(arrays)[0])
    once = jax.jit(work)  # traced once for both uses
    shapes = jax.eval_shape(once, jax.tree.map(lambda x: x[0], arrays))
    nothing = jax.tree.map(lambda x: jnp.zeros((tasks, *x.shape), x.dtype), shapes)

    def step(number: Array, found: Any) -> Any:
        new = once(jax.tree.map(lambda x: x[number], arrays))
        return jax.tree.map(lambda every, x: every.at[number].set(x), found, new)

    return jax.lax.fori_loop(0, count, step, nothing)
