"""Write an estimate to a folder: model files, how they were made, and a report.

NAME.npz      the model of each task, which `sdm solve --model` reads
config.json   how they were made
results.json  the report
README.md     the report in words
estimate.png  its figures, if matplotlib is installed
"""

import hashlib
import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdm.data.estimation.config import EstimationConfig
from sdm.data.estimation.estimator import Estimate, Estimator
from sdm.data.estimation.figures import save_figures
from sdm.data.estimation.report import report_text
from sdm.data.logs import Logs
from sdm.storage.files import folder_in_progress, write_atomically
from sdm.storage.provenance import provenance
from sdm.tasks.model_files import save_npz

FIGURE = "estimate.png"


def write_estimate(
    out: Path,
    source: Path,
    logs: Logs,
    estimator: Estimator,
    config: EstimationConfig,
    make: Callable[[], tuple[Estimate, dict[str, Any]]],
    *,
    seed: int,
    overwrite: bool,
) -> dict[str, Any]:
    """Write the estimate that `make` returns, and return its report with `models`.

    Args:
        out: the folder to write.
        source: file or folder of the logs.
        logs: the episodes, for the figures.
        estimator: the estimator.
        config: what the estimate assumes.
        make: estimates the models, and returns the report.
        seed: random seed.
        overwrite: whether to replace `out`.

    Raises:
        StorageError: if the folder exists or cannot be written.

    """
    plan = {
        "command": "estimate",
        "logs": {"path": str(source), "sha256": digest_of(source)},
        "estimator": {"name": estimator.name, **asdict(estimator)},  # type: ignore[call-overload]
        "config": asdict(config),
        "seed": seed,
    }
    with folder_in_progress(
        out, plan, inputs=(source,), overwrite=overwrite, resumable=False
    ) as folder:
        found, report = make()
        files = model_names(logs.tasks)
        for name, model in zip(files, found.models, strict=True):
            save_npz(
                model,
                folder / name,
                states=found.states,
                actions=found.actions,
                observations=found.observations,
            )
        report |= {"models": dict(zip(logs.tasks, files, strict=True))}
        figure = importlib.util.find_spec("matplotlib") is not None
        if figure:
            save_figures(logs, found, config, folder / FIGURE)
        made = {**plan, "provenance": provenance(by_torch=False)}
        for name, text in (
            ("config.json", json.dumps(made, indent=2) + "\n"),
            ("results.json", json.dumps(report, indent=2, allow_nan=False) + "\n"),
            ("README.md", report_text(report, plan, FIGURE if figure else None)),
        ):
            write_atomically(folder / name, text)
    return report


def model_names(tasks: tuple[str, ...]) -> tuple[str, ...]:
    """Return a file name for each task, in the order of the tasks."""
    if len(tasks) == 1:
        return ("model.npz",)
    width = len(str(len(tasks) - 1))
    return tuple(
        f"{i:0{width}d}-{plain_name(task)}.npz" for i, task in enumerate(tasks)
    )


def plain_name(task: str) -> str:
    """Return the name of a task without what file names should not have."""
    return re.sub(r"[^\w.-]+", "-", task).strip("-.")


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents in a folder."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    every = hashlib.sha256()
    for each in sorted(x for x in path.rglob("*") if x.is_file()):
        every.update(f"{each.relative_to(path)} {digest_of(each)}\n".encode())
    return every.hexdigest()
