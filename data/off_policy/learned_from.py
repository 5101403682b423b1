"""Whether a policy was learned from the very logs on which it is evaluated."""

import json
from pathlib import Path
from typing import Any

import yaml

from sdm.data.estimation.files import digest_of
from sdm.data.shards import read_manifest
from sdm.solvers_jax.solution_files import MANIFEST
from sdm.storage.files import StorageError

CONFIG = "config.json"  # how `sdm estimate` and `sdm plan` made a folder
RUN, POLICY = "config.yaml", "policy.json"  # how `sdm finetune` and `sdm train` did
OPTIMISTIC = (
    "it was made from these very logs: the values that it promises are too high, and "
    "so are all estimates here; evaluate it on episodes that were held out"
)


def learned_from(policy: str, logs: Path) -> bool:
    """Return whether a policy, or the models that it knows, came from these logs.

    Args:
        policy: name of the policy: folder of `sdm plan --out` or its policy, folder
            that `sdm solve --model FILE --out` wrote, run folder of a language model or
            of `sdm train`; others are not learned from logs.
        logs: file or folder of the logs, which may have moved since.

    """
    path = Path(policy.rpartition(":")[2] if not Path(policy).exists() else policy)
    if made_from(path.parent if path.is_file() else path, logs):
        return True
    model = _json(path / MANIFEST).get("model")
    if isinstance(model, dict) and "file" in model:
        return made_from(Path(model["file"]).parent, logs)
    run = _yaml(path / RUN)
    data = run.get("finetune", {}).get("data") if isinstance(run, dict) else None
    if data is not None and _logs_of_dataset(Path(data)) == digest_of(logs):
        return True
    for about in (run, _json(path / POLICY).get("tasks")):
        options = about.get("family_config") if isinstance(about, dict) else None
        if isinstance(options, dict) and "path" in options:
            return made_from(Path(options["path"]), logs)
    return False


def made_from(folder: Path, logs: Path) -> bool:
    """Return whether `sdm estimate` or `sdm plan` made a folder from these logs."""
    about = _json(folder / CONFIG).get("logs")
    return isinstance(about, dict) and about.get("sha256") == digest_of(logs)


def _logs_of_dataset(folder: Path) -> str | None:
    """Return the digest of the logs that `sdm demonstrate` made a dataset of."""
    try:
        about = read_manifest(folder).get("logs")
    except StorageError:
        return None
    return about.get("sha256") if isinstance(about, dict) else None


def _json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _yaml(path: Path) -> Any:
    """Return what is in a YAML file; None if it cannot be read."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
