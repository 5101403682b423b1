"""Write files and folders atomically. This module does not import JAX.

A file is written under a temporary name and then renamed. A folder is written as
`FOLDER.partial` and renamed when it is complete; the plan in it records the
configuration. Interrupted work can only be resumed with the same plan, and files and
folders of other programs are never replaced. A complete folder of Parquet files has its
plan in its `notes`. A lock beside the partial folder lets only one process write it.

A process can be killed at any time: what has its final name is complete.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from sdm.storage.locks import locked
from sdm.storage.notes import NOTES
from sdm.storage.ownership import (
    MADE_BY,
    TEMPORARY,
    changed_option,
    check_absent,
    check_not_begun,
    check_replaceable,
    is_ours,
    put_in_place,
    remove_folder,
    replaced_folder,
)
from sdm.storage.ownership import PLAN as PLAN
from sdm.storage.ownership import StorageError as StorageError
from sdm.storage.ownership import partial_folder as partial_folder
from sdm.storage.ownership import read_plan as read_plan


class WriteError(OSError):
    """A file that cannot be written, such as on a full disk."""

    hint = "free space or choose another place, then repeat the command"


def write_atomically(path: Path, text: str) -> None:
    """Write a text file under a temporary name, then rename it."""
    with temporary_name(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def temporary_name(path: Path) -> Iterator[Path]:
    """Yield a temporary path, and rename it to `path` at the end of the block.

    Two processes that write one file have different temporary names.

    Raises:
        OSError: if `path` cannot be written; the temporary file is then removed.

    """
    if path.is_dir():
        raise IsADirectoryError(f"`{path}` is a folder: pass a file name")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"folder `{path.parent}` does not exist")
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.strerror:
            raise WriteError(f"`{path}` cannot be written: {error.strerror}") from error
        raise


def check_output_file(path: Path, *, overwrite: bool) -> None:
    """Raise `StorageError` if a file cannot be written; create its parent folder.

    Call this function before computing the content.
    """
    if path.is_dir():
        raise StorageError(f"`{path}` is a folder", "pass a file name")
    if path.exists() and not overwrite:
        raise StorageError(
            f"`{path}` exists already", "pass `--overwrite` to replace it"
        )
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` from writing `path` into a `StorageError`."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise StorageError(
            f"`{path}` cannot be written: {error.strerror}", "choose another place"
        ) from error


@contextmanager
def folder_in_progress(
    out: Path,
    plan: Mapping[str, Any],
    *,
    inputs: tuple[Path, ...] = (),
    resume: bool = False,
    overwrite: bool = False,
    resumable: bool = True,
    is_damaged: Callable[[Path], bool] = lambda out: False,
) -> Iterator[Path]:
    """Yield a partial folder, and rename it to `out` at the end of the block.

    If the block raises, the partial folder remains and can be resumed; it is removed if
    it contains only the plan.

    Args:
        out: the folder to write.
        plan: configuration that determines the content; it must be equal to resume.
        inputs: paths that the block reads, which must not be replaced.
        resume: whether to continue an unfinished partial folder.
        overwrite: whether to replace `out` and, without `resume`, an unfinished partial
            folder.
        resumable: whether an unfinished folder can be resumed; else it is replaced.
        is_damaged: whether a complete folder lacks parts, which `resume` makes again.

    Raises:
        StorageError: if `out` exists without `overwrite`; if an unfinished folder
            exists without `resume` or `overwrite`, or has another plan; if the folder
            to replace was not written by sdm or contains an input.
        LockedError: if another process writes it.

    """
    for place in inputs:
        if out.resolve() in (place.resolve(), *place.resolve().parents):
            raise StorageError(
                f"`{out}` would replace the input `{place}`",
                "choose another name",
            )
    with _only_writer(out):
        if not resumable and partial_folder(out).exists():
            check_replaceable(partial_folder(out))
            remove_folder(partial_folder(out))  # it cannot be resumed
        if resume and not overwrite and read_plan(out).items() >= MADE_BY.items():
            _reopen(out, plan, is_damaged)
        partial = _begin(out, plan, resume=resume, overwrite=overwrite)
        with _no_mere_plan(partial):
            yield partial
        put_in_place(partial, out)


@contextmanager
def _no_mere_plan(partial: Path) -> Iterator[None]:
    """Remove a partial folder that contains only the plan if the block raises."""
    try:
        yield
    except BaseException:
        files = (path for path in partial.rglob("*") if path.is_file())
        if not any(path.name != PLAN for path in files):
            with suppress(OSError):
                remove_folder(partial)
        raise


@contextmanager
def _only_writer(out: Path) -> Iterator[None]:
    """Hold the lock of the partial folder of `out`; create its parent folder.

    A folder that cannot be written has no lock: what follows says why.
    """
    partial = partial_folder(out)
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=partial.parent):
            writable = True
    except OSError:
        writable = False
    with locked(partial) if writable else nullcontext():
        yield


@contextmanager
def file_in_progress(
    out: Path,
    plan: Mapping[str, Any],
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Iterator[Path]:
    """Yield a folder for intermediate results of the file `out`; remove it on success.

    If the block raises, the folder remains and can be resumed; it is removed if it
    contains only the plan.

    Raises:
        StorageError: if `out` cannot be written or exists without `overwrite`; for the
            folder, as in `folder_in_progress`.
        LockedError: if another process writes it.

    """
    if resume:
        _remove_left(out)
    check_output_file(out, overwrite=overwrite)
    with _only_writer(out):
        partial = _begin_partial(out, plan, resume=resume, overwrite=overwrite)
        with _no_mere_plan(partial):
            yield partial
        remove_folder(partial)


def _remove_left(out: Path) -> None:
    """Remove the folder of a process that was killed after it had written `out`."""
    partial = partial_folder(out)
    if not (out.is_file() and partial.is_dir() and is_ours(partial)):
        return
    written = out.stat().st_mtime_ns
    if all(x.stat().st_mtime_ns <= written for x in partial.rglob("*") if x.is_file()):
        with _only_writer(out):
            remove_folder(partial)


def _reopen(
    out: Path, plan: Mapping[str, Any], is_damaged: Callable[[Path], bool]
) -> None:
    """Rename a damaged folder to its partial folder.

    Raises:
        StorageError: if it is whole, or has another plan.

    """
    if changed := changed_option(out, plan):
        raise StorageError(
            f"`{out}` exists already, and was made with other options: {changed}",
            "repeat those options, or pass `--overwrite` without `--resume` to "
            "replace it",
        )
    if not is_damaged(out):
        raise StorageError(
            f"`{out}` is already complete: there is nothing to resume",
            "use it, or pass `--overwrite` without `--resume` to replace it",
        )
    if not partial_folder(out).exists():
        os.replace(out, partial_folder(out))


def _begin(
    out: Path, plan: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> Path:
    """Create or reopen the partial folder of the folder `out`, and return it."""
    check_absent(out, overwrite=overwrite)
    here = Path.cwd()
    if out.resolve() in (here, *here.parents):
        raise StorageError(
            f"`{out}` contains the working folder", "choose another name"
        )
    check_replaceable(out)
    check_replaceable(replaced_folder(out))
    if out.exists() and replaced_folder(out).exists():  # left by a killed process
        remove_folder(replaced_folder(out))
    return _begin_partial(out, plan, resume=resume, overwrite=overwrite)


def _begin_partial(
    out: Path, plan: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> Path:
    """Create or reopen the partial folder of the file or folder `out`."""
    check_replaceable(partial_folder(out))
    partial = partial_folder(out)
    if read_plan(partial) and not resume:
        if not overwrite:
            check_not_begun(partial)
        remove_folder(partial)
    if (partial / PLAN).exists() or (partial / NOTES).exists():
        if changed := changed_option(partial, plan):
            raise StorageError(
                f"`{partial}` was started with other options: {changed}",
                f"use the options in `{partial / PLAN}`, or pass `--overwrite` without "
                "`--resume` to start again",
            )
    else:
        with _writing(out):
            partial.mkdir(parents=True, exist_ok=True)
            text = json.dumps({**MADE_BY, **plan}, indent=2) + "\n"
            write_atomically(partial / PLAN, text)
    return partial
