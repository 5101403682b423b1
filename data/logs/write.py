"""Write logs as tables with one row per decision, in the format of `read_logs`."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from sdm.data.logs.episodes import NOTHING, Logs
from sdm.data.logs.readers.parquet_table import NAMES
from sdm.storage.files import check_output_file, temporary_name

WRITTEN = (".parquet", ".csv", ".jsonl")


def write_logs(
    logs: Logs, path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write logs to a `.parquet`, `.csv` or `.jsonl` file, atomically.

    Parquet keeps the names of observations and actions that do not occur, too. An
    episode with an observation after its last decision has a last row without action.

    Args:
        logs: the episodes.
        path: the file; its suffix is the format.
        overwrite: whether to replace an existing file.

    Raises:
        ValueError: if the suffix is unknown.
        StorageError: if the file exists or cannot be written.

    """
    place = Path(path)
    if place.suffix not in WRITTEN:
        raise ValueError(f"logs `{place}`: must end in {', '.join(WRITTEN)}")
    check_output_file(place, overwrite=overwrite)
    table = table_of(logs)
    with temporary_name(place) as temporary:
        if place.suffix == ".parquet":
            pq.write_table(table, temporary)
        elif place.suffix == ".csv":
            pyarrow.csv.write_csv(table, temporary)
        else:
            rows = (json.dumps(row) for row in table.to_pylist())
            temporary.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def table_of(logs: Logs) -> pa.Table:
    """Return logs as a table with one row per decision, sorted by episode and step."""
    after = logs.observation[np.arange(logs.episodes), logs.length] != NOTHING
    count = logs.length + after
    episode = np.repeat(np.arange(logs.episodes), count)
    starts = np.cumsum(count) - count
    step = np.arange(len(episode)) - np.repeat(starts, count)
    decision = step < logs.length[episode]
    inside = np.where(decision, step, 0)
    columns: dict[str, Any] = {
        "episode": episode,
        "step": step,
        "observation": _named(logs.observations, logs.observation[episode, step]),
        "action": _named(logs.actions, logs.action[episode, inside], decision),
        "reward": pa.array(logs.reward[episode, inside], mask=~decision),
        "task": _named(logs.tasks, logs.task[episode]),
        "done": logs.done[episode] & (step == logs.length[episode] - 1),
    }
    if logs.probability is not None:
        chance = logs.probability[episode, inside]
        columns["behavior_probability"] = pa.array(chance, mask=~decision)
    kept = {"observations": logs.observations, "actions": logs.actions}
    return pa.table(columns).replace_schema_metadata({NAMES: json.dumps(kept)})


def _named(
    names: tuple[str, ...], codes: np.ndarray, given: np.ndarray | None = None
) -> pa.Array:
    """Return the name of each code; null where it is not given, or is `NOTHING`."""
    absent = codes == NOTHING if given is None else ~given
    coded = pa.array(codes.astype(np.int32), mask=absent)
    return pa.DictionaryArray.from_arrays(coded, pa.array(names)).cast(pa.string())
