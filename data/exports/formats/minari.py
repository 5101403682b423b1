"""Minari datasets, by the package `minari`.

Observations and actions are numbers. A task of T decisions has no observation after
the last one, which Minari needs: an extra observation, the largest, means that the
episode is over. Every episode terminates there, since nothing follows in a task with a
horizon. Metadata of episodes are the task, and whether its actions are random.

Source: https://minari.farama.org/content/dataset_standards/
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq

from sdm.data.exports import datasets
from sdm.data.exports.format import register_format
from sdm.data.request import family_of
from sdm.data.shards import read_manifest, whole_shards

READ = ["task", "random", "observation", "action", "reward"]


@register_format
class Minari:
    """A folder that Minari opens, and in which its datasets root may be."""

    name: ClassVar[str] = "minari"
    source: ClassVar[str] = datasets.SOURCE

    def reads(self, path: Path) -> bool:
        """Return whether a path has what the format reads, whole or damaged."""
        return datasets.is_dataset(path)

    def identity(self, path: Path) -> str:
        """Return a digest of what would be exported."""
        return datasets.identity(path)

    def write(self, path: Path, folder: Path) -> Mapping[str, Any]:
        """Write an export into an existing folder; see `ExportFormat`."""
        try:
            from gymnasium.spaces import Discrete
            from minari.dataset.minari_storage import MinariStorage
        except ImportError as error:
            raise ValueError(
                "format `minari`: the package is not installed; run "
                "`pip install 'sdm-llm[minari]'`"
            ) from error
        manifest = read_manifest(path)
        spaces = family_of(manifest).spaces
        over = spaces.symbols(manifest["kind"])
        storage = MinariStorage.new(
            (folder / "data").resolve(),  # it appends a relative path to itself
            observation_space=Discrete(over + 1),
            action_space=Discrete(len(spaces.actions)),
        )
        first = 0
        for shard in whole_shards(path):
            rows = pq.read_table(shard, columns=READ).to_pylist()
            storage.update_episodes(_episodes(rows, over))
            about = [{"task": x["task"], "random_actions": x["random"]} for x in rows]
            storage.update_episode_metadata(about, range(first, first + len(rows)))
            first += len(rows)
        import minari

        name = re.sub(r"\W+", "-", manifest["family"]).strip("-")
        storage.update_metadata(
            {
                "dataset_id": f"sdm/{name}-{manifest['kind']}-v0",
                "algorithm_name": f"sdm {manifest['policy']}",
                "minari_version": minari.__version__,
                "description": f"{datasets.title(manifest)}. Observation {over} means "
                "that the episode is over.",
            }
        )
        return {"episodes": first, "observations": over + 1}


def _episodes(rows: list[dict[str, Any]], over: int) -> Iterator[Any]:
    """Yield the episodes of a shard."""
    from minari.data_collector.episode_buffer import EpisodeBuffer

    for row in rows:
        steps = len(row["action"])
        last = np.arange(steps) == steps - 1
        yield EpisodeBuffer(
            observations=np.append(row["observation"], over),
            actions=np.asarray(row["action"]),
            rewards=list(row["reward"]),
            terminations=last.tolist(),
            truncations=[False] * steps,
        )
