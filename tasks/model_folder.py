"""A folder of distinct model files, read as models of one class.

The models are read on first use and cached.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sdm.storage.ownership import check_finished
from sdm.tasks.admissible import check_no_mask
from sdm.tasks.imported import FamilyError
from sdm.tasks.model_formats import format_of, suffixes
from sdm.tasks.models import Model
from sdm.tasks.stages import check_stationary

CLASSES = ("MDP", "POMDP", "APOMDP")


class ModelFile(NamedTuple):
    """A model from a file, with the file's names; () if it has none."""

    path: Path
    model: Model
    states: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()


class ModelFolder:
    """The models in a folder.

    Attributes:
        path: absolute path of the folder.
        files: non-hidden files with the suffix of a model format, sorted by name.
        hashes: SHA-256 of each file's content, by file name.
        digest: SHA-256 of `hashes`.

    """

    def __init__(self, path: str) -> None:
        """Find the files.

        Raises:
            FamilyError: if there are fewer than two files, or two are equal.

        """
        # Absolute, so that written references work from any working folder.
        self.path: Path = Path(path).resolve()
        if not self.path.is_dir():
            what = "is a file" if self.path.exists() else "does not exist"
            raise FamilyError(
                f"folder `{self.path}` {what}",
                "pass a folder of `.POMDP` or `.npz` files",
            )
        check_finished(self.path)
        found = (
            file
            for file in self.path.iterdir()
            if file.name.lower().endswith(suffixes())
            and not file.name.startswith(".")
            and file.is_file()
        )
        self.files: tuple[Path, ...] = tuple(sorted(found, key=lambda file: file.name))
        if len(self.files) < 2:
            only = self.files[0].name if self.files else "none"
            raise FamilyError(
                f"folder `{self.path}`: must hold 2 or more `.POMDP` or `.npz` files, "
                f"found {only}",
                "add models: the folder is split into training and test tasks",
            )
        self.hashes: dict[str, str] = {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in self.files
        }
        self._check_different()
        self.digest: str = hashlib.sha256(
            "\n".join(self.hashes.values()).encode()
        ).hexdigest()

    def _check_different(self) -> None:
        """Reject equal files: training and test tasks might share one."""
        first: dict[str, str] = {}
        for name, value in self.hashes.items():
            if value in first:
                raise FamilyError(
                    f"folder `{self.path}`: files must differ, found `{first[value]}` "
                    f"equal to `{name}`",
                    f"remove `{name}`",
                )
            first[value] = name

    @cached_property
    def model_class(self) -> str:
        """Class name of the models, found without reading their arrays."""
        first, *others = ((file, _class_of(file)) for file in self.files)
        _check_equal("class of model", first, others)
        return first[1]

    @cached_property
    def models(self) -> tuple[ModelFile, ...]:
        """The models, which have one class, equal sizes and equal names.

        Raises:
            FamilyError: if a file cannot be read, or two files disagree.

        """
        _ = self.model_class
        with jax.ensure_compile_time_eval():  # JAX may be tracing the caller
            found = tuple(map(_read, self.files))
        first, *others = ((file.path, _shapes(file.model)) for file in found)
        _check_equal("shapes", first, others)
        for what in ("states", "actions", "symbols"):
            named = [(f.path, names) for f in found if (names := getattr(f, what))]
            if named:
                _check_equal(f"names of {what}", named[0], named[1:])
        return found

    def names(self, what: str) -> tuple[str, ...]:
        """Return the names of `states`, `actions` or `symbols`; () if unnamed."""
        return next((found for f in self.models if (found := getattr(f, what))), ())

    def number(self, name: str, hint: str = "") -> float:
        """Return the common discount or alpha of all models.

        Raises:
            FamilyError: if two models differ.

        """
        first, *others = ((f.path, float(getattr(f.model, name))) for f in self.models)
        _check_equal(name, first, others, hint)
        return first[1]

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays of the models by field, with files on axis 0."""
        return {
            name: np.stack([np.asarray(getattr(f.model, name)) for f in self.models])
            for name in _shapes(self.models[0].model)
        }


def _class_of(path: Path) -> str:
    """Return the class of the model in a file, without reading the model."""
    try:
        found = format_of(path).kind(path)
    except (ValueError, OSError) as error:
        raise _unreadable(path, error) from error
    if found not in CLASSES:
        raise FamilyError(
            f"folder `{path.parent}`: `{path.name}`: models must be "
            f"{', '.join(CLASSES)}, found {found}",
            f"remove `{path.name}`; `sdm solve --model {path}` solves it alone",
        )
    return found


def _read(path: Path) -> ModelFile:
    """Read a model of a single task.

    Raises:
        FamilyError: if the file cannot be read or holds a batch.

    """
    try:
        model, *names = format_of(path).read(path)
        check_no_mask(model, "a folder of models")
        check_stationary(model, "a folder of models")
    except (ValueError, OSError) as error:
        raise _unreadable(path, error) from error
    found = ModelFile(path, model, *map(_names, names))
    batch = found.model.reward.shape[:-2]
    if batch:
        raise FamilyError(
            f"folder `{path.parent}`: `{path.name}` must hold one model, found a batch "
            f"of shape {batch}",
            "write one model to each file",
        )
    return found


def _unreadable(path: Path, error: Exception) -> FamilyError:
    first = str(error).splitlines()[0]
    return FamilyError(
        f"folder `{path.parent}`: `{path.name}` cannot be read: {first}",
        "correct the file, or remove it",
    )


def _names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names; () if they are only numbers."""
    return () if names == tuple(map(str, range(len(names)))) else names


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a model."""
    return {
        name: np.shape(value)
        for name, value in vars(model).items()
        if name not in ("alpha", "discount") and value is not None
    }


def _check_equal(
    what: str,
    first: tuple[Path, Any],
    others: Sequence[tuple[Path, Any]],
    hint: str = "",
) -> None:
    """Raise `FamilyError` for the first file whose value differs from `first`."""
    for path, value in others:
        if value == first[1]:
            continue
        mine, theirs = first[1], value
        if isinstance(value, dict):  # of shapes: report the first that differs
            name = next(n for n in {**mine, **theirs} if mine.get(n) != theirs.get(n))
            what = f"shape of {name}"
            mine, theirs = (x.get(name, "none") for x in (mine, theirs))
        raise FamilyError(
            f"folder `{path.parent}`: files must have the same {what}, found {mine} "
            f"in `{first[0].name}` and {theirs} in `{path.name}`",
            hint or f"correct or remove `{path.name}`",
        )
