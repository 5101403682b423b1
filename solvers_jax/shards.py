"""Trajectory datasets on disk: Parquet shards beside a manifest. No JAX in here.

One row is one episode of one task; its lists run over the T stages. The shards are
plain Parquet and open with `datasets`, `pandas` or `polars`; `manifest.json` says how
they were made, what the columns mean, and the SHA-256 of every file.

A dataset is written into `FOLDER.partial`, each shard to a temporary name first, and
renamed when it is whole: a folder with a manifest is a finished dataset.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FORMAT = "sdm trajectories"
SCHEMA_VERSION = 3
MANIFEST = "manifest.json"
PLAN = "plan.json"
MADE_BY = {"made_by": "sdm"}  # in the plan of every folder, which stays in it

# What readers of a manifest rely on.
NEEDED = (
    ("setting", str),
    ("horizon", int),
    ("tasks", int),
    ("trajectories", int),
    ("family_config", dict),
    ("shards", list),
)

# Column -> (type, its axes, what it is). Lists have one entry a stage.
COLUMNS: dict[str, tuple[pa.DataType, str, str]] = {
    "task": (pa.int32(), "", "index of the task"),
    "episode": (pa.int32(), "", "index of the episode within its task"),
    "random": (pa.bool_(), "", "whether its actions are random, not the oracle's"),
    "p": (pa.float64(), "", "success probability of an energy task's moves"),
    "goal": (pa.int32(), "", "cell to be found in Darkroom; -1 elsewhere"),
    "value": (
        pa.float64(),
        "",
        "optimal value: return, or α-MEU of an APOMDP",
    ),
    "lower": (pa.float64(), "", "certified lower bound on it; NaN where there is none"),
    "upper": (pa.float64(), "", "certified upper bound on it; NaN where there is none"),
    "error": (
        pa.float64(),
        "",
        "width of the bounds, or estimated error",
    ),
    "oracle_value": (pa.float64(), "", "return of the oracle in the model that runs"),
    "random_value": (pa.float64(), "", "return of random actions in the same model"),
    "divergence": (pa.list_(pa.float64()), "K", "KL divergence of each model, in nats"),
    "observation": (pa.list_(pa.int32()), "T", "what was seen before each decision"),
    "action": (pa.list_(pa.int32()), "T", "what was done"),
    "reward": (pa.list_(pa.float64()), "T", "what it paid"),
    "optimal_action": (pa.list_(pa.int32()), "T", "what the oracle would have done"),
}


class DatasetError(ValueError):
    """A dataset that cannot be read, or a place where none can be written."""

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
    """Raise `DatasetError` where a file could not be written; make its folder.

    Call it before the work whose result goes there.
    """
    if path.is_dir():
        raise DatasetError(f"`{path}` is a folder", "name a file to write")
    if path.exists() and not overwrite:
        raise DatasetError(
            f"`{path}` exists already", "pass `--overwrite` to replace it"
        )
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Raise `DatasetError` where the system does not let `path` be written."""
    try:
        yield
    except OSError as error:
        raise DatasetError(
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
        DatasetError: if `out` exists and `overwrite` is not given; if an unfinished
            folder exists and neither `resume` nor `overwrite` is; if it was begun with
            another plan; if what would be replaced is not this package's work, or holds
            an input.

    """
    for place in inputs:
        if out.resolve() in (place.resolve(), *place.resolve().parents):
            raise DatasetError(
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
        DatasetError: if `out` cannot be written, or exists and `overwrite` is not
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
            raise DatasetError(
                f"`{out}` exists already, and was not written by sdm",
                "choose another name",
            )
        if resume and _read_plan(out) == _as_read(plan):
            raise DatasetError(
                f"`{out}` is finished already: there is nothing to resume",
                "use it; or `--overwrite` without `--resume` makes it again",
            )
        raise DatasetError(
            f"`{out}` exists already", "pass `--overwrite` to replace it"
        )
    here = Path.cwd()
    if out.resolve() in (here, *here.parents):
        raise DatasetError(f"`{out}` holds the working folder", "choose another name")
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
            raise DatasetError(
                f"`{partial}` holds an unfinished run",
                "pass `--resume` to go on with it, or `--overwrite` to start again",
            )
        shutil.rmtree(partial)
    if (partial / PLAN).exists():
        if changed := _difference(_read_plan(partial), _as_read(plan)):
            raise DatasetError(
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
    """Raise `DatasetError` for a folder with other content than this package's."""
    if folder.exists() and not _is_ours(folder):
        raise DatasetError(
            f"`{folder}` was not written by sdm: it is not replaced",
            "choose another name, or remove it yourself",
        )


def _finish(partial: Path, out: Path) -> None:
    """Give a finished folder its name, replacing what had it."""
    if out.exists():
        shutil.rmtree(out)
    os.replace(partial, out)


def write_shard(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write one shard atomically; `columns` has every name of `COLUMNS`."""
    arrays = [
        pa.array(list(columns[name]) if axes else columns[name], type=kind)
        for name, (kind, axes, _) in COLUMNS.items()
    ]
    with temporary_name(path) as temporary:
        pq.write_table(pa.table(arrays, names=list(COLUMNS)), temporary)


def shard_path(folder: Path, index: int) -> Path:
    """Name of the shard with this index."""
    return folder / f"shard-{index:05d}.parquet"


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Describe the finished shards of `folder`; `about` says how they were made."""
    shards = [
        {
            "file": path.name,
            "rows": pq.read_metadata(path).num_rows,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.glob("shard-*.parquet"))
    ]
    manifest = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        **about,
        "rows": sum(shard["rows"] for shard in shards),
        "columns": {
            name: {"type": str(kind), "axes": axes, "about": text}
            for name, (kind, axes, text) in COLUMNS.items()
        },
        "shards": shards,
    }
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """How a dataset was made and what it holds.

    Raises:
        DatasetError: if `folder` is not a dataset, or of another schema version.

    """
    make = "make one with `sdm solve --out FOLDER`"
    if not folder.is_dir():
        raise DatasetError(f"there is no folder `{folder}`", make)
    path = folder / MANIFEST
    if not path.is_file():
        raise DatasetError(f"`{folder}` is not a dataset: it has no {MANIFEST}", make)
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = (manifest["format"], manifest["schema_version"])
    except KeyError as error:
        raise DatasetError(f"`{path}` is damaged: it has no {error}", make) from error
    except (ValueError, TypeError) as error:
        raise DatasetError(f"`{path}` is damaged: it is no JSON", make) from error
    if found != (FORMAT, SCHEMA_VERSION):
        raise DatasetError(
            f"`{folder}` has format `{found[0]}` version {found[1]}: this sdm reads "
            f"`{FORMAT}` version {SCHEMA_VERSION}",
            "make the dataset again with `sdm solve`",
        )
    shards = manifest.get("shards")
    for key, kind in NEEDED:
        if not isinstance(manifest.get(key), kind):
            raise DatasetError(f"`{path}` is damaged: it has no good `{key}`", make)
    if not shards or not all(
        isinstance(shard, dict) and {"file", "sha256"} <= shard.keys()
        for shard in shards
    ):
        raise DatasetError(f"`{path}` is damaged: it does not list its shards", make)
    return manifest


def read_shards(folder: Path) -> pa.Table:
    """All episodes of a finished dataset, in order of task and episode.

    Raises:
        DatasetError: if `folder` is not a dataset, or a shard is missing or damaged.

    """
    again = "make the dataset again with `sdm solve … --overwrite`"
    tables = []
    for shard in read_manifest(folder)["shards"]:
        path = folder / shard["file"]
        if not path.is_file():
            raise DatasetError(f"the shard `{path}` is missing", again)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != shard["sha256"]:
            raise DatasetError(
                f"the shard `{path}` is damaged: its SHA-256 begins with {found[:12]}, "
                f"not {shard['sha256'][:12]}",
                again,
            )
        tables.append(pq.read_table(path))
    return pa.concat_tables(tables)
