"""Folders of learned policies other than language models.

policy.json         kind, training tasks, configuration, results and machine
policy.safetensors  learned arrays
metrics.jsonl       loss during training
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
from sdm.storage.ownership import check_finished
from sdm.storage.provenance import provenance

ABOUT, ARRAYS = "policy.json", "policy.safetensors"
VERSION = 2
TASKS = ("family", "kind", "family_config", "observes_reward", "horizon")


@dataclass(frozen=True)
class PolicyRecord:
    """What a folder records about its policy.

    Attributes:
        tasks: the training tasks, from the dataset's manifest: family, kind,
            family_config, observes_reward and horizon.
        config: options of the training.
        shape: dimensions of the network; empty if there is none.
        report: loss, seconds and steps of the training.

    """

    tasks: dict[str, Any]
    config: Mapping[str, Any]
    shape: Mapping[str, Any]
    report: Mapping[str, Any]


@dataclass(frozen=True)
class LearnedRun:
    """A learned policy as it is stored.

    Attributes:
        kind: name of the learner, such as `dpt` or `cql`.
        arrays: the learned arrays by name.
        about: tasks, options and results of the training.

    """

    kind: str
    arrays: Mapping[str, np.ndarray]
    about: PolicyRecord


def save_policy_run(folder: Path, run: LearnedRun, *, by_torch: bool) -> None:
    """Write a policy into its folder, with versions and device of the training.

    Args:
        folder: the folder.
        run: the policy.
        by_torch: whether PyTorch trained it; else, JAX.

    """
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
    """Load a policy that `save_policy_run` wrote.

    Args:
        folder: the folder of the policy.
        kind: expected name of the learner.

    Raises:
        StorageError: if `folder` is not the folder of a policy of this kind.

    """
    make = f"make one with `sdm train {kind} --out FOLDER`"
    check_finished(folder)
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        version, found = about["version"], about["kind"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
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
            f"`{folder}` is incomplete: {ABOUT} or {ARRAYS} is missing or damaged",
            make,
        ) from error
    return LearnedRun(kind, arrays, record)


def tasks_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a manifest that describe its tasks."""
    return {name: manifest[name] for name in TASKS}
