"""Folders of learned policies other than language models.

policy.json         what it is, how it was trained, on what machine
policy.safetensors  its arrays
metrics.jsonl       the loss
"""

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

import sdm
from sdm.storage.files import StorageError, temporary_name, write_atomically

ABOUT, ARRAYS = "policy.json", "policy.safetensors"
VERSION = 1


@dataclass(frozen=True)
class PolicyRecord:
    """What a folder says about its policy.

    Attributes:
        setting: of the training data.
        horizon: of the training data.
        family: where its tasks come from.
        config: of the training.
        shape: of the network, if there is one.
        report: how the training went.

    """

    setting: str
    horizon: int
    family: Mapping[str, Any]
    config: Mapping[str, Any]
    shape: Mapping[str, Any]
    report: Mapping[str, Any]


@dataclass(frozen=True)
class LearnedRun:
    """A learned policy as it is kept.

    Attributes:
        kind: `dpt` or `cql`.
        arrays: what was learned.
        about: how.

    """

    kind: str
    arrays: Mapping[str, np.ndarray]
    about: PolicyRecord


def save_policy_run(
    folder: Path, run: LearnedRun, *, packages: Sequence[str], device: str
) -> None:
    """Fill a policy's folder, with the versions of the packages that learned it."""
    with temporary_name(folder / ARRAYS) as temporary:
        save_file(dict(run.arrays), temporary)
    about = {
        "version": VERSION,
        "kind": run.kind,
        **asdict(run.about),
        "environment": {
            "sdm": sdm.__version__,
            "python": platform.python_version(),
            "device": device,
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }
    write_atomically(folder / ABOUT, json.dumps(about, indent=2) + "\n")


def load_policy_run(folder: Path, kind: str) -> LearnedRun:
    """Load what `save_policy_run` wrote.

    Raises:
        StorageError: if `folder` is not the folder of such a policy.

    """
    make = f"make one with `sdm train {kind} --out FOLDER`"
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        version, found = about["version"], about["kind"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"`{folder}` holds no policy: {ABOUT} is missing or damaged", make
        ) from error
    if (version, found) != (VERSION, kind):
        raise StorageError(
            f"`{folder}` holds a `{found}` policy of version {version}: "
            f"`{kind}` of version {VERSION} is asked for",
            make,
        )
    try:
        record = PolicyRecord(
            **{name: about[name] for name in PolicyRecord.__dataclass_fields__}
        )
        arrays = load_file(folder / ARRAYS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise StorageError(
            f"`{folder}` is not whole: {ABOUT} or {ARRAYS} is missing or damaged",
            make,
        ) from error
    return LearnedRun(kind, arrays, record)
