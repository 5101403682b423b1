"""Experiments: from frozen configurations to rows, and from rows to a report."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from sdm.experiments import catalogue, run
from sdm.experiments.catalogue import (
    CatalogueError,
    Experiment,
    Grid,
    cells,
    experiments,
)
from sdm.experiments.rows import read_rows, rows_file, write_rows
from sdm.experiments.run import TimeLeft, run_experiment
from sdm.experiments.workshop import data_of, test_of

test_of.__test__ = False
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of transformers, as it runs
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
NAMES = (
    "mdp-horizon mdp-tasks pomdp-observation apomdp-ambiguity theory dpt ood "
    "support-quality darkroom ceiling loss pretraining schema support-count"
).split()


class Quiet:
    """A watcher that remembers."""

    def __init__(self):
        self.steps, self.rows, self.failures = [], [], []

    def step(self, cell, name, share, left):
        """Keep a step."""
        self.steps.append((cell.key, name, share, left))

    def done(self, cell, row, left):
        """Keep a row."""
        self.rows.append((row, left))

    def failed(self, cell, why):
        """Keep a failure."""
        self.failures.append(why)


def made_of(*grids, **options):
    about = {"title": "a", "paper": "", "question": "?", "x": "test.horizon"}
    return Experiment("made", grids=grids, x_title="T", **{**about, **options})


def test_every_experiment_has_cells_in_every_profile():
    assert list(experiments()) == NAMES
    for experiment in experiments().values():
        for profile in catalogue.PROFILES:
            found = cells(experiment, profile)
            assert found, (experiment.name, profile)
            assert len({cell.key for cell in found}) == len(found)
            for cell in found:
                if cell.kind != "theory":
                    assert test_of(cell).horizon >= 1  # its numbers make a test
                if cell.data and cell.kind != "baseline":
                    assert data_of(cell).tasks == cell.data["tasks"]


def test_a_grid_is_the_product_of_its_lists():
    grid = Grid(
        policies={"ce": "ce", "tiny": "small"},
        test={"setting": "mdp", "horizon": [5, 7]},
        data={"tasks": [30, 60]},
        learn={"loss": ["all", "actions"]},
    )
    found = cells(made_of(grid), "laptop")
    learned = [cell for cell in found if cell.policy == "small"]
    assert {(c.test["horizon"], c.data["tasks"], c.learn["loss"]) for c in learned} == {
        (t, n, loss) for t in (5, 7) for n in (30, 60) for loss in ("all", "actions")
    }
    assert len(learned) == 8
    # A policy that learns nothing knows neither tasks nor losses: two tests, two cells.
    assert [c.test["horizon"] for c in found if c.policy == "ce"] == [5, 7]
    # Those of one test follow each other, so that it is made once.
    assert [c.test["horizon"] for c in found] == [5] * 5 + [7] * 5
    corner = cells(made_of(grid), "smoke")
    assert [(c.policy, c.test["horizon"]) for c in corner] == [("ce", 5), ("small", 5)]


def test_sizes_come_from_the_profile_then_the_learner_then_the_grid():
    grid = Grid(policies={"smollm2": "smollm2"}, test={"setting": "mdp", "horizon": 5})
    (cell,) = cells(made_of(grid), "laptop")
    assert cell.test["tasks"] == 50 and cell.data["tasks"] == 900
    own = dataclasses.replace(grid, test={**grid.test, "tasks": 3}, data={"tasks": 8})
    (cell,) = cells(made_of(own), "laptop")
    assert cell.test["tasks"] == 3 and cell.data["tasks"] == 8
    shared = Grid(policies={"tiny": "tiny"}, test=grid.test, texts=24000)
    (cell,) = cells(made_of(shared), "laptop")
    assert cell.learn["texts_per_task"] == 24000 // cell.data["tasks"]
    assert not cells(made_of(grid), "smoke"), "smoke trains no SmolLM2"


def test_a_setting_has_its_own_sizes():
    grid = Grid(policies={"dpt": "dpt"}, test={"setting": "darkroom"})
    (cell,) = cells(made_of(grid), "laptop")
    test, data = test_of(cell), data_of(cell)
    assert (test.tasks, test.trajectories, test.horizon) == (20, 5, 100)
    assert (data.tasks, data.trajectories, data.random_trajectories) == (80, 10, 100)


def test_out_of_distribution_only_the_test_is():
    everything = cells(experiments()["ood"], "laptop")
    (cell, *_) = [c for c in everything if c.kind == "finetune"]
    test, data = test_of(cell), data_of(cell)
    assert (test.family.p_min, test.family.p_max) == (0.05, 0.2)
    assert (data.family.p_min, data.family.p_max) == (0.2, 0.9)
    assert test.training_family == data.family
    trained = {
        data_of(c).family.q
        for c in cells(experiments()["ood"], "laptop")
        if c.test["setting"] == "pomdp" and c.kind == "finetune"
    }
    assert trained == {0.6, 0.8, 1.0}
    tested = {
        test_of(c).family.q
        for c in cells(experiments()["ood"], "laptop")
        if c.test["setting"] == "pomdp"
    }
    assert tested == {0.7}
    sets = {
        (test_of(c).family.models, data_of(c).family.models)
        for c in cells(experiments()["ood"], "laptop")
        if c.test["setting"] == "apomdp" and c.kind == "finetune"
    }
    assert sets == {(7, 5)}


def test_keys_know_what_decides_and_nothing_else():
    (cell, *_) = cells(experiments()["mdp-horizon"], "laptop")
    turned = dict(reversed(cell.test.items()))
    assert dataclasses.replace(cell, test=turned).key == cell.key
    assert dataclasses.replace(cell, experiment="other").key == cell.key
    others = [
        dataclasses.replace(cell, seed=cell.seed + 1),
        dataclasses.replace(cell, policy="x"),
        dataclasses.replace(cell, learn={"a": 1}),
        dataclasses.replace(cell, test={**cell.test, "tasks": 99}),
    ]
    assert len({cell.key, *(other.key for other in others)}) == 5


def test_what_there_is_not_is_said():
    with pytest.raises(CatalogueError, match="no experiment `mdp`") as caught:
        catalogue.experiment_named("mdp")
    assert "mdp-horizon" in caught.value.hint
    with pytest.raises(CatalogueError, match="no profile `huge`"):
        cells(experiments()["loss"], "huge")


# Running


SMALL = Grid(
    policies={"random": "random", "ce": "ce", "tiny": "tiny"},
    test={"setting": "mdp", "horizon": [4, 5]},
)


def numbers(rows):
    """What may not depend on when and how often a run was stopped."""
    return [
        (row["key"], row["result"]["gap_percent"], row["result"]["agreement"])
        for row in rows
    ]


@pytest.fixture
def small(monkeypatch):
    """An experiment of six cells, whose lists are all taken."""
    sizes = {**catalogue.profiles()["smoke"], "corner": False}
    monkeypatch.setitem(catalogue.profiles(), "smoke", sizes)
    return made_of(SMALL)


def test_a_run_leaves_a_row_a_cell_and_is_not_run_twice(small, tmp_path):
    watcher = Quiet()
    outcome = run_experiment(small, "smoke", tmp_path, watcher)
    file = rows_file(tmp_path, "made", "smoke")
    rows = read_rows(file)
    assert rows == outcome.rows and outcome.new == 6 and not outcome.failed
    assert [row["key"] for row in rows] == [c.key for c in cells(small, "smoke")]
    for row, cell in zip(rows, cells(small, "smoke"), strict=True):
        assert {name: row[name] for name in cell.spec} == cell.spec
        assert row["seconds"] > 0 and row["device"] and row["versions"]["jax"]
        assert re.fullmatch(r"[0-9a-f]{12}\+?", row["commit"])
        assert (row["training"] is None) == (row["policy"] != "tiny")
    assert [left for _, left in watcher.rows][-1] == 0
    with pytest.raises(CatalogueError, match="has 6 rows already"):
        run_experiment(small, "smoke", tmp_path, watcher)
    with pytest.raises(CatalogueError, match="is complete"):
        run_experiment(small, "smoke", tmp_path, watcher, resume=True)
    # Datasets, runs, and nothing of what was played.
    kept = sorted(p.name.split("-")[0] for p in (tmp_path / "work").iterdir())
    assert kept == ["data", "data", *["finetune"] * 4]


def test_resuming_runs_what_is_missing_and_overwriting_all(small, tmp_path):
    file = rows_file(tmp_path, "made", "smoke")
    whole = run_experiment(small, "smoke", tmp_path, Quiet()).rows
    write_rows(file, [whole[0], whole[-1]])
    again = Quiet()
    outcome = run_experiment(small, "smoke", tmp_path, again, resume=True)
    assert outcome.new == 4 and numbers(outcome.rows) == numbers(whole)
    assert {key for key, *_ in again.steps} == {row["key"] for row in whole[1:-1]}
    trained = [name for _, name, *_ in again.steps]
    assert "training" not in trained, "trained policies are kept"
    outcome = run_experiment(small, "smoke", tmp_path, Quiet(), overwrite=True)
    assert outcome.new == 6 and numbers(outcome.rows) == numbers(whole)


def test_rows_of_cells_that_there_are_no_more_are_dropped(small, tmp_path):
    file = rows_file(tmp_path, "made", "smoke")
    rows = run_experiment(small, "smoke", tmp_path, Quiet()).rows
    write_rows(file, [{**rows[0], "key": "of old"}, *rows[1:]])
    outcome = run_experiment(small, "smoke", tmp_path, Quiet(), resume=True)
    assert outcome.new == 1
    assert [row["key"] for row in read_rows(file)] == [row["key"] for row in rows]


def test_a_cell_that_cannot_be_done_stops_no_other(tmp_path, monkeypatch):
    learners = {"nothing": {"kind": "finetune", "base": "no-such/base"}}
    sizes = {**catalogue.profiles()["smoke"], "learners": learners}
    monkeypatch.setitem(catalogue.profiles(), "smoke", sizes)
    grid = dataclasses.replace(SMALL, policies={"nothing": "nothing", "ce": "ce"})
    watcher = Quiet()
    outcome = run_experiment(made_of(grid), "smoke", tmp_path, watcher)
    assert [row["policy"] for row in outcome.rows] == ["ce"]
    ((cell, why),) = outcome.failed
    assert cell.policy == "nothing" and "no-such/base" in why == watcher.failures[0]
    outcome = run_experiment(made_of(grid), "smoke", tmp_path, Quiet(), resume=True)
    assert outcome.new == 0 and len(outcome.failed) == 1, "tried again"


def test_a_damaged_row_is_named(tmp_path):
    file = rows_file(tmp_path, "loss", "smoke")
    write_rows(file, [{"key": "a", "policy": "b", "seconds": 1.0}])
    with file.open("a") as lines:
        lines.write('{"key": "c"}\n')
    with pytest.raises(CatalogueError, match="line 2, is damaged: no policy, seconds"):
        read_rows(file)
    file.write_text("[1]\n")
    with pytest.raises(CatalogueError, match="line 1"):
        read_rows(file)


def test_the_time_left_learns_from_what_was():
    todo = cells(experiments()["mdp-horizon"], "laptop")[:4]
    known = [{"key": todo[0].key, "profile": "laptop", "policy": "x", "seconds": 600.0}]
    left = TimeLeft(todo, known)
    before = left()
    assert before == pytest.approx(600 + 3 * run.UNKNOWN)
    assert left(todo[0], 0.5) == pytest.approx(before - 300)
    left.done(todo[0], 1200.0)  # twice as slow as expected
    assert left() == pytest.approx(3 * run.UNKNOWN * (1200 + 60) / (600 + 60))
    for cell in todo[1:]:
        left.done(cell, 1.0)
    assert left() == 0


# Every experiment, in seconds


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Where all experiments of this module leave their rows."""
    return tmp_path_factory.mktemp("results")


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_runs(name, results):
    outcome = run_experiment(experiments()[name], "smoke", results, Quiet())
    assert not outcome.failed
    assert outcome.new == len(cells(experiments()[name], "smoke"))
    for row in outcome.rows:
        json.dumps(row, allow_nan=False)
        if row["kind"] == "theory":
            assert len(row["cells"]) == 30
        else:
            assert row["result"]["gap_percent"] <= 110


# Killing, on the command line


def begin(*words, cwd):
    return subprocess.Popen(
        [sys.executable, "-m", "sdm.cli", "experiment", *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_run_goes_on_where_it_was(tmp_path, results):
    words = ("run", "support-count", "--profile", "smoke", "--json")
    first = begin(*words, cwd=tmp_path)
    file = tmp_path / "results/support-count/smoke.jsonl"
    deadline = time.monotonic() + 120
    while not file.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    done = len(read_rows(file))
    assert 1 <= done < 3, "killed in the middle"
    refused = begin(*words, cwd=tmp_path)
    _, said = refused.communicate()
    assert refused.returncode == 2 and "--resume" in said
    second = begin(*words, "--resume", cwd=tmp_path)
    out, said = second.communicate()
    assert second.returncode == 0, said
    assert said.count(" left\n") == 3 - done and "Traceback" not in said
    rows = json.loads(out)["rows"]
    assert rows == read_rows(file) and len(rows) == 3
