"""Oracle datasets: what they contain, and that a killed run loses nothing."""

import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from tolerances import ROUNDING

from sdm.data.generation import (
    OracleBatches,
    solve_tasks,
    write_oracle_dataset,
)
from sdm.data.request import OracleConfig, family_of, params_of
from sdm.data.shards import parameters, read_manifest, read_shards
from sdm.data.solved_tasks import columns, sample_tasks, solve_sampled
from sdm.solvers_jax import EnergyFamily, solve
from sdm.storage.files import StorageError
from sdm.tasks.registry import load_family
from sdm.tasks.streams import Stream, stream_key


def config(**changes):
    options = {"horizon": 5, "tasks": 10, "trajectories": 3, "seed": 4, "batch": 4}
    return OracleConfig(EnergyFamily(), **(options | changes))


@pytest.mark.slow
def test_rows_hold_optimal_episodes_of_the_sampled_tasks(tmp_path):
    write_oracle_dataset(config(), tmp_path / "data")
    table = read_shards(tmp_path / "data").to_pydict()
    assert table["task"] == np.repeat(range(10), 3).tolist()
    assert table["episode"] == [0, 1, 2] * 10
    mdp = EnergyFamily().sample(stream_key(4, Stream.TRAIN_TASKS), 10)
    solution = solve(mdp, horizon=5)
    np.testing.assert_allclose(table["value"][::3], solution.value, rtol=ROUNDING)
    for row in range(30):
        states, task = table["observation"][row], table["task"][row]
        chosen = [int(solution.policy[task, t, s]) for t, s in enumerate(states)]
        assert table["action"][row] == chosen == table["optimal_action"][row]
        paid = [
            float(mdp.reward[task, s, a]) for s, a in zip(states, chosen, strict=True)
        ]
        np.testing.assert_allclose(table["reward"][row], paid, rtol=ROUNDING)


def test_tasks_and_episodes_do_not_depend_on_the_batch(tmp_path):
    tables = []
    for batch in (3, 10):
        write_oracle_dataset(config(batch=batch), tmp_path / str(batch))
        tables.append(read_shards(tmp_path / str(batch)))
    assert (
        tables[0]
        .drop_columns(["random_value"])
        .equals(tables[1].drop_columns(["random_value"]))
    )


def test_the_summary_is_of_all_tasks(tmp_path):
    solved = solve_tasks(config())
    written = write_oracle_dataset(config(), tmp_path / "data")
    mdp = EnergyFamily().sample(stream_key(4, Stream.TRAIN_TASKS), 10)
    value = float(solve(mdp, horizon=5).value.mean())
    for summary in (solved, written):
        assert summary.value_mean == pytest.approx(value, rel=ROUNDING)
        assert summary.lower_mean == summary.upper_mean == summary.value_mean
        assert summary.gap_max == 0 and 0 < summary.random_gap_percent < 100


def test_the_manifest_says_how_it_was_made(tmp_path):
    write_oracle_dataset(config(), tmp_path / "data")
    manifest = read_manifest(tmp_path / "data")
    assert manifest["family_config"]["charge_cost"] == 0.05
    assert (manifest["family"], manifest["kind"]) == ("energy", "mdp")
    assert manifest["certified_error"] == 0 and manifest["seed"] == 4
    assert manifest["versions"]["jax"] == jax.__version__


def test_an_interrupted_run_resumes_to_the_same_bytes(tmp_path, monkeypatch):
    write_oracle_dataset(config(), tmp_path / "whole")
    made = OracleBatches.__getitem__

    def fail_at_last(self, index):
        if index == 2:
            raise KeyboardInterrupt
        return made(self, index)

    monkeypatch.setattr(OracleBatches, "__getitem__", fail_at_last)
    with pytest.raises(KeyboardInterrupt):
        write_oracle_dataset(config(), tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
    computed = []

    def record(self, index):
        computed.append(index)
        return made(self, index)

    monkeypatch.setattr(OracleBatches, "__getitem__", record)
    write_oracle_dataset(config(), tmp_path / "cut", resume=True)
    assert computed == [2]  # the others were kept
    assert_same_files(tmp_path / "whole", tmp_path / "cut")


def cut_short(path):
    """A file that a full disk or a copy has truncated."""
    path.write_bytes(path.read_bytes()[:-100])


def without_a_row(path):
    """A valid Parquet file with a row too few."""
    pq.write_table(pq.read_table(path).slice(1), path)


def without_a_column(path):
    pq.write_table(pq.read_table(path).drop_columns(["reward"]), path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_short, "cannot be read"),
        (without_a_row, "it has 11 rows, expected 12"),
        (without_a_column, "it has the columns task, episode"),
    ],
)
def test_a_damaged_shard_of_an_unfinished_folder_is_made_again(damage, words, tmp_path):
    write_oracle_dataset(config(), tmp_path / "whole")
    made = OracleBatches.__getitem__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            OracleBatches,
            "__getitem__",
            lambda self, i: made(self, i) if i < 2 else pytest.fail("cut off"),
        )
        with pytest.raises(pytest.fail.Exception):
            write_oracle_dataset(config(), tmp_path / "cut")
    damage(tmp_path / "cut.partial" / "shard-00001.parquet")
    with pytest.warns(
        UserWarning, match=f"shard-00001.parquet` is made again: it is damaged.*{words}"
    ):
        write_oracle_dataset(config(), tmp_path / "cut", resume=True)
    assert_same_files(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        "--tasks 200000 --horizon 5",
        "--setting pomdp --tasks 120 --batch-size 6 --horizon 3 --gap 0.05",
    ],
    ids=["mdp", "pomdp"],
)
def test_a_killed_command_resumes_to_the_same_bytes(options, tmp_path):
    command = [sys.executable, "-m", "sdm.cli", "solve", *options.split()]
    command += ["--trajectories", "1", "--out"]
    partial = tmp_path / "cut.partial"
    process = subprocess.Popen([*command, "cut"], cwd=tmp_path, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(list(partial.glob("shard-*.parquet"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "cut").exists()
    subprocess.run(
        [*command, "cut", "--resume"], cwd=tmp_path, check=True, capture_output=True
    )
    subprocess.run([*command, "whole"], cwd=tmp_path, check=True, capture_output=True)
    assert_same_files(tmp_path / "whole", tmp_path / "cut")


def assert_same_files(a, b):
    names, others = (
        sorted(path.relative_to(x) for path in x.rglob("*") if path.is_file())
        for x in (a, b)
    )
    assert names == others
    for name in names:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": 0}, "tasks = 0"),
        ({"trajectories": -1}, "trajectories = -1"),
        ({"horizon": 0}, "horizon = 0"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_counts_that_make_no_dataset_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_nothing_is_written_where_nothing_can_be(tmp_path):
    with pytest.raises(ValueError, match="trajectories = 0"):
        write_oracle_dataset(config(trajectories=0), tmp_path / "data")
    assert not list(tmp_path.iterdir())
    (tmp_path / "data").mkdir()
    with pytest.raises(StorageError, match="exists already"):
        write_oracle_dataset(config(), tmp_path / "data")
    assert not (tmp_path / "data.partial").exists()


@pytest.mark.slow
def test_ambiguous_episodes_are_played_in_the_first_model():
    family = EnergyFamily(models=2, q=0.7)
    chosen = OracleConfig(family, 3, 2, 20, seed=1, batch=2, kind="apomdp")
    tasks = sample_tasks(0, config=chosen, size=2)
    np.testing.assert_array_equal(tasks.world.transition, tasks.model.transition[:, 0])
    found = columns(jnp.int32(0), config=chosen, size=2)
    weight = 0.95 ** np.arange(3)
    earned = (np.asarray(found["reward"]) * weight).sum(-1).mean(-1)
    np.testing.assert_allclose(found["oracle_value"], earned, rtol=ROUNDING)
    assert not np.allclose(found["oracle_value"], found["value"], rtol=1e-3)


def test_each_of_several_processes_does_its_share(tmp_path, monkeypatch):
    write_oracle_dataset(config(), tmp_path / "all")
    done, made = [], OracleBatches.__getitem__

    def record(self, index):
        done.append(index)
        return made(self, index)

    monkeypatch.setattr(OracleBatches, "__getitem__", record)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr("sdm.storage.processes.first_succeeded", lambda done: True)

    def the_first_does_its_share(step):
        for index in (0, 2):
            name = f"shard-{index:05d}.parquet"
            shutil.copy(tmp_path / "all" / name, tmp_path / "two.partial" / name)

    for module in ("data.generation", "storage.processes"):
        monkeypatch.setattr(f"sdm.{module}.wait_for_all", the_first_does_its_share)
    (tmp_path / "two.partial").mkdir()
    write_oracle_dataset(config(), tmp_path / "two")
    assert done == [1]  # of batches 0, 1 and 2


@pytest.mark.slow
def test_the_filter_of_an_ambiguous_oracle_can_be_chosen():
    family, found = EnergyFamily(models=2, q=0.6, radius=0.2, concentration=5.0), []
    for believe in (0, 1, "mixture"):
        chosen = OracleConfig(
            family, 4, 2, 30, seed=1, batch=2, kind="apomdp", believe=believe
        )
        made = columns(jnp.int32(0), config=chosen, size=2)
        found.append(np.asarray(made["action"]))
    assert (found[0] != found[1]).any() and (found[0] != found[2]).any()
    with pytest.raises(ValueError, match="believe = 2: must be `mixture`"):
        OracleConfig(family, 4, 2, 30, kind="apomdp", believe=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "kind"),
    [
        pytest.param("energy", "apomdp", marks=pytest.mark.slow),
        ("darkroom", "mdp"),
        ("garnet", "mdp"),
    ],
)
def test_parameters_in_a_dataset_make_the_same_models_again(family, kind, tmp_path):
    made = load_family(family, {"models": 2} if kind == "apomdp" else {})
    chosen = OracleConfig(made, 2, 3, 2, seed=1, batch=2, kind=kind)
    write_oracle_dataset(chosen, tmp_path / "data")
    manifest, table = read_manifest(tmp_path / "data"), read_shards(tmp_path / "data")
    first = {name: x[::2] for name, x in parameters(table).items()}
    again = family_of(manifest).model(params_of(first), manifest["kind"])
    wanted = sample_tasks(0, config=chosen, size=3).model
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(wanted), strict=True):
        # Compiled as one or not, sums may differ in their last digit.
        np.testing.assert_allclose(one, other, rtol=ROUNDING, atol=ROUNDING)
    # And the values can be computed again from the files.
    found, _ = solve_sampled(again, chosen)
    stored = np.array(table.column("value").to_pylist())[::2]
    np.testing.assert_allclose(found.value, stored, rtol=1e-6)  # points may differ
