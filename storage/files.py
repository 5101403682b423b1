"""Files and folders written so that nothing is lost: whole, or not at all. No JAX here.

A file is written under a temporary name and renamed. A folder grows as `FOLDER.partial`
and is renamed when it is whole; the plan in it says how it was, or was to be, made.
Interrupted work is gone on with only under the same plan, and nothing is replaced that
is not this package's work.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PLAN = "plan.json"
MADE_BY = {"made_by": "sdm"}  # in the plan of every folder, which stays in it


class StorageError(ValueError):
    """What cannot be read from disk, or a place where it cannot be written."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep what is wrong and what to do about it apart."""
        super().__init__(message)
        self.hint = hint


def write_atomically(path: Path, text: str) -> None:
    """Write a text file under a temporary name, then rename it."""
    with temporary_name(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def temporary_name(path: Path) -> Iterator[Path]:
    """A name to write under, which becomes `path` when the block is left.

    Raises:
        OSError: if `path` cannot be written; nothing is left of it then.

    """
    if path.is_dir():
        raise IsADirectoryError(f"`{path}` is a folder: name a file to write")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder `{path.parent}`")
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_output_file(path: Path, *, overwrite: bool) -> None:
    """Raise `StorageError` where a file could not be written; make its folder.

    Call it before the work whose result goes there.
    """
    if path.is_dir():
        raise StorageError(f"`{path}` is a folder", "name a file to write")
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
    """Raise `StorageError` where the system does not let `path` be written."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"`{path}` cannot be written: {error.strerror}", "choose another place"
        ) from error


def partial_folder(out: Path) -> Path:
    """Where the folder `out` grows until it is finished."""
    return out.with_name(out.name + ".partial")


@contextmanager
def folder_in_progress(
    out: Path,
    plan: Mapping[str, Any],
    *,
    inputs: tuple[Path, ...] = (),
    resume: bool = False,
    overwrite: bool = False,
    resumable: bool = True,
) -> Iterator[Path]:
    """Fill a partial folder, which becomes `out` when the block is left.

    Where the block raises, the partial folder stays, to be resumed; if nothing but the
    plan is in it, it goes too.

    Args:
        out: the folder to make.
        plan: everything that decides its content; a resumed run must have the same.
        inputs: what is read meanwhile, and so must not be replaced.
        resume: go on with an unfinished partial folder.
        overwrite: replace `out`, and an unfinished partial folder unless `resume`.
        resumable: whether an unfinished one can be gone on with at all.

    Raises:
        StorageError: if `out` exists and `overwrite` is not given; if an unfinished
            folder exists and neither `resume` nor `overwrite` is; if it was begun with
            another plan; if what would be replaced is not this package's work, or holds
            an input.

    """
    for place in inputs:
        if out.resolve() in (place.resolve(), *place.resolve().parents):
            raise StorageError(
                f"`{out}` would take the place of `{place}`, which is needed",
                "choose another name",
            )
    if not resumable and partial_folder(out).exists():
        _check_replaceable(partial_folder(out))
        shutil.rmtree(partial_folder(out))  # nothing could be made of it
    partial = _begin(out, plan, resume=resume, overwrite=overwrite)
    try:
        yield partial
    except BaseException:
        if not any(path.is_file() and path.name != PLAN for path in partial.rglob("*")):
            shutil.rmtree(partial)
        raise
    _finish(partial, out)


@contextmanager
def file_in_progress(
    out: Path,
    plan: Mapping[str, Any],
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Iterator[Path]:
    """A folder for what is done on the way to the file `out`; it goes with success.

    Where the block raises, it stays, to be resumed.

    Raises:
        StorageError: if `out` cannot be written, or exists and `overwrite` is not
            given; for the folder, as `folder_in_progress`.

    """
    check_output_file(out, overwrite=overwrite)
    partial = _begin_partial(out, plan, resume=resume, overwrite=overwrite)
    yield partial
    shutil.rmtree(partial)


def _begin(
    out: Path, plan: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> Path:
    """Make or reopen the partial folder of the folder `out`, and return it."""
    if out.exists() and not overwrite:
        if not _is_ours(out):
            raise StorageError(
                f"`{out}` exists already, and was not written by sdm",
                "choose another name",
            )
        if resume and _read_plan(out) == _as_read(plan):
            raise StorageError(
                f"`{out}` is finished already: there is nothing to resume",
                "use it; or `--overwrite` without `--resume` makes it again",
            )
        raise StorageError(
            f"`{out}` exists already", "pass `--overwrite` to replace it"
        )
    here = Path.cwd()
    if out.resolve() in (here, *here.parents):
        raise StorageError(f"`{out}` holds the working folder", "choose another name")
    _check_replaceable(out)
    return _begin_partial(out, plan, resume=resume, overwrite=overwrite)


def _begin_partial(
    out: Path, plan: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> Path:
    """Make or reopen the partial folder of `out`, whatever that is."""
    _check_replaceable(partial_folder(out))
    partial = partial_folder(out)
    if partial.exists() and not resume:
        if not overwrite:
            raise StorageError(
                f"`{partial}` holds an unfinished run",
                "pass `--resume` to go on with it, or `--overwrite` to start again",
            )
        shutil.rmtree(partial)
    if (partial / PLAN).exists():
        if changed := _difference(_read_plan(partial), _as_read(plan)):
            raise StorageError(
                f"`{partial}` was begun with other options: {changed}",
                f"repeat those in `{partial / PLAN}`, or pass `--overwrite` without "
                "`--resume` to start again",
            )
    else:
        with _writing(out):
            partial.mkdir(parents=True, exist_ok=True)
            text = json.dumps({**MADE_BY, **plan}, indent=2) + "\n"
            write_atomically(partial / PLAN, text)
    return partial


def _as_read(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A plan as it comes back from its file."""
    read: dict[str, Any] = json.loads(json.dumps({**MADE_BY, **plan}))
    return read


def _read_plan(folder: Path) -> dict[str, Any]:
    """How a folder was, or was to be, made; nothing where it does not say."""
    try:
        plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return plan if isinstance(plan, dict) else {}


def _difference(before: Any, now: Any, name: str = "") -> str:
    """The first value that differs between two plans, in words; "" if none does."""
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


def _is_ours(folder: Path) -> bool:
    """Whether a folder, or one in progress, is this package's work."""
    if not folder.is_dir():
        return False
    if _read_plan(folder).items() >= MADE_BY.items():
        return True
    return [path.name for path in folder.iterdir()] in ([], [PLAN + ".tmp"])


def _check_replaceable(folder: Path) -> None:
    """Raise `StorageError` for a folder with other content than this package's."""
    if folder.exists() and not _is_ours(folder):
        raise StorageError(
            f"`{folder}` was not written by sdm: it is not replaced",
            "choose another name, or remove it yourself",
        )


def _finish(partial: Path, out: Path) -> None:
    """Give a finished folder its name, replacing what had it."""
    if out.exists():
        shutil.rmtree(out)
    os.replace(partial, out)
