"""Datasets on disk: anyone's reader opens them, and damage never passes for data."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from sdm.data import shards
from sdm.data.generation import write_oracle_dataset
from sdm.data.request import OracleConfig
from sdm.data.shard_checks import damage_of
from sdm.data.shards import read_manifest, read_shards
from sdm.solvers_jax import EnergyFamily
from sdm.storage.files import StorageError, read_plan
from sdm.storage.notes import NOTES, write_notes
from sdm.storage.ownership import MADE_BY, PLAN, partial_folder

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


def read_by_datasets(folder, cache):
    import datasets

    found = datasets.load_dataset(folder, cache_dir=str(cache))
    assert list(found) == ["train"]
    return found["train"].to_list()


READERS = {
    "pandas": lambda own, folder, cache: own.read_parquet(folder).to_dict("records"),
    "pyarrow.parquet": lambda own, folder, cache: own.read_table(folder).to_pylist(),
    "polars": lambda own, folder, cache: own.read_parquet(folder).to_dicts(),
    "datasets": lambda own, folder, cache: read_by_datasets(folder, cache),
}


@pytest.mark.slow
@pytest.mark.parametrize("shards_too", [1, 3])
@pytest.mark.parametrize("name", READERS)
def test_other_readers_open_the_folder_by_its_name(name, shards_too, tmp_path):
    """As `sdm solve` writes it, with one shard and with several."""
    reader = pytest.importorskip(name, reason=f"{name} is not installed")
    folder = tmp_path / "data"
    made = OracleConfig(EnergyFamily(), 3, 3, 2, batch=3 // shards_too)
    write_oracle_dataset(made, folder)
    assert len(list(folder.glob("*.parquet"))) == shards_too
    wanted = read_shards(folder).to_pylist()
    found = READERS[name](reader, str(folder), tmp_path / "cache")
    assert len(found) == len(wanted) == 6
    for row, own in zip(found, wanted, strict=True):
        assert row.keys() == own.keys()
        for column in ("task", "episode", "parameters", "value"):
            assert row[column] == own[column]
        for column in ("observation", "action", "reward", "optimal_action"):
            assert list(row[column]) == own[column]


def test_a_dataset_of_older_versions_is_read(dataset):
    """With a manifest and a plan in JSON files, which other readers refuse."""
    older = dataset.with_name("older")
    older.mkdir()
    for path in dataset.glob("shard-*.parquet"):
        shutil.copy(path, older)
    (older / "manifest.json").write_text(json.dumps(read_manifest(dataset)))
    assert read_manifest(older) == read_manifest(dataset)
    assert read_shards(older).equals(read_shards(dataset))


@pytest.mark.slow
def test_a_complete_dataset_keeps_its_plan(tmp_path):
    """It is known as ours, and what it was made with is known."""
    made = OracleConfig(EnergyFamily(), 3, 3, 2)
    write_oracle_dataset(made, tmp_path / "data")
    assert read_plan(tmp_path / "data")["tasks"] == 3
    with pytest.raises(StorageError, match="is already complete"):
        write_oracle_dataset(made, tmp_path / "data", resume=True)
    write_oracle_dataset(made, tmp_path / "data", overwrite=True)


@pytest.mark.slow
def test_a_dataset_cut_short_before_it_has_its_name_resumes(tmp_path, monkeypatch):
    made = OracleConfig(EnergyFamily(), 3, 3, 2)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr("sdm.storage.files.put_in_place", full)
        write_oracle_dataset(made, tmp_path / "data")
    assert not (tmp_path / "data.partial" / "plan.json").exists()
    other = OracleConfig(EnergyFamily(), 3, 4, 2)
    with pytest.raises(StorageError, match="tasks was 3 and is 4"):
        write_oracle_dataset(other, tmp_path / "data", resume=True)
    write_oracle_dataset(made, tmp_path / "data", resume=True)
    assert read_plan(tmp_path / "data")["tasks"] == 3


def full(*paths):
    raise OSError("the disk is full")


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
    with pytest.raises(StorageError, match=r"has no manifest"):
        read_manifest(tmp_path)
    rewrite(dataset, "{")
    with pytest.raises(StorageError, match="damaged: it is not JSON"):
        read_manifest(dataset)
    (dataset / NOTES).write_text("{")
    with pytest.raises(StorageError, match="damaged: it cannot be read"):
        read_manifest(dataset)


def rewrite(folder, text):
    """Replace the manifest of a dataset."""
    schema = pq.read_schema(shards.shard_path(folder, 0))
    write_notes(folder, schema, {shards.MANIFEST: text})


def test_another_schema_version_is_refused(dataset):
    rewrite(dataset, json.dumps(read_manifest(dataset) | {"schema_version": 99}))
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
    manifest = read_manifest(dataset)
    for broken in ({k: v for k, v in manifest.items() if k != key}, [manifest]):
        rewrite(dataset, json.dumps(broken))
        with pytest.raises(StorageError, match="is damaged"):
            read_shards(dataset)


@pytest.mark.slow
def test_resume_makes_only_damaged_shards_of_a_complete_dataset_again(tmp_path):
    out, made = tmp_path / "data", OracleConfig(EnergyFamily(), 3, 3, 2, batch=1)
    write_oracle_dataset(made, out)
    paths = [shards.shard_path(out, index) for index in range(3)]
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in paths]
    flipped = bytearray(before[1][1])
    flipped[len(flipped) // 2] ^= 1
    paths[1].write_bytes(flipped)
    paths[2].unlink()
    with pytest.raises(StorageError, match=r"shard-00001") as error:
        read_shards(out)
    assert "`--resume`" in error.value.hint
    with pytest.warns(UserWarning, match=r"shard-0000[12]\.parquet` is made again"):
        write_oracle_dataset(made, out, resume=True)
    assert [path.read_bytes() for path in paths] == [content for _, content in before]
    assert paths[0].stat().st_mtime_ns == before[0][0]
    assert len(read_shards(out)) == 6 and not partial_folder(out).exists()


def test_a_flipped_bit_in_an_unfinished_dataset_is_found(dataset):
    """In the values, which Parquet reads without a word unless pages have checksums."""
    path = shards.shard_path(dataset, 0)
    assert not damage_of(path, TASKS * EPISODES)
    column = pq.read_metadata(path).row_group(0).column(3)
    flipped = bytearray(path.read_bytes())
    flipped[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(flipped)
    assert "cannot be read" in damage_of(path, TASKS * EPISODES)


def test_an_unfinished_dataset_is_refused(dataset):
    (dataset / PLAN).write_text(json.dumps(MADE_BY))
    partial = dataset.rename(partial_folder(dataset))
    with pytest.raises(StorageError, match="unfinished output") as error:
        read_shards(partial)
    assert "--resume" in error.value.hint


@pytest.mark.parametrize(
    "name",
    [
        "../shard-00000.parquet",
        "/etc/shard-00000.parquet",
        "data/shard-00000.parquet",
        "shard-00000.parquet\n",
        "a",
        3,
    ],
)
def test_a_manifest_that_names_a_file_elsewhere_is_refused(dataset, name):
    manifest = read_manifest(dataset)
    shutil.copy(shards.shard_path(dataset, 0), dataset.parent / "shard-00000.parquet")
    manifest["shards"][0]["file"] = name
    rewrite(dataset, json.dumps(manifest))
    with pytest.raises(StorageError, match="does not list its shards"):
        read_shards(dataset)
