"""Minari datasets with discrete observations and actions.

A dataset is a folder with `data/`, or this folder: `metadata.json` says whether it is
stored in HDF5 (`main_data.hdf5`, a group `episode_N` for each episode; needs h5py) or
in Arrow or Parquet files (a folder N for each episode, whose last row has no decision).
Each episode has an observation more than actions, and says for each decision whether it
terminated or truncated the episode.

Source: https://minari.farama.org/content/dataset_standards/
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset

from sdm.data.logs.episodes import Logs
from sdm.data.logs.problems import LogsError
from sdm.data.logs.registry import LogReader, register_reader
from sdm.data.logs.table import Chunk, Reading, logs_of_table

METADATA, HDF5 = "metadata.json", "main_data.hdf5"
NEEDED = ("observations", "actions", "rewards", "terminations")
Episode = dict[str, np.ndarray]


def _data(path: Path) -> Path | None:
    """Return the folder with the data of a dataset; None if it is none."""
    for folder in (path / "data", path):
        if (folder / METADATA).is_file():
            return folder
    return None


def _from_hdf5(folder: Path) -> Iterator[tuple[str, Episode]]:
    try:
        import h5py
    except ImportError as error:
        raise LogsError(
            f"logs `{folder}`: an HDF5 file, for which h5py is not installed",
            "run `pip install 'sdm-llm[minari]'`",
        ) from error
    with h5py.File(folder / HDF5, "r") as file:
        for name in sorted(file, key=lambda x: int(x.removeprefix("episode_"))):
            group = file[name]
            yield name, {x: _array(folder, name, x, group.get(x)) for x in NEEDED}


def _array(folder: Path, episode: str, name: str, found: Any) -> np.ndarray:
    if found is None or not hasattr(found, "dtype"):
        what = "missing" if found is None else "several components"
        raise _unusable(folder, episode, name, what)
    return np.asarray(found)


def _from_tables(kind: str) -> Callable[[Path], Iterator[tuple[str, Episode]]]:
    """Return a reader of the layout in Arrow or Parquet files."""

    def read(folder: Path) -> Iterator[tuple[str, Episode]]:
        episodes = (x for x in folder.iterdir() if x.is_dir() and x.name.isdecimal())
        for place in sorted(episodes, key=lambda x: int(x.name)):
            table = pyarrow.dataset.dataset(
                place, format=kind, ignore_prefixes=["_", ".", METADATA]
            ).to_table()
            found = {}
            for name in NEEDED:
                if name not in table.column_names:
                    raise _unusable(folder, place.name, name, "missing")
                column = table[name].combine_chunks()
                if pa.types.is_fixed_size_list(column.type):
                    column = column.flatten()
                if pa.types.is_nested(column.type):
                    raise _unusable(folder, place.name, name, "several components")
                values = column.to_numpy(zero_copy_only=False)
                rows = table.num_rows - (name != "observations")
                if len(values) == table.num_rows:
                    values = values[:rows]
                found[name] = values
            yield f"episode_{place.name}", found

    return read


LAYOUTS = {
    "hdf5": _from_hdf5,
    "arrow": _from_tables("arrow"),
    "parquet": _from_tables("parquet"),
}


def _unusable(folder: Path, episode: str, name: str, found: str) -> LogsError:
    return LogsError(
        f"logs `{folder}`: `{name}` of {episode}: must be one number per step, found "
        f"{found}",
        "only datasets with discrete observations and actions can be read",
    )


def _chunk(folder: Path, episode: str, found: Episode, first: int) -> Chunk:
    """Return an episode as rows of a table, numbered from `first`."""
    plain = {}
    for name, values in found.items():
        flat = values.reshape(len(values), -1)
        if flat.shape[1] != 1:
            raise _unusable(folder, episode, name, f"shape {values.shape}")
        plain[name] = flat[:, 0]
    steps, length = len(plain["observations"]), len(plain["actions"])
    if steps != length + 1 or not length:
        raise _unusable(
            folder, episode, "observations", f"{steps} for {length} actions"
        )
    after = np.arange(steps) == length

    def padded(values: np.ndarray) -> pa.Array:
        return pa.array(np.append(values, values[-1:]), mask=after)

    columns = {
        "episode": pa.array([episode] * steps),
        "step": pa.array(np.arange(steps)),
        "observation": pa.array(plain["observations"]),
        "action": padded(plain["actions"]),
        "reward": padded(plain["rewards"]),
        "done": padded(plain["terminations"].astype(bool)),
    }
    return Chunk(columns, np.arange(first, first + steps))


def read(path: Path, how: Reading) -> Logs:
    """Read a dataset; rows in messages count the observations from the first episode.

    Raises:
        LogsError: if its layout is unknown, it is damaged, or observations or actions
            are not discrete.

    """
    folder = _data(path)
    assert folder is not None  # `_reads` has found it
    try:
        about = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        kind = about.get("data_format", "hdf5")
    except (ValueError, AttributeError, RecursionError) as error:
        raise LogsError(
            f"logs `{folder / METADATA}`: damaged: no JSON object",
            "download the dataset again",
        ) from error
    if kind not in LAYOUTS:
        raise LogsError(
            f"logs `{folder}`: Minari's format must be one of {', '.join(LAYOUTS)}, "
            f"found {kind!r}"
        )

    def chunks() -> Iterator[tuple[int, Chunk]]:
        first = 1
        for episode, found in LAYOUTS[kind](folder):
            yield 0, _chunk(folder, episode, found, first)
            first += len(found["observations"])

    return logs_of_table(path, (folder,), chunks(), how)


register_reader(
    LogReader("Minari", lambda x: x.is_dir() and _data(x) is not None, read)
)
