"""Model files: read any registered format, and arrays in `.npz`."""

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from sdm.storage.arrays import read_arrays
from sdm.storage.files import temporary_name
from sdm.tasks.admissible import with_mask
from sdm.tasks.model_formats import NamedModel, format_of
from sdm.tasks.model_kinds import model_kinds, optional_fields
from sdm.tasks.models import check_model
from sdm.tasks.reward_law import law_of
from sdm.tasks.stages import check_stationary
from sdm.tasks.transition_lists import sparse_transition, transition_from_csr
from sdm.tasks.transitions import SparseTransition

LISTS = ("successors", "probabilities")  # in place of the entry `transition`
CSR = ("data", "indices", "indptr")  # the same
NAMES = ("state", "action", "observation")  # optional entries `NAME_names`
LONGEST = 10_000  # largest default horizon, in decisions


def load_model(path: str | os.PathLike[str]) -> Any:
    """Read a model in the format that its file name says, `.POMDP` if it says none.

    Raises:
        ValueError: if the file is not in the format or the model is invalid.
        OSError: if the file cannot be read.

    """
    return load_with_names(path).model


def load_with_names(path: str | os.PathLike[str]) -> NamedModel:
    """Read a model like `load_model`, with the names in its file."""
    if not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else "does not exist"
        raise ValueError(f"the model file `{path}` {what}")
    return format_of(Path(path)).read(Path(path))


def save_npz(
    model: Any,
    path: str | os.PathLike[str],
    *,
    states: Sequence[str] = (),
    actions: Sequence[str] = (),
    observations: Sequence[str] = (),
) -> None:
    """Write a model's arrays and its class to an `.npz` file.

    Args:
        model: the model.
        path: the file.
        states: a name for each state; () for none.
        actions: a name for each action; () for none.
        observations: a name for each observation; () for none.

    Raises:
        ValueError: if the model is invalid.
        OSError: if the file cannot be written.

    """
    check_model(model)
    if law_of(model) is not None:
        raise ValueError(
            "law: a model file cannot hold random rewards, found a law of rewards; set "
            "law = None to write expected rewards"
        )
    names = [field.name for field in dataclasses.fields(model)]
    arrays = {name: getattr(model, name) for name in names}
    arrays = {name: x for name, x in arrays.items() if x is not None}
    moves = arrays.get("transition")
    if isinstance(moves, SparseTransition):
        del arrays["transition"]
        arrays |= {name: getattr(moves, name) for name in LISTS}
    for name, words in zip(NAMES, (states, actions, observations), strict=True):
        if words:
            arrays[f"{name}_names"] = np.array(list(words))
    with temporary_name(Path(path)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, kind=type(model).__name__, **arrays)


def load_npz(path: str | os.PathLike[str]) -> Any:
    """Read a model from an `.npz` file whose arrays have the names of its fields.

    The entry `kind` is the class: MDP, RobustMDP, POMDP, APOMDP, or another class in
    `model_kinds()`. In place of `transition`, a file can have `successors` and
    `probabilities`, see `sparse_transition`, or the `data`, `indices` and `indptr` of a
    SciPy CSR matrix, see `transition_from_csr`.

    Raises:
        ValueError: if an entry is missing or unknown, or the model is invalid.
        OSError: if the file cannot be read.

    """
    return read_npz(path).model


def read_npz(path: str | os.PathLike[str]) -> NamedModel:
    """Read a model like `load_npz`, with the names in the file.

    Names are the texts in the entries `state_names`, `action_names` and
    `observation_names`, which are optional.
    """
    arrays = read_arrays(path)
    names = [tuple(map(str, arrays.pop(f"{name}_names", ()))) for name in NAMES]
    return NamedModel(_model_of(arrays, path), *names)


def _model_of(arrays: dict[str, np.ndarray], path: str | os.PathLike[str]) -> Any:
    """Return the model of the arrays of a file."""
    found = str(arrays.pop("kind", "missing"))
    kinds = model_kinds()
    if found not in kinds:
        raise ValueError(
            f"`{path}`: the entry `kind` is {found}: must be one of {', '.join(kinds)}"
        )
    kind = kinds[found]
    names = {field.name for field in dataclasses.fields(kind)}
    try:
        lists = _pop_lists(arrays)
    except (ValueError, TypeError) as error:
        raise ValueError(f"`{path}`: {error}") from error
    if lists is not None and "transition" not in arrays:
        names -= {"transition"}
    missing, unknown = names - optional_fields(kind) - set(arrays), set(arrays) - names
    for entries, what in (
        (missing, "is missing"),
        (unknown, f"is unknown for {found} models"),
    ):
        if entries:
            raise ValueError(f"`{path}`: the entry `{min(entries)}` {what}")
    try:
        numbers = {name: _real(name, x) for name, x in arrays.items()}
        fields: dict[str, Any] = {
            name: float(x) if x.ndim == 0 else x for name, x in numbers.items()
        }
        if lists is not None:
            fields["transition"] = lists
        model = kind(**fields)
        check_model(model)
        model = with_mask(model)
    except ValueError as error:
        raise ValueError(f"`{path}`: {error}") from error
    return model


def _pop_lists(arrays: dict[str, np.ndarray]) -> SparseTransition | None:
    """Take the arrays of a sparse transition out of those of a file, if it has them.

    Raises:
        ValueError: if they do not agree.
        TypeError: if an index is not an integer.

    """
    if set(LISTS) <= set(arrays):
        index, chance = (arrays.pop(name) for name in LISTS)
        return sparse_transition(index, _real("probabilities", chance))
    if set(CSR) <= set(arrays) and "reward" in arrays:
        data, *place = (arrays.pop(name) for name in CSR)
        states, actions = arrays["reward"].shape[-2:]
        data = _real("data", data)
        return transition_from_csr(data, *place, states=states, actions=actions)
    return None


def _real(name: str, x: np.ndarray) -> Any:
    """Convert numbers, including integers, to the default floating-point type."""
    if name == "admissible":
        return jnp.asarray(x)
    if x.dtype.kind not in "biuf":
        raise ValueError(f"the entry `{name}` has dtype {x.dtype}: must be numbers")
    return jnp.asarray(x, jnp.result_type(float))


def long_horizon(model: Any, *, share: float = 0.001) -> int:
    """Return a horizon that truncates at most a `share` of the discounted reward.

    It is the smallest T with γ^T ≤ `share`; `truncation_error` bounds the remainder.

    Raises:
        ValueError: if the model is undiscounted or depends on the stage, or T exceeds
            `LONGEST` decisions.

    """
    check_stationary(model, "a horizon without end")
    discount = float(model.discount)
    if discount >= 1:
        raise ValueError("the model is not discounted: set the number of decisions")
    if discount == 0:
        return 1
    stages = max(1, math.ceil(math.log(share) / math.log(discount)))
    if stages > LONGEST:
        raise ValueError(
            f"a discount of {discount:g} needs {stages} decisions: set their number"
        )
    return stages


def truncation_error(model: Any, horizon: int) -> float:
    """Return the bound γ^T R_max / (1 - γ) on the value of decisions after `horizon`.

    It is infinite if the model is undiscounted.
    """
    discount = float(model.discount)
    if discount >= 1:
        return math.inf
    largest = float(np.abs(np.asarray(model.reward)).max())
    return discount**horizon * largest / (1 - discount)
