"""Folders that sdm wrote: how they are recognized, checked, removed and replaced.

The plan of a folder identifies it. It is removed last, so that a process that is killed
while it removes a folder leaves one that sdm still recognizes. This module does not
import JAX.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdm.storage.notes import NOTES, read_notes

PLAN = "plan.json"
MADE_BY = {"made_by": "sdm"}  # entry of every plan, which identifies our folders
PARTIAL, REPLACED, TEMPORARY = ".partial", ".replaced", ".tmp"


class StorageError(ValueError):
    """A file or folder that cannot be read or written."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Set the message, and the hint on how to fix it."""
        super().__init__(message)
        self.hint = hint


def partial_folder(out: Path) -> Path:
    """Return the path of the folder `out` until it is complete."""
    return _beside(out, PARTIAL)


def replaced_folder(out: Path) -> Path:
    """Return the path of an older folder `out` while a new one takes its place."""
    return _beside(out, REPLACED)


def _beside(out: Path, end: str) -> Path:
    """Return the path of a folder with an ending; `.` and `..` have no own name."""
    named = out if out.name not in ("", "..") else out.resolve()
    return named.with_name(named.name + end)


def read_plan(folder: Path) -> dict[str, Any]:
    """Return the plan of a folder, or an empty one if it has none."""
    path = folder / PLAN
    try:
        if path.is_file():
            plan = json.loads(path.read_text(encoding="utf-8"))
        else:
            plan = json.loads(read_notes(folder).get(PLAN, "{}"))
    except (OSError, ValueError, RecursionError):
        return {}
    return plan if isinstance(plan, dict) else {}


def changed_option(folder: Path, plan: Mapping[str, Any]) -> str:
    """Describe the first difference of a plan to that of a folder; "" if equal."""
    return _difference(read_plan(folder), json.loads(json.dumps({**MADE_BY, **plan})))


def _difference(before: Any, now: Any, name: str = "") -> str:
    """Describe the first difference between two plans; "" if they are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = (
            _difference(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
            for key in [*before, *(key for key in now if key not in before)]
        )
        return next(filter(None, found), "")
    if before == now:
        return ""
    if isinstance(before, list) or isinstance(now, list):
        return f"{name} differs"
    return f"{name} was {json.dumps(before)} and is {json.dumps(now)}"


def is_ours(folder: Path) -> bool:
    """Return whether sdm wrote a complete, partial or partly removed folder."""
    if not folder.is_dir():
        return False
    if read_plan(folder).items() >= MADE_BY.items() or (folder / NOTES).is_file():
        return True
    files = (path for path in folder.rglob("*") if not path.is_dir())
    return all(path.suffix == TEMPORARY for path in files)


def check_replaceable(folder: Path) -> None:
    """Raise `StorageError` if sdm did not write the folder."""
    if folder.exists() and not is_ours(folder):
        raise StorageError(
            f"`{folder}` was not written by sdm and is not replaced",
            "choose another name, or remove the folder",
        )


def check_finished(folder: Path) -> None:
    """Raise `StorageError` if a folder is the unfinished output of a command."""
    if folder.name.endswith(PARTIAL) and read_plan(folder).items() >= MADE_BY.items():
        raise StorageError(
            f"`{folder}` is the unfinished output of a command",
            "repeat that command, with `--resume` if it has it",
        )


def check_absent(out: Path, *, overwrite: bool) -> None:
    """Raise `StorageError` if a folder exists and is not to be replaced."""
    if out.exists() and not overwrite:
        if not is_ours(out):
            raise StorageError(
                f"`{out}` exists already and was not written by sdm",
                "choose another name",
            )
        raise StorageError(
            f"`{out}` exists already", "pass `--overwrite` to replace it"
        )


def check_new_folder(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise `StorageError` if `folder_in_progress` will refuse a folder that exists.

    Call this function before long imports. Of several processes, the first one checks.
    """
    if resume or overwrite or os.environ.get("RANK", "0") != "0":
        return
    check_absent(out, overwrite=False)
    check_not_begun(partial_folder(out))


def check_not_begun(partial: Path) -> None:
    """Raise `StorageError` if a partial folder has an unfinished run."""
    if read_plan(partial):
        raise StorageError(
            f"`{partial}` contains an unfinished run",
            "pass `--resume` to continue it, or `--overwrite` to start again",
        )


def remove_folder(folder: Path) -> None:
    """Remove a folder that sdm wrote, with its plan last."""
    if folder.is_symlink():
        folder.unlink()
        return
    plans = (folder / NOTES.parts[0], folder / PLAN)
    for path in (*(x for x in folder.iterdir() if x not in plans), *plans):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    folder.rmdir()


def put_in_place(partial: Path, out: Path) -> None:
    """Rename a complete folder to `out`; remove an older one only after that."""
    for left in partial.rglob(f"*{TEMPORARY}"):  # of processes that were killed
        left.unlink()
    old = replaced_folder(out)
    if out.exists():
        os.replace(out, old)
    os.replace(partial, out)
    if old.exists():
        remove_folder(old)
