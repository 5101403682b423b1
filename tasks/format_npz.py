"""Arrays in `.npz` as a model file format; see `model_files`."""

from pathlib import Path

from sdm.storage.arrays import read_arrays
from sdm.tasks.model_files import load_npz, read_npz
from sdm.tasks.model_formats import ModelFormat, register_format


def _kind(path: Path) -> str:
    try:
        return str(read_arrays(path, names=["kind"])["kind"])
    except ValueError:  # reading the model raises an error that names the problem
        return type(load_npz(path)).__name__


register_format(ModelFormat(".npz", (".npz",), read=read_npz, kind=_kind))
