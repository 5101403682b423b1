"""Checks of the results of a family's methods: parameters, splits, models and prior."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from sdm.tasks.array_checks import ROW_SUM_TOLERANCE
from sdm.tasks.check_answers import (
    Arrays,
    Shapes,
    Subject,
    check_arrays,
    check_finite,
    check_posed,
    check_same,
    shapes_of,
    short,
)
from sdm.tasks.family import SET_KEY, Params, Split
from sdm.tasks.rollout import task_keys
from sdm.tasks.streams import Stream, stream_key

SPLITS: tuple[Split, ...] = ("train", "test")
MANY = 16  # enough that two splits are equal by chance with negligible probability
MOST_LISTED = 100_000
ROUNDED = 1e-5  # programs for 1 and for n tasks may round differently
# Compilation takes a second or more and execution almost no time.
CHEAP = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Answers(NamedTuple):
    """Results of a family's methods, as arrays.

    Attributes:
        drawn: parameters of the first tasks of each split.
        alone: parameters of the last of these tasks, sampled alone.
        models: models of the first two training tasks.
        candidates: models of the prior's first and last candidates.

    """

    drawn: list[dict[str, Array]]
    alone: list[dict[str, Array]]
    models: Any
    candidates: Any


def check_tasks(subject: Subject) -> None:
    """Check the results of all methods of a family.

    One program computes them on the CPU, with few compiler optimizations, since
    compilation dominates the cost.

    Raises:
        FamilyError: naming the method and the value found.

    """
    counts = [subject.count(split) for split in SPLITS]
    sizes = [MANY if count is None else min(count, MOST_LISTED) for count in counts]
    ends = check_prior(subject)

    def everything(first: Array, ends: Params) -> Answers:
        drawn = [subject.draw(s, n, first) for s, n in zip(SPLITS, sizes, strict=True)]
        alone = [
            subject.draw(s, 1, first + n - 1)
            for s, n in zip(SPLITS, sizes, strict=True)
        ]
        shapes = shapes_of(drawn[0])
        for each in (*drawn, *alone):
            check_same(subject, "parameters", shapes, shapes_of(each))
        check_same(subject, "prior", shapes, shapes_of(ends))
        two = min(2, sizes[0])
        models = _pose_twice(subject, {k: x[:two] for k, x in drawn[0].items()}, two)
        return Answers(drawn, alone, models, subject.pose(ends, subject.believed))

    found = _run(everything, jnp.int32(0), ends)
    drawn, alone = jax.tree.map(np.asarray, (found.drawn, found.alone))
    for params in drawn:
        check_finite(subject, "parameters", params)
    check_finite(subject, "prior", ends)
    for one, params in zip(alone, drawn, strict=True):
        check_slices(subject, params, one)
    check_splits(subject, drawn, listed=None not in counts)
    check_posed(subject, found.models, min(2, sizes[0]), subject.kind)
    check_posed(subject, found.candidates, 2, subject.believed, "model of the prior")


def _run(function: Callable[..., Answers], *values: Any) -> Answers:
    """Compile a function with few optimizations, and call it."""
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX is configured to use accelerators only
        return jax.jit(function)(*values)
    with jax.default_device(device):
        return jax.jit(function, compiler_options=CHEAP)(*values)


def _pose_twice(subject: Subject, params: dict[str, Array], n: int) -> Any:
    """Return models; check that their shapes do not depend on the number of tasks."""
    keys = task_keys(stream_key(0, Stream.TRAIN_SETS), n)
    if subject.kind == "apomdp":
        params = {**params, SET_KEY: keys}
    model = subject.pose(params, subject.kind)
    more = jax.tree.map(lambda x: jnp.concatenate([x, x[:1]]), params)
    other = jax.eval_shape(lambda p: subject.pose(p, subject.kind), more)
    check_same(subject, "model", _arrays_of(model), _arrays_of(other))
    if subject.kind == "apomdp":
        _check_ambiguity(subject, params, model, n)
    return model


def _check_ambiguity(subject: Subject, params: Params, model: Any, n: int) -> None:
    """Check the number of models per task, and their divergences."""
    family, models = subject.family, model.transition.shape[-4]
    if getattr(family, "models", 1) != models:
        subject.wrong(
            "models",
            f"must be the number of models per task, {models}, found "
            f"{getattr(family, 'models', 'none')}",
        )
    far = subject.ask(
        "divergence", lambda: jax.eval_shape(family.divergence, params, model)
    )
    if far.shape != (n, models):
        subject.wrong(
            "divergence",
            f"must have shape {(n, models)} (tasks, models), found {far.shape}",
        )


def _arrays_of(model: Any) -> Shapes:
    """Return the shape of one task's entry in each array of a model."""
    return shapes_of({name: x for name, x in vars(model).items() if np.ndim(x)})


def check_slices(subject: Subject, drawn: Arrays, alone: Arrays) -> None:
    """Check that a task depends only on its own index."""
    for name, value in drawn.items():
        n = len(value)
        if not np.allclose(value[-1:], alone[name], rtol=ROUNDED, atol=0):
            subject.wrong(
                "parameters",
                f"must return the same task {n - 1} with n = {n} and with n = 1, "
                f"first = {n - 1}, found {name} = {short(value[-1].tolist())} and "
                f"{short(alone[name][0].tolist())}",
                "sample each task from `jax.random.fold_in(key, index)`",
            )


def check_splits(subject: Subject, drawn: Sequence[Arrays], *, listed: bool) -> None:
    """Check that listed splits are disjoint, and that sampled ones differ."""
    train, test = map(rows_of, drawn)
    hint = "select the listed tasks by `split`"
    if not listed:
        if train == test and len(set(train)) > 1:
            subject.wrong(
                "parameters",
                f"must return different tasks for the two splits, found the same "
                f"{MANY} tasks in both",
                f"sample each task from `jax.random.fold_in(key, index)`, or {hint}",
            )
        return
    places = {row: index for index, row in enumerate(train)}
    for index, row in enumerate(test):
        if row in places:
            subject.wrong(
                "parameters",
                "must not list a task in both splits, found test task "
                f"{index} equal to training task {places[row]}",
                hint,
            )


def rows_of(params: Arrays) -> list[bytes]:
    """Return the parameters of each task as bytes, for comparison."""
    arrays = [np.asarray(params[name]) for name in sorted(params)]
    return [b"".join(x[i].tobytes() for x in arrays) for i in range(len(arrays[0]))]


def check_prior(subject: Subject) -> dict[str, Array]:
    """Check the weights of the prior; return its first and last candidates."""
    found = subject.ask("prior", subject.family.prior)
    if not isinstance(found, tuple) or len(found) != 2:
        subject.wrong("prior", f"must return WeightedParams, found {short(found)}")
    params, weight = found[0], np.asarray(found[1])
    if weight.ndim != 1 or not weight.size or weight.dtype.kind != "f":
        subject.wrong(
            "prior", f"must have one weight per candidate, found shape {weight.shape}"
        )
    if not (weight >= 0).all() or not abs(weight.sum() - 1) <= ROW_SUM_TOLERANCE:
        subject.wrong(
            "prior", f"must have weights that sum to 1, found {weight.sum():.6g}"
        )
    check_arrays(subject, "prior", params, len(weight))
    return {name: jnp.asarray(x)[np.asarray([0, -1])] for name, x in params.items()}
