"""Policies in `.npy` and `.npz` files: tables of action probabilities.

An `.npz` file has the entry `probabilities` [S, A], or [T, S, A] with stages, and can
have the names `observations` [S] and `actions` [A]. An `.npy` file has the
probabilities only. Observations and actions without names are numbered from 0.
"""

from pathlib import Path

import numpy as np

from sdm.data.logs import Logs
from sdm.data.off_policy.align import aligned
from sdm.data.off_policy.logged_policy import (
    PolicyOptions,
    TablePolicy,
    register_logged_policy,
)
from sdm.storage.arrays import read_array, read_arrays

SUFFIXES = (".npy", ".npz")
POLICY = "policy.npz"  # in the folder of a plan
NAMES = ("observations", "actions")


@register_logged_policy("a `.npz` or `.npy` file of probabilities, or a plan's folder")
def table_file(text: str, logs: Logs, options: PolicyOptions) -> TablePolicy | None:
    """Read a policy from a file; return None for other names.

    Raises:
        ValueError: if the file does not exist, or has no table for these logs.

    """
    path = Path(text)
    if (path / POLICY).is_file():
        path = path / POLICY
    if path.suffix not in SUFFIXES:
        return None
    if not path.is_file():
        raise ValueError(f"policy `{text}`: the file does not exist")
    arrays = _arrays(path)
    table = arrays.get("probabilities")
    if table is None or table.ndim not in (2, 3) or table.dtype.kind not in "biuf":
        found = "none" if table is None else f"shape {table.shape}, {table.dtype}"
        raise ValueError(
            f"policy `{text}`: probabilities must be numbers [S, A] or [T, S, A], "
            f"found {found}"
        )
    table = np.asarray(table, np.float64).reshape(-1, *table.shape[-2:])
    names = [
        None if name not in arrays else [str(x) for x in arrays[name]] for name in NAMES
    ]
    for name, given, size in zip(NAMES, names, table.shape[1:], strict=True):
        if given is not None and len(given) != size:
            raise ValueError(
                f"policy `{text}`: {name} must have {size} names, found {len(given)}"
            )
    return TablePolicy(
        aligned(table, logs, observations=names[0], actions=names[1], where=text)
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name."""
    if path.suffix == SUFFIXES[0]:
        return {"probabilities": read_array(path)}
    return read_arrays(path)
