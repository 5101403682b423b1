"""Datasets on disk: anyone's reader opens them, and damage never passes for data."""

import json

import numpy as np
import pytest

from sdm.data import shards
from sdm.data.shards import read_manifest, read_shards
from sdm.storage.files import StorageError

TASKS, EPISODES, HORIZON = 3, 2, 4


def rows(first=0):
    n = TASKS * EPISODES
    random = np.random.default_rng(first)
    table = {
        "task": np.repeat(np.arange(first, first + TASKS), EPISODES),
        "episode": np.tile(np.arange(EPISODES), TASKS),
    }
    for name, (kind, axes, _) in shards.COLUMNS.items():
        if kind == "double" and not axes:
            table[name] = random.uniform(size=n)
    table["random"] = random.integers(0, 2, n).astype(bool)
    table["parameters.p"] = random.uniform(size=n)
    table["parameters.rows"] = random.integers(0, 9, (n, 2, 3))
    table["divergence"] = random.uniform(size=(n, 2))
    for name in ("observation", "action", "optimal_action"):
        table[name] = random.integers(0, 3, (n, HORIZON))
    return table | {"reward": random.uniform(size=(n, HORIZON))}


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for index in range(2):
        path = shards.shard_path(folder, index)
        shards.write_shard(path, rows(index * TASKS))
    about = {"family": "energy", "kind": "mdp", "family_config": {}}
    about |= {"horizon": HORIZON, "tasks": 2 * TASKS, "trajectories": EPISODES}
    about |= {"observes_reward": True}
    shards.write_manifest(folder, about)
    return folder


def test_what_is_written_is_read(dataset):
    table = read_shards(dataset)
    wanted = [rows(0), rows(TASKS)]
    for name in shards.COLUMNS:
        both = np.concatenate([part[name] for part in wanted])
        np.testing.assert_array_equal(np.array(table.column(name).to_pylist()), both)
    for name, values in shards.parameters(table).items():
        both = np.concatenate([part[f"parameters.{name}"] for part in wanted])
        np.testing.assert_array_equal(values, both)


def test_the_manifest_describes_columns_and_files(dataset):
    manifest = read_manifest(dataset)
    assert manifest["rows"] == 12 and manifest["horizon"] == HORIZON
    assert manifest["columns"]["reward"]["axes"] == "T"
    assert [s["rows"] for s in manifest["shards"]] == [6, 6]


def test_pandas_polars_and_datasets_read_the_shards(dataset, tmp_path):
    import datasets
    import pandas
    import polars

    files = sorted(map(str, dataset.glob("*.parquet")))
    wanted = read_shards(dataset).column("action").to_pylist()
    frames = pandas.concat([pandas.read_parquet(f) for f in files])
    assert [list(x) for x in frames["action"]] == wanted
    assert polars.read_parquet(files)["action"].to_list() == wanted
    loaded = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert list(loaded["action"]) == wanted


def test_a_damaged_shard_is_named(dataset):
    path = shards.shard_path(dataset, 1)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"shard-00001.parquet` is damaged"):
        read_shards(dataset)


def test_a_missing_shard_is_named(dataset):
    shards.shard_path(dataset, 0).unlink()
    with pytest.raises(StorageError, match=r"shard-00000.parquet` is missing"):
        read_shards(dataset)


def test_what_is_no_dataset_is_refused(dataset, tmp_path):
    with pytest.raises(StorageError, match="there is no folder"):
        read_manifest(tmp_path / "nothing")
    with pytest.raises(StorageError, match=r"has no manifest.json"):
        read_manifest(tmp_path)
    (dataset / "manifest.json").write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        read_manifest(dataset)


def test_another_schema_version_is_refused(dataset):
    path = dataset / "manifest.json"
    manifest = json.loads(path.read_text()) | {"schema_version": 99}
    path.write_text(json.dumps(manifest))
    with pytest.raises(StorageError, match=r"schema version 99, expected 4"):
        read_shards(dataset)


@pytest.mark.parametrize(
    "key",
    [
        "kind",
        "family",
        "observes_reward",
        "horizon",
        "tasks",
        "family_config",
        "shards",
        "format",
    ],
)
def test_a_manifest_without_what_it_must_say_is_damaged(dataset, key):
    path = dataset / "manifest.json"
    manifest = json.loads(path.read_text())
    for broken in ({k: v for k, v in manifest.items() if k != key}, [manifest]):
        path.write_text(json.dumps(broken))
        with pytest.raises(StorageError, match="is damaged"):
            read_shards(dataset)
