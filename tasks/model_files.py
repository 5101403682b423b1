"""Users' own models on disk: Cassandra's `.POMDP` text, and arrays in `.npz`."""

import math
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from sdm.storage.files import temporary_name
from sdm.tasks.cassandra import read_pomdp
from sdm.tasks.models import (
    APOMDP,
    MDP,
    POMDP,
    Model,
    RobustMDP,
    check_model,
)

KINDS = {kind.__name__: kind for kind in (MDP, RobustMDP, POMDP, APOMDP)}
OPTIONAL = "initial_observation"
LONGEST = 10_000  # decisions that are made without having been asked for


def load_model(path: str | os.PathLike[str]) -> Model:
    """Read a model: `.npz` as `save_npz` writes it, anything else as `.POMDP`.

    Raises:
        ValueError: if the file is neither, or the model is not well posed.
        OSError: if it cannot be read.

    """
    return load_with_names(path).model


class NamedModel(NamedTuple):
    """A model, and what its states and actions are called where the file says so."""

    model: Model
    states: tuple[str, ...]
    actions: tuple[str, ...]


def load_with_names(path: str | os.PathLike[str]) -> NamedModel:
    """Read a model as `load_model` does, with the names that a `.POMDP` file gives."""
    if not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else "does not exist"
        raise ValueError(f"the model file `{path}` {what}")
    if Path(path).suffix.lower() == ".npz":
        return NamedModel(load_npz(path), (), ())
    found = read_pomdp(path)
    return NamedModel(found.model, found.states, found.actions)


def save_npz(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model's arrays, and what kind of model they are.

    Raises:
        ValueError: if the model is not well posed.
        OSError: if the file cannot be written.

    """
    check_model(model)
    names = model.__dataclass_fields__
    arrays = {name: getattr(model, name) for name in names}
    arrays = {name: x for name, x in arrays.items() if x is not None}
    with temporary_name(Path(path)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, kind=type(model).__name__, **arrays)


def load_npz(path: str | os.PathLike[str]) -> Model:
    """Read what `save_npz` wrote, or arrays named like the fields of a model.

    The entry `kind` says which: MDP, RobustMDP, POMDP or APOMDP.

    Raises:
        ValueError: if an entry is missing or unknown, or the model is not well posed.
        OSError: if it cannot be read.

    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"`{path}` is no .npz file of arrays") from error
    found = str(arrays.pop("kind", "missing"))
    if found not in KINDS:
        raise ValueError(
            f"`{path}`: the entry `kind` is {found}: must be one of {', '.join(KINDS)}"
        )
    kind = KINDS[found]
    names = set(kind.__dataclass_fields__)
    missing, unknown = names - {OPTIONAL} - set(arrays), set(arrays) - names
    for entries, what in ((missing, "is missing"), (unknown, f"is none of a {found}")):
        if entries:
            raise ValueError(f"`{path}`: the entry `{min(entries)}` {what}")
    scalars = {"alpha", "discount"}
    try:
        numbers = {name: _real(name, x) for name, x in arrays.items()}
        fields: dict[str, Any] = {
            name: float(x) if name in scalars and x.ndim == 0 else x
            for name, x in numbers.items()
        }
        model = kind(**fields)
        check_model(model)
    except ValueError as error:
        raise ValueError(f"`{path}`: {error}") from error
    return model


def _real(name: str, x: np.ndarray) -> Any:
    """Numbers in the precision of the package; whole ones, too."""
    if x.dtype.kind not in "biuf":
        raise ValueError(f"the entry `{name}` has dtype {x.dtype}: must be numbers")
    return jnp.asarray(x, jnp.result_type(float))


def long_horizon(model: Model, *, share: float = 0.001) -> int:
    """Decisions after which the rest is worth at most `share` of all rewards to come.

    The rest is at most γ^T R_max / (1 - γ), `truncation_error`.

    Raises:
        ValueError: for a model with little or no discount, where too many decisions
            count.

    """
    discount = float(model.discount)
    if discount >= 1:
        raise ValueError(
            "the model is not discounted: say how many decisions there are"
        )
    if discount == 0:
        return 1
    stages = max(1, math.ceil(math.log(share) / math.log(discount)))
    if stages > LONGEST:
        raise ValueError(
            f"with a discount of {discount:g}, {stages} decisions count: say how many "
            "there are"
        )
    return stages


def truncation_error(model: Model, horizon: int) -> float:
    """What the decisions after `horizon` can add or cost; infinite without discount."""
    discount = float(model.discount)
    if discount >= 1:
        return math.inf
    largest = float(np.abs(np.asarray(model.reward)).max())
    return discount**horizon * largest / (1 - discount)
