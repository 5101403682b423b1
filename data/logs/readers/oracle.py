"""Datasets of `sdm solve --out`, whose episodes are the oracle's or random."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from sdm.data.logs.episodes import NOTHING, Logs
from sdm.data.logs.problems import LogsError
from sdm.data.logs.registry import LogReader, register_reader
from sdm.data.logs.table import Reading
from sdm.data.request import family_of
from sdm.data.shards import MANIFEST, OLDER, read_manifest, read_shards
from sdm.storage.notes import read_notes
from sdm.tasks.family import Component


def _reads(path: Path) -> bool:
    if not path.is_dir():
        return False
    return MANIFEST in read_notes(path) or (path / OLDER).is_file()


def read(path: Path, how: Reading) -> Logs:
    """Read a dataset, with the names of its family.

    All of its episodes were cut off at the horizon. Actions of probability below 1 do
    not occur in the oracle's episodes, whose probabilities are therefore not given.

    Raises:
        StorageError: if the dataset is damaged.
        LogsError: if a reward is outside of the stated range.

    """
    manifest, table = read_manifest(path), read_shards(path)
    family = family_of(manifest)
    horizon, rows = manifest["horizon"], table.num_rows
    arrays: dict[str, Any] = {
        name: table[name].combine_chunks().flatten().to_numpy().reshape(rows, horizon)
        for name in ("observation", "action", "reward")
    }
    low, high = how.reward_min, how.reward_max
    outside = np.zeros(rows, bool)
    if low is not None:
        outside |= (arrays["reward"] < low).any(1)
    if high is not None:
        outside |= (arrays["reward"] > high).any(1)
    if outside.any():
        raise LogsError(
            f"logs `{path}`: rewards of {int(outside.sum())} episodes are outside of "
            f"the range, first of episode {int(outside.argmax())}",
            "correct the range",
        )
    after = np.full((rows, 1), NOTHING, np.int32)
    task = table["task"].to_numpy()
    return Logs(
        observation=np.hstack([arrays["observation"], after]),
        action=arrays["action"],
        reward=arrays["reward"].astype(float),
        done=np.zeros(rows, bool),
        task=task.astype(np.int32),
        probability=None,
        observations=_names(family.spaces.seen(manifest["kind"])),
        actions=tuple(family.spaces.actions),
        tasks=tuple(str(i) for i in range(int(task.max()) + 1)),
    )


def _names(components: tuple[Component, ...]) -> tuple[str, ...]:
    """Return a name for each combination of the values of components."""
    levels = [
        [
            f"{each.name} {value}" if len(components) > 1 else str(value)
            for value in each.values or range(each.size)
        ]
        for each in components
    ]
    return tuple(", ".join(values) for values in itertools.product(*levels))


register_reader(LogReader("dataset of `sdm solve --out`", _reads, read))
