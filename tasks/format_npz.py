"""Arrays in `.npz` as a model file format; see `model_files`."""

from pathlib import Path

import numpy as np

from sdm.tasks.model_files import load_npz, read_npz
from sdm.tasks.model_formats import ModelFormat, register_format


def _kind(path: Path) -> str:
    try:
        with np.load(path, allow_pickle=False) as file:
            return str(file["kind"])
    except Exception:  # reading the model raises an error that names the problem
        return type(load_npz(path)).__name__


register_format(ModelFormat(".npz", (".npz",), read=read_npz, kind=_kind))
