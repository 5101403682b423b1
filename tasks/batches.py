"""Batches of tasks: arrays with an axis of tasks, and arrays that all tasks share."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Model = TypeVar("Model")


def per_task(tree: Any) -> list[bool]:
    """Return whether each leaf of a tree has the axis of tasks, in order of its leaves.

    All arrays have it, unless a class has a method `per_task` that says so of its own.
    """

    def of(x: Any) -> list[bool]:
        return x.per_task() if hasattr(x, "per_task") else [np.ndim(x) > 0]

    nodes = jax.tree.leaves(tree, is_leaf=lambda x: hasattr(x, "per_task"))
    return [each for node in nodes for each in of(node)]


def map_tasks(function: Callable[..., Any], first: Model, *others: Model) -> Model:
    """Apply a function to all leaves that have the axis of tasks; keep other leaves."""
    leaves, structure = jax.tree.flatten(first)
    rest = [jax.tree.leaves(other) for other in others]
    made = [
        function(*each) if has else each[0]
        for has, *each in zip(per_task(first), leaves, *rest, strict=True)
    ]
    return jax.tree.unflatten(structure, made)


def take_tasks(model: Model, chosen: Any) -> Model:
    """Return some tasks of a batch, chosen on the first axis of all its arrays."""
    return map_tasks(lambda x: x[chosen], model)


def join_tasks(parts: Sequence[Model]) -> Model:
    """Return one batch of the tasks of several batches, which share what they share."""
    return map_tasks(lambda *x: jnp.concatenate(x), *parts)
