"""Datasets in other programs' formats, and how a format is chosen."""

import json

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from sdm.cli import app
from sdm.data.exports.format import ExportFormat, find_format, formats
from sdm.data.generation import write_oracle_dataset
from sdm.data.logs import read_logs
from sdm.data.request import OracleConfig
from sdm.data.shards import COLUMNS, SCHEMA_VERSION, read_shards
from sdm.storage.files import StorageError
from sdm.tasks.families.energy import EnergyFamily


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three tasks in two shards, with two optimal episodes and one random each."""
    folder = tmp_path_factory.mktemp("exports") / "oracle"
    family = EnergyFamily()
    made = OracleConfig(
        family, horizon=4, tasks=3, trajectories=2, batch=2, random_trajectories=1
    )
    write_oracle_dataset(made, folder)
    return folder


def export(*words):
    return CliRunner().invoke(app, ["export", *map(str, words), "--json"])


def test_a_hub_reads_the_card_and_all_rows(dataset, tmp_path):
    datasets = pytest.importorskip("datasets")
    done = export(dataset, "--to", "hub", "--out", tmp_path / "hub")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["files"] == 2
    rows = read_shards(dataset).to_pylist()
    found = datasets.load_dataset(
        str(tmp_path / "hub"), split="train", cache_dir=str(tmp_path / "cache")
    ).to_list()
    assert [x["reward"] for x in found] == [x["reward"] for x in rows]
    text = (tmp_path / "hub/README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---")[1])
    assert head["configs"][0]["data_files"][0]["path"] == "data/*.parquet"
    assert head["size_categories"] == ["n<1K"]
    assert all(f"| {name} |" in text for name in COLUMNS)
    manifest = json.loads((tmp_path / "hub/manifest.json").read_text())
    assert manifest["schema_version"] == SCHEMA_VERSION and manifest["rows"] == 9


def test_minari_reads_every_episode(dataset, tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.chdir(tmp_path)
    done = export(dataset, "--to", "minari", "--out", "exported")
    assert done.exit_code == 0, done.output
    rows = read_shards(dataset).to_pylist()
    data = minari.MinariDataset(tmp_path / "exported/data")
    assert data.total_episodes == len(rows) == 9
    assert data.observation_space.n == 11 and data.action_space.n == 3
    for row, episode in zip(rows, data.iterate_episodes(), strict=True):
        assert episode.observations.tolist() == [*row["observation"], 10]
        assert episode.actions.tolist() == row["action"]
        assert episode.rewards.tolist() == row["reward"]
        assert episode.terminations.tolist() == [False] * 3 + [True]
        assert not episode.truncations.any()
    about = list(data.storage.get_episode_metadata(range(9)))
    assert [x["task"] for x in about] == [row["task"] for row in rows]
    assert [bool(x["random_actions"]) for x in about] == [x["random"] for x in rows]
    logs = read_logs("exported")
    assert logs.episodes == 9 and (logs.length == 4).all()
    np.testing.assert_array_equal(logs.reward, [row["reward"] for row in rows])


def test_formats_are_chosen_by_name_or_by_what_they_read(dataset, tmp_path):
    assert set(formats()) == {"hub", "minari", "sarsop"}
    assert all(isinstance(each(), ExportFormat) for each in formats().values())
    with pytest.raises(ValueError, match=r"--to hub.*--to minari"):
        find_format(dataset)
    with pytest.raises(ValueError, match="must be one of hub, minari, sarsop"):
        find_format(dataset, "csv")
    with pytest.raises(StorageError, match="`sarsop` needs a folder of"):
        find_format(dataset, "sarsop")
    with pytest.raises(StorageError, match=r"must be a dataset of .* or a folder of"):
        find_format(tmp_path)


def test_a_damaged_shard_is_named_and_nothing_is_left(dataset, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in dataset.rglob("*.parquet"):
        copy = damaged / path.relative_to(dataset)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    shard = damaged / "shard-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-1])
    for name in ("hub", "minari"):
        done = export(damaged, "--to", name, "--out", tmp_path / name)
        assert done.exit_code == 2 and "shard-00001.parquet" in done.stderr
        assert not (tmp_path / name).exists()
