"""Registry of model file formats.

A format is one module of this package whose name begins with `format_`; it registers
itself:

    register_format(ModelFormat("text", (".txt",), read=read_text, kind=text_kind))

`load_model` and folders of models then read files with its suffixes.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sdm.tasks.models import Model

PACKAGE = "sdm.tasks"
PREFIX = "format_"


class NamedModel(NamedTuple):
    """A model and the names in its file.

    Attributes:
        model: the model.
        states: the name of each state; () if the file has none.
        actions: the name of each action; () if the file has none.
        observations: the name of each observation; () if the file has none.

    """

    model: Model
    states: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    observations: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelFormat:
    """A file format of models.

    Attributes:
        name: name in messages.
        suffixes: ends of file names in lower case, such as `.pomdp.gz`.
        read: reads a file; raises `ValueError` or `OSError`.
        kind: returns the name of the model's class, without reading its arrays.
        default: whether `load_model` also reads files with unknown suffixes with it.

    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Path], NamedModel]
    kind: Callable[[Path], str]
    default: bool = False


_formats: dict[str, ModelFormat] = {}


def register_format(new: ModelFormat) -> None:
    """Register a format.

    Raises:
        ValueError: if another format has one of its suffixes.

    """
    for suffix in new.suffixes:
        known = _formats.setdefault(suffix, new)
        if known.name != new.name:
            raise ValueError(
                f"format `{new.name}`: `{suffix}` is a suffix of `{known.name}` already"
            )


@cache
def _load_all() -> None:
    package = importlib.import_module(PACKAGE)
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith(PREFIX):
            importlib.import_module(f"{PACKAGE}.{module.name}")


def suffixes() -> tuple[str, ...]:
    """Return the suffixes of all formats in lower case."""
    _load_all()
    return tuple(sorted(_formats))


def format_of(path: Path) -> ModelFormat:
    """Return the format of a file by its name."""
    _load_all()
    name = path.name.lower()
    for suffix, known in _formats.items():
        if name.endswith(suffix):
            return known
    return next(known for known in _formats.values() if known.default)
