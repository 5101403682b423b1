"""Whether a policy was learned from the very logs on which it is evaluated."""

import json
from pathlib import Path
from typing import Any

from sdm.data.estimation.files import digest_of
from sdm.solvers_jax.solution_files import MANIFEST

CONFIG = "config.json"  # how `sdm estimate` and `sdm plan` made a folder
OPTIMISTIC = (
    "it was made from these very logs: the values that it promises are too high, and "
    "so are all estimates here; evaluate it on episodes that were held out"
)


def learned_from(policy: Path, logs: Path) -> bool:
    """Return whether a plan, or a solution's model, was made from these logs.

    Args:
        policy: folder of `sdm plan --out` or its policy, or folder that `sdm solve
            --model FILE --out` wrote; other paths are not learned from logs.
        logs: file or folder of the logs, which may have moved since.

    """
    if made_from(policy.parent if policy.is_file() else policy, logs):
        return True
    model = _json(policy / MANIFEST).get("model")
    if not isinstance(model, dict) or "file" not in model:
        return False
    return made_from(Path(model["file"]).parent, logs)


def made_from(folder: Path, logs: Path) -> bool:
    """Return whether `sdm estimate` or `sdm plan` made a folder from these logs."""
    about = _json(folder / CONFIG).get("logs")
    return isinstance(about, dict) and about.get("sha256") == digest_of(logs)


def _json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
