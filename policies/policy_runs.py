"""Folders of learned policies other than language models.

policy.json         what it is, how it was trained, on what machine
policy.safetensors  its arrays
metrics.jsonl       the loss
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sdm.storage.files import StorageError, temporary_name, write_atomically
from sdm.storage.provenance import provenance

ABOUT, ARRAYS = "policy.json", "policy.safetensors"
VERSION = 2
TASKS = ("family", "kind", "family_config", "observes_reward", "horizon")


@dataclass(frozen=True)
class PolicyRecord:
    """What a folder says about its policy.

    Attributes:
        tasks: what the training data's manifest says of its tasks: family, kind,
            family_config, observes_reward and horizon.
        config: of the training.
        shape: of the network, if there is one.
        report: how the training went.

    """

    tasks: dict[str, Any]
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


def save_policy_run(folder: Path, run: LearnedRun, *, by_torch: bool) -> None:
    """Fill a policy's folder, with the versions and the device that trained it."""
    with temporary_name(folder / ARRAYS) as temporary:
        save_file(dict(run.arrays), temporary)
    about = {
        "version": VERSION,
        "kind": run.kind,
        **asdict(run.about),
        "environment": provenance(by_torch=by_torch),
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
    if found != kind:
        raise StorageError(f"`{folder}`: a `{found}` policy, expected `{kind}`", make)
    if version != VERSION:
        again = f"train it again with `sdm train {kind}`"
        raise StorageError(
            f"`{folder}`: policy version {version}, expected {VERSION}", again
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


def tasks_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of its tasks."""
    return {name: manifest[name] for name in TASKS}
