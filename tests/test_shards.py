"""Datasets on disk: anyone's reader opens them, and damage never passes for data."""

import json
from pathlib import Path

import numpy as np
import pytest

from sdm.solvers_jax import shards
from sdm.solvers_jax.shards import DatasetError, read_manifest, read_shards

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
    table["goal"] = random.integers(-1, 100, n)
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
    about = {"setting": "mdp", "horizon": HORIZON, "tasks": 2 * TASKS}
    about |= {"trajectories": EPISODES, "family_config": {}}
    shards.write_manifest(folder, about)
    return folder


def test_what_is_written_is_read(dataset):
    table = read_shards(dataset)
    wanted = [rows(0), rows(TASKS)]
    for name in shards.COLUMNS:
        both = np.concatenate([part[name] for part in wanted])
        np.testing.assert_array_equal(np.array(table.column(name).to_pylist()), both)


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
    with pytest.raises(DatasetError, match=r"shard-00001.parquet` is damaged"):
        read_shards(dataset)


def test_a_missing_shard_is_named(dataset):
    shards.shard_path(dataset, 0).unlink()
    with pytest.raises(DatasetError, match=r"shard-00000.parquet` is missing"):
        read_shards(dataset)


def test_what_is_no_dataset_is_refused(dataset, tmp_path):
    with pytest.raises(DatasetError, match="there is no folder"):
        read_manifest(tmp_path / "nothing")
    with pytest.raises(DatasetError, match=r"has no manifest.json"):
        read_manifest(tmp_path)
    (dataset / "manifest.json").write_text("{")
    with pytest.raises(DatasetError, match="damaged"):
        read_manifest(dataset)


def test_another_schema_version_is_refused(dataset):
    path = dataset / "manifest.json"
    manifest = json.loads(path.read_text()) | {"schema_version": 99}
    path.write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match="version 99: this sdm reads"):
        read_shards(dataset)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_not_ours_is_never_replaced(tmp_path, kind):
    out = tmp_path / "precious"
    if kind == "folder":
        out.mkdir()
        (out / "thesis.tex").write_text("…")
        # Names that many a program uses.
        (out / shards.MANIFEST).write_text("{}")
        (out / shards.PLAN).write_text('{"a": 1}')
    else:
        out.write_text("…")
    with pytest.raises(DatasetError, match="was not written by sdm"):
        with shards.folder_in_progress(out, {}, overwrite=True):
            pass
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


class Killed(BaseException):
    """What a kill leaves behind, without the kill."""


def begin(out, plan, **options):
    """Begin a folder, put a file in it, and be cut off."""
    with (
        pytest.raises(Killed),
        shards.folder_in_progress(out, plan, **options) as folder,
    ):
        (folder / "kept").touch()
        raise Killed
    return folder


def finish(out, plan, **options):
    with shards.folder_in_progress(out, plan, **options) as folder:
        (folder / shards.MANIFEST).write_text(str(plan))


def test_a_folder_is_begun_once_and_never_overwritten_unasked(tmp_path):
    out, plan = tmp_path / "out", {"a": 1}
    partial = begin(out, plan)
    assert (partial / "kept").exists() and not out.exists()
    with pytest.raises(DatasetError, match="unfinished run"):
        finish(out, plan)
    with pytest.raises(DatasetError, match="other options: a was 1 and is 2"):
        finish(out, {"a": 2}, resume=True)
    finish(out, plan, resume=True)
    assert (out / "kept").exists() and not partial.exists()
    with pytest.raises(DatasetError, match="finished already: there is nothing"):
        finish(out, plan, resume=True)
    with pytest.raises(DatasetError, match=r"exists already$"):
        finish(out, {"a": 2}, resume=True)
    begin(out, {"a": 2}, overwrite=True)
    assert (out / shards.MANIFEST).exists()  # kept until the new one is whole
    finish(out, {"a": 3}, overwrite=True)
    assert "3" in (out / shards.MANIFEST).read_text() and not (out / "kept").exists()


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ({"x": {"a": 1, "b": [1]}}, {"x": {"a": 1, "b": [2]}}, "x.b differs"),
        ({"x": {"a": 1}}, {"x": {"a": 1, "c": True}}, "x.c was null and is true"),
        ({"x": "s"}, {}, 'x was "s" and is null'),
    ],
)
def test_the_option_that_differs_is_named(tmp_path, before, now, words):
    begin(tmp_path / "out", before)
    with pytest.raises(DatasetError, match=f"options: {words}"):
        finish(tmp_path / "out", now, resume=True)


def test_a_kill_at_the_very_beginning_is_no_obstacle(tmp_path):
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / f"{shards.PLAN}.tmp").write_text("{")
    finish(tmp_path / "out", {}, overwrite=True)
    assert (tmp_path / "out" / shards.PLAN).is_file()


def test_a_failure_before_any_work_leaves_nothing(tmp_path):
    with (
        pytest.raises(ValueError, match="too large"),
        shards.folder_in_progress(tmp_path / "out", {}) as folder,
    ):
        (folder / "checkpoints").mkdir()
        raise ValueError("too large")
    assert not list(tmp_path.iterdir())


def test_a_failure_after_some_work_keeps_it(tmp_path):
    with (
        pytest.raises(ValueError, match="disk full"),
        shards.folder_in_progress(tmp_path / "out", {}) as folder,
    ):
        (folder / "shard").touch()
        raise ValueError("disk full")
    assert (tmp_path / "out.partial" / "shard").exists()


def test_an_input_is_never_replaced(tmp_path):
    data = tmp_path / "all" / "data"
    data.mkdir(parents=True)
    (tmp_path / "all" / shards.MANIFEST).touch()
    for out in (data, data.parent):
        with (
            pytest.raises(DatasetError, match="would take the place of"),
            shards.folder_in_progress(out, {}, inputs=(data,), overwrite=True),
        ):
            pass
    assert data.is_dir()


@pytest.mark.parametrize(
    "key", ["setting", "horizon", "tasks", "family_config", "shards", "format"]
)
def test_a_manifest_without_what_it_must_say_is_damaged(dataset, key):
    path = dataset / "manifest.json"
    manifest = json.loads(path.read_text())
    for broken in ({k: v for k, v in manifest.items() if k != key}, [manifest]):
        path.write_text(json.dumps(broken))
        with pytest.raises(DatasetError, match="is damaged"):
            read_shards(dataset)


def test_a_file_that_cannot_be_written_is_known_beforehand(tmp_path):
    shards.check_output_file(tmp_path / "new" / "scores.json", overwrite=False)
    (tmp_path / "taken").touch()
    for path, overwrite, words in (
        (tmp_path, True, "is a folder"),
        (tmp_path / "taken", False, "exists already"),
        (tmp_path / "taken" / "scores.json", True, "cannot be written"),
        (Path("/proc/scores.json"), False, "cannot be written"),
    ):
        with pytest.raises(DatasetError, match=words):
            shards.check_output_file(path, overwrite=overwrite)
    shards.check_output_file(tmp_path / "taken", overwrite=True)


def test_a_write_that_fails_leaves_no_temporary_file(tmp_path):
    with pytest.raises(OSError):
        shards.write_atomically(tmp_path, "a folder has this name")
    assert not list(tmp_path.parent.glob("*.tmp"))
