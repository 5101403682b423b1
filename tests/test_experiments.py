"""Experiments: from frozen configurations to rows, and from rows to a report."""

import dataclasses
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from sdm.experiments import catalogue, report, run, tables, workshop
from sdm.experiments.catalogue import (
    PUBLISHED,
    CatalogueError,
    Experiment,
    Grid,
    cells,
    experiments,
)
from sdm.experiments.rows import (
    add_row,
    found_rows,
    read_rows,
    rows_file,
    seconds_spent,
    write_rows,
)
from sdm.experiments.run import TimeLeft, run_experiment
from sdm.experiments.workshop import (
    Workshop,
    dataset_of,
    evaluation_of,
    first_stage,
    training_of,
)
from sdm.llm.bases import tiny_model
from sdm.llm.runs import load_run, read_run
from sdm.storage.provenance import provenance

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
        self.steps, self.rows, self.failures, self.cells = [], [], [], None

    def begin(self, cells, todo):
        """Keep how many are to be done."""
        assert todo <= cells
        self.cells = todo

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
                    assert evaluation_of(cell).horizon >= 1  # its numbers make a test
                if cell.data and cell.kind != "baseline":
                    assert dataset_of(cell).tasks == cell.data["tasks"]


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
    shared = Grid(policies={"tiny": "tiny"}, test=grid.test, texts=25600)
    (cell,) = cells(made_of(shared), "laptop")
    assert cell.learn["texts_per_task"] == 25600 // cell.data["tasks"]
    large = dataclasses.replace(grid, policies={"llama-2-7b": "llama-2-7b"})
    assert not cells(made_of(large), "laptop"), "a laptop trains no Llama"
    assert cells(made_of(large), "paper")[0].learn["base"].endswith("Llama-2-7b-hf")


def test_a_setting_has_its_own_sizes():
    grid = Grid(policies={"dpt": "dpt"}, test={"setting": "darkroom"})
    (cell,) = cells(made_of(grid), "laptop")
    test, data = evaluation_of(cell), dataset_of(cell)
    assert (test.tasks, test.trajectories, test.horizon) == (20, 5, 100)
    assert (data.tasks, data.trajectories, data.random_trajectories) == (80, 10, 100)


def test_out_of_distribution_only_the_test_is():
    everything = cells(experiments()["ood"], "laptop")
    (cell, *_) = [c for c in everything if c.kind == "finetune"]
    test, data = evaluation_of(cell), dataset_of(cell)
    assert (test.family.p_min, test.family.p_max) == (0.05, 0.2)
    assert (data.family.p_min, data.family.p_max) == (0.2, 0.9)
    assert test.training_family == data.family
    # Who plans for the mean believes in the same tasks; charging is as likely there.
    (told, *_) = [c for c in everything if (c.policy, c.kind) == ("ce", "baseline")]
    assert evaluation_of(told).training_family == data.family
    trained = {
        dataset_of(c).family.q
        for c in cells(experiments()["ood"], "laptop")
        if c.test["setting"] == "pomdp" and c.kind == "finetune"
    }
    assert trained == {0.6, 0.8, 1.0}
    tested = {
        evaluation_of(c).family.q
        for c in cells(experiments()["ood"], "laptop")
        if c.test["setting"] == "pomdp"
    }
    assert tested == {0.7}
    sets = {
        (evaluation_of(c).family.models, dataset_of(c).family.models)
        for c in cells(experiments()["ood"], "laptop")
        if c.test["setting"] == "apomdp" and c.kind == "finetune"
    }
    assert sets == {(7, 5)}


def everywhere():
    return [
        cell
        for experiment in experiments().values()
        for profile in catalogue.PROFILES
        for cell in cells(experiment, profile)
        if cell.kind != "theory"
    ]


def test_every_number_of_every_cell_arrives():
    """What a configuration says is what the test, the data and the training have."""
    asked = set()
    for cell in everywhere():
        test = evaluation_of(cell)
        for name, value in cell.test.items():
            found = getattr(test, name, getattr(test.family, name, None))
            assert found == value, (cell.experiment, name)
            asked.add(name)
        if cell.kind in ("finetune", "dpt", "cql"):
            data = dataset_of(cell)
            for name, value in cell.data.items():
                found = getattr(data, name, getattr(data.family, name, None))
                assert found == value, (cell.experiment, name)
            # All else of the tasks is as in the test, but for the range of p.
            for name in ("q", "models", "alpha", "pays", "size"):
                if name in cell.test and name not in cell.data:
                    assert getattr(data.family, name) == cell.test[name]
            assert (data.setting, data.horizon) == (test.setting, test.horizon)
            config = training_of(cell, "data")
            for name, value in cell.learn.items():
                if name != "first":
                    assert getattr(config, name) == value, (cell.experiment, name)
            if cell.kind != "cql":
                assert config.support == test.support
            assert config.seed == data.seed == test.seed == cell.seed
    assert {"q", "models", "alpha", "demonstrations", "support", "pays"} <= asked


@pytest.mark.parametrize(
    ("part", "options", "words"),
    [
        ("test", {"K": 5}, "neither a mdp task nor its EvaluationConfig has `K`"),
        ("data", {"trajectory": 15}, "OracleConfig has `trajectory`"),
        ("learn", {"epoch": 2}, "unexpected keyword argument 'epoch'"),
    ],
)
def test_an_unknown_number_is_named(part, options, words):
    (cell, *_) = [c for c in everywhere() if c.policy == "tiny"]
    changed = {**getattr(cell, part), **options}
    wrong = dataclasses.replace(cell, **{part: changed})
    with pytest.raises(CatalogueError, match=words):
        evaluation_of(wrong)
        dataset_of(wrong)
        training_of(wrong, "data")


def test_random_episodes_are_made_only_where_something_learns_from_them():
    for cell in everywhere():
        if cell.kind == "finetune" and cell.data.get("random_trajectories"):
            config = training_of(cell, "data")
            assert "all" in (config.demonstrations, config.queries), cell.experiment


def test_keys_know_what_decides_and_nothing_else():
    (cell, *_) = cells(experiments()["mdp-horizon"], "laptop")
    turned = dict(reversed(cell.test.items()))
    assert dataclasses.replace(cell, test=turned).key == cell.key
    assert dataclasses.replace(cell, experiment="other").key == cell.key
    others = [
        dataclasses.replace(cell, seed=cell.seed + 1),
        dataclasses.replace(cell, policy="x"),
        dataclasses.replace(cell, learn={"a": 1}),
        dataclasses.replace(cell, data={"a": 1}),
        dataclasses.replace(cell, kind="icl"),
        dataclasses.replace(cell, test={**cell.test, "tasks": 99}),
    ]
    assert len({cell.key, *(other.key for other in others)}) == 7


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
    assert watcher.cells == 6
    assert [row["key"] for row in rows] == [c.key for c in cells(small, "smoke")]
    for row, cell in zip(rows, cells(small, "smoke"), strict=True):
        assert {name: row[name] for name in cell.spec} == cell.spec
        assert row["seconds"] > 0 and row["device"] and row["versions"]["jax"]
        assert re.fullmatch(r"[0-9a-f]{12}\+?", row["commit"])
        assert (row["training"] is None) == (row["policy"] != "tiny")
        if row["training"]:
            assert row["training"]["config"]["base"] == "tiny"
            assert row["training"]["commit"] == row["commit"]
            # Of the training and of acting.
            acting = row["seconds"] - row["training"]["seconds"]
            assert acting == pytest.approx(row["result"]["seconds"]) and acting > 0
            # 11 tasks, two texts of three episodes of 10 or 12 tokens and two ends.
            assert row["training"]["tokens"] in (22 * 26, 22 * 32)
    assert [left for _, left in watcher.rows][-1] == 0
    with pytest.raises(CatalogueError, match="has 6 of these 6 rows already"):
        run_experiment(small, "smoke", tmp_path, watcher)
    complete = run_experiment(small, "smoke", tmp_path, watcher, resume=True)
    assert complete.rows == rows and complete.new == watcher.cells == 0
    # Datasets, runs, and nothing of what was played.
    folders = [p for p in (tmp_path / "work").iterdir() if p.is_dir()]
    kept = sorted(folder.name.split("-")[0] for folder in folders)
    assert kept == ["data", "data", "finetune", "finetune"]


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


def without_learning(small):
    """The cells that take no training."""
    (grid,) = small.grids
    own = dataclasses.replace(grid, policies={"random": "random", "ce": "ce"})
    return dataclasses.replace(small, grids=(own,))


def test_rows_of_cells_that_there_are_no_more_are_kept_and_not_shown(small, tmp_path):
    small = without_learning(small)
    file = rows_file(tmp_path, "made", "smoke")
    rows = run_experiment(small, "smoke", tmp_path, Quiet()).rows
    write_rows(file, [{**rows[0], "key": "of old"}, *rows[1:]])
    outcome = run_experiment(small, "smoke", tmp_path, Quiet(), resume=True)
    assert outcome.new == 1
    keys = [row["key"] for row in rows]
    assert [row["key"] for row in outcome.rows] == keys
    assert [row["key"] for row in read_rows(file)] == [*keys, "of old"]


def test_what_another_experiment_has_done_is_taken_from_there(
    small, tmp_path, monkeypatch
):
    small = without_learning(small)
    first = run_experiment(small, "smoke", tmp_path, Quiet()).rows
    other = dataclasses.replace(small, name="loss")  # one that there is
    monkeypatch.setitem(experiments(), "made", small)
    watcher = Quiet()
    outcome = run_experiment(other, "smoke", tmp_path, watcher)
    assert outcome.new == 4 and {name for _, name, *_ in watcher.steps} == {"beginning"}
    assert [row["experiment"] for row in outcome.rows] == ["loss"] * 4
    drop = ("experiment",)
    assert [{k: x for k, x in row.items() if k not in drop} for row in first] == [
        {k: x for k, x in row.items() if k not in drop} for row in outcome.rows
    ]
    again = run_experiment(other, "smoke", tmp_path, Quiet(), overwrite=True).rows
    times = [[row["result"]["seconds"] for row in rows] for rows in (first, again)]
    assert not set(times[0]) & set(times[1]), "played again"


def test_what_another_process_is_at_is_left_to_it(small, tmp_path):
    small = without_learning(small)
    first, *others = cells(small, "smoke")
    (tmp_path / "work").mkdir()
    lock = FileLock(tmp_path / "work" / f"cell-{first.key}.lock")
    lock.acquire()

    class Watcher(Quiet):
        def done(self, cell, row, left):
            """Let the other process end when all else is done."""
            super().done(cell, row, left)
            if len(self.rows) == len(others):
                lock.release()

    watcher = Watcher()
    run_experiment(small, "smoke", tmp_path, watcher)
    keys = [row["key"] for row, _ in watcher.rows]
    assert keys == [cell.key for cell in (*others, first)]


def test_the_output_of_another_command_is_no_place_for_rows(small, tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(CatalogueError, match="would be lost with it"):
        run_experiment(small, "smoke", tmp_path, Quiet())


def test_the_same_test_has_the_same_key_however_it_is_spelled():
    plain = Grid(policies={"ce": "ce"}, test={"setting": "mdp", "horizon": 5})
    (cell,) = cells(made_of(plain), "laptop")
    for name, value in catalogue.UNSPELLED.items():
        assert getattr(evaluation_of(cell), name) == value
        for other, same in ((value, True), (value * 2 if value == 2 else "random", 0)):
            spelled = dataclasses.replace(plain, test={**plain.test, name: other})
            (found,) = cells(made_of(spelled), "laptop")
            assert (found.key == cell.key) == same and found.test[name] == other


def only_tiny(small):
    (grid,) = small.grids
    own = dataclasses.replace(
        grid, policies={"tiny": "tiny"}, test={**grid.test, "horizon": 4}
    )
    return dataclasses.replace(small, grids=(own,))


def test_what_decides_a_training_decides_its_folder(small, tmp_path, monkeypatch):
    """Another default of the recipe, which no configuration names, is another run."""
    from sdm.llm import recipes

    (cell,) = cells(only_tiny(small), "smoke")
    workshop = Workshop(tmp_path, lambda *_: None)
    before = workshop.run_folder(cell)
    assert workshop.run_folder(cell) == before
    assert workshop.run_folder(dataclasses.replace(cell, seed=1)) != before
    more = {**cell.data, "trajectories": 9}
    assert workshop.run_folder(dataclasses.replace(cell, data=more)) != before
    changed = {**recipes.RECIPES["tiny"], "learning_rate": 1e-5}
    monkeypatch.setitem(recipes.RECIPES, "tiny", changed)
    assert workshop.run_folder(cell) != before


def test_what_was_begun_otherwise_is_begun_again(small, tmp_path):
    experiment = only_tiny(small)
    (cell,) = cells(experiment, "smoke")
    workshop = Workshop(tmp_path / "work", lambda *_: None)
    begun = workshop.run_folder(cell).with_suffix(".json")
    begun.write_text(json.dumps({**provenance("finetune"), "commit": "of old"}))
    for folder in (workshop.run_folder(cell), workshop.dataset(dataset_of(cell))):
        if folder.is_dir():
            shutil.rmtree(folder)
        partial = folder.with_name(folder.name + ".partial")
        partial.mkdir(parents=True)
        (partial / "plan.json").write_text('{"made_by": "sdm", "old": 1}')
        (partial / "shard-00000.parquet").write_text("of another version")
    outcome = run_experiment(experiment, "smoke", tmp_path, Quiet())
    (row,) = outcome.rows
    assert not outcome.failed and row["training"]["commit"] == row["commit"]


def test_episodes_that_another_training_played_are_not_taken(small, tmp_path):
    """Only those of this very training: its seconds are part of the name."""
    experiment = only_tiny(small)
    (cell,) = cells(experiment, "smoke")
    kept = []

    def stop(*_, **options):
        raise RuntimeError(options["kept"].name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdm.evaluation.evaluate.evaluate", stop)
        for seconds in (1.0, 2.0):
            training = {"seconds": seconds}
            policy = workshop.Policy("some-run", training)
            patch.setattr(Workshop, "policy", lambda self, cell, p=policy: p)
            patch.setattr("sdm.evaluation.evaluate.check_policy", lambda *_: None)
            ((_, why),) = run_experiment(
                experiment, "smoke", tmp_path, Quiet(), resume=True
            ).failed
            kept.append(why)
    assert len(set(kept)) == 2 and all(
        name.startswith(f"played-{cell.key}") for name in kept
    )
    old = tmp_path / "work" / kept[0]
    old.mkdir(parents=True)
    (old / "0-0.npz").write_text("not episodes")
    outcome = run_experiment(experiment, "smoke", tmp_path, Quiet())
    assert not outcome.failed and not old.exists()


def test_a_schema_is_that_of_a_model_that_is_only_prompted(tmp_path):
    chosen = [c for c in cells(experiments()["schema"], "laptop") if c.kind == "icl"]
    made = Workshop(tmp_path, lambda *_: None)
    assert [made.policy(cell).options for cell in chosen] == [
        {"schema": "compact"},
        {"schema": "paper"},
    ]


def test_results_may_be_named_from_anywhere(small, tmp_path, monkeypatch):
    """A relative folder of results is the same folder."""
    experiment = only_tiny(small)
    monkeypatch.chdir(tmp_path)
    first = run_experiment(experiment, "smoke", Path("results"), Quiet())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    rows_file(tmp_path / "results", "made", "smoke").unlink()
    watcher = Quiet()
    again = run_experiment(experiment, "smoke", Path("../results"), watcher)
    assert "training" not in [name for _, name, *_ in watcher.steps]
    assert numbers(again.rows) == numbers(first.rows)


def test_a_cell_that_cannot_be_done_stops_no_other(tmp_path, monkeypatch):
    learners = {"nothing": {"kind": "finetune", "base": "no-such/base"}}
    sizes = {**catalogue.profiles()["smoke"], "learners": learners}
    monkeypatch.setitem(catalogue.profiles(), "smoke", sizes)
    grid = dataclasses.replace(SMALL, policies={"nothing": "nothing", "ce": "ce"})
    watcher = Quiet()
    outcome = run_experiment(made_of(grid), "smoke", tmp_path, watcher)
    assert [row["policy"] for row in outcome.rows] == ["ce"]
    ((cell, why),) = outcome.failed
    assert cell.policy == "nothing" and "no-such/base" in why
    assert "a Hugging Face id needs the network" in why and why in watcher.failures
    outcome = run_experiment(made_of(grid), "smoke", tmp_path, Quiet(), resume=True)
    assert outcome.new == 0 and len(outcome.failed) == 1, "tried again"


def test_a_damaged_row_is_named(tmp_path):
    file = rows_file(tmp_path, "loss", "smoke")
    whole = fabricated(experiments()["loss"], "smoke")[0]
    write_rows(file, [whole, {k: whole[k] for k in whole.keys() - {"seconds"}}])
    with pytest.raises(CatalogueError, match="line 2, is damaged: no seconds"):
        read_rows(file)
    file.write_text("[1]\n")
    with pytest.raises(CatalogueError, match="line 1"):
        read_rows(file)


def test_the_time_left_learns_from_what_was():
    everything = cells(experiments()["mdp-horizon"], "laptop")
    todo = [cell for cell in everything if cell.kind == "finetune"][:4]
    row = {"key": todo[0].key, "profile": "laptop", "policy": "x", "seconds": 600.0}
    trained = TimeLeft(todo, [{**row, "training": {"seconds": 450.0}}], lambda _: True)
    assert trained() == pytest.approx(150 + 3 * run.UNKNOWN)
    left = TimeLeft(todo, [row])
    before = left(todo[0], 1e-9, 5.0)
    assert before == pytest.approx(600 + 3 * run.UNKNOWN)
    assert left(todo[0], 0.5, 305.0) == pytest.approx(before - 300)
    # Twice as slow as expected, which shows before the cell is done.
    slower = (before - 300) * (600 + run.UNKNOWN) / (300 + run.UNKNOWN)
    assert left(todo[0], 0.5, 605.0) == pytest.approx(slower)
    left.done(todo[0], 1205.0)
    assert left() == pytest.approx(3 * run.UNKNOWN * (1200 + 60) / (600 + 60))
    for at, cell in enumerate(todo[1:]):
        left(cell, 0.0, 2000.0 + at)
        left.done(cell, 2001.0 + at)
    assert left() == 0


def test_what_was_done_before_or_takes_no_time_tells_no_pace():
    everything = cells(experiments()["mdp-horizon"], "laptop")
    (learned, *_) = [cell for cell in everything if cell.kind == "finetune"]
    (plain, other, *_) = [cell for cell in everything if cell.kind == "baseline"]
    left = TimeLeft([learned, plain, other], [])
    assert left() == run.UNKNOWN + 2 * run.AT_ONCE
    left(plain, 0.0, 0.0)
    left.done(plain, 30.0)  # everything was compiled
    assert left() == run.UNKNOWN + run.AT_ONCE
    left(learned, 0.0, 30.0)  # makes its data until 90, and goes on where it was
    assert left(learned, 0.6, 90.0) == pytest.approx(0.4 * run.UNKNOWN + run.AT_ONCE)
    assert left(learned, 0.8, 102.0) == pytest.approx(0.2 * run.UNKNOWN + run.AT_ONCE)


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
            assert len(row["cells"]) == 90
            continue
        gap, policy = row["result"]["gap_percent"], row["policy"]
        if policy == "oracle":
            assert gap == 0
        if policy == "random":
            assert 20 < gap <= 100
        assert (row["training"] is None) == (row["kind"] in ("baseline", "icl"))


# Killing, on the command line


def begin(*words, cwd):
    return subprocess.Popen(
        [sys.executable, "-m", "sdm.cli", "experiment", *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_run_goes_on_where_it_was(tmp_path):
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
    second = begin(*words, "--resume", cwd=tmp_path)
    out, said = second.communicate()
    assert second.returncode == 0, said
    assert f"{done} of 3 cells are done already" in said and "3 of 3: " in said
    assert "Traceback" not in said
    rows = json.loads(out)["rows"]
    assert rows == read_rows(file) and len(rows) == 3


# Tables and the report


TRAINED = {"sdm": "0.0", "commit": "0" * 12, "device": "another machine"}


def fabricated(experiment, profile, gap=lambda cell: 1.0):
    """A row for every cell, as if it had been run."""
    rows = []
    for cell in cells(experiment, profile):
        row = {"experiment": experiment.name, "profile": profile, "key": cell.key}
        row |= {**cell.spec, **provenance(cell.kind), "seconds": 2.0, "training": None}
        if cell.kind in run.LEARNING:
            row["training"] = {"seconds": 1.5, "tokens": 4321, **TRAINED}
        if cell.kind == "theory":
            one = {"train": 10, "gap": 1.0, "bound": 9.0, "holds": True}
            above = {"gap": 9.0, "bound": 4.5, "holds": False, "kappa": 10.0}
            row["cells"] = [
                {**one, "kappa": kappa, "support": support}
                for kappa in (1.0, 10.0, 100.0)
                for support in (5, 160)
            ]
            row["cells"].append({**one, **above, "support": 20})
        else:
            found = gap(cell)
            row["result"] = {
                "gap_percent": found,
                "ci_low": found - 0.5,
                "ci_high": found + 0.5,
                "exact_gap_percent": found + 0.25,
            }
        rows.append(row)
    return rows


def test_points_stand_beside_the_papers():
    experiment = experiments()["mdp-horizon"]
    rows = {row["key"]: row for row in fabricated(experiment, "laptop")}
    found = [(cell, rows[cell.key]) for cell in cells(experiment, "laptop")]
    beside = {
        (point.policy, point.x): point.paper
        for point in tables.points(experiment, found)
        if point.paper is not None
    }
    # Their Fig. 2 left: random, in context only, fine-tuned.
    assert {t: beside[("random", t)] for t in (10, 20, 30)} == {
        10: 57.6,
        20: 49.6,
        30: 46.4,
    }
    assert [beside[("tiny", t)] for t in (10, 20, 30)] == [3, 15, 15]
    assert [beside[("smollm2", t)] for t in (10, 20, 30)] == [3, 15, 15]
    assert [beside[("icl-smollm2", t)] for t in (10, 20, 30)] == [15.9, 31.1, 43.2]
    assert ("ce", 10) not in beside and ("mean-plan", 10) not in beside


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("dpt", "dpt-transitions"),
        ("support-quality", "tiny-mixed"),
        ("ood", "tiny-wide"),
    ],
)
def test_what_is_trained_otherwise_has_no_paper_value(name, policy):
    experiment = experiments()[name]
    found = [(cell, None) for cell in cells(experiment, "laptop")]
    chosen = [p for p in tables.points(experiment, found) if p.policy == policy]
    assert chosen and all(point.paper is None for point in chosen)


def test_only_as_many_tasks_as_the_papers_are_compared_along_that_axis():
    experiment = experiments()["mdp-tasks"]
    found = [(cell, None) for cell in cells(experiment, "laptop")]
    values = {p.x: p.paper for p in tables.points(experiment, found) if p.x}
    assert {x for x, paper in values.items() if paper is not None} == {3200}


@pytest.mark.parametrize(
    ("name", "policy", "value", "wanted"),
    [
        ("ood", "tiny", "T = 20", 6),
        ("ood", "smollm2", "T = 30", 7),
        ("ood", "tiny", "T = 10", 0),
        ("ood", "tiny", "q = 0.7, trained at q = 0.6", 10),
        ("dpt", "dpt", "T = 10", 7),
        ("dpt", "dpt", "T = 20", 26),
        ("dpt", "dpt", "T = 30", 43),
        ("dpt", "dpt", "q = 0.6", 22),
        ("dpt", "dpt", "q = 0.8", 25),
        ("dpt", "dpt", "q = 1", 26),
        ("dpt", "dpt", "K = 2, α = 1", 26),
        ("dpt", "dpt", "K = 10, α = 1", 37),
        ("dpt", "tiny", "K = 2, α = 1", 15),
        ("dpt", "tiny", "K = 10, α = 1", 22),
        ("pomdp-observation", "tiny", 0.6, 16),
        ("pomdp-observation", "tiny", 0.8, 10),
        ("pomdp-observation", "tiny", 1.0, 9),
        ("darkroom", "tiny", "stay", 5),
    ],
)
def test_the_papers_values(name, policy, value, wanted):
    experiment = experiments()[name]
    found = [(cell, None) for cell in cells(experiment, "laptop")]
    (point,) = [
        point
        for point in tables.points(experiment, found)
        if (point.policy, point.x) == (policy, value)
    ]
    assert point.paper == wanted and point.gap is None


def test_random_demonstrations_have_the_papers_value_too():
    experiment = experiments()["support-quality"]
    found = [(cell, None) for cell in cells(experiment, "laptop")]
    values = {
        (point.facet, point.x): point.paper
        for point in tables.points(experiment, found)
        if point.policy == "tiny"
    }
    assert values[("random", 10)] == 20 and values[("optimal", 10)] == 3


def test_seeds_make_one_point_with_an_interval_over_them():
    experiment = experiments()["mdp-horizon"]
    rows = fabricated(experiment, "paper", gap=lambda cell: 1.0 + cell.seed)
    by_key = {row["key"]: row for row in rows}
    found = [(cell, by_key[cell.key]) for cell in cells(experiment, "paper")]
    points = tables.points(experiment, found)
    assert len(points) == len(found) / 3
    (point,) = [p for p in points if (p.policy, p.x) == ("tiny", 10)]
    assert (point.gap, point.seeds, point.wanted) == (2.0, 3, 3)
    # Student's t with 2 degrees of freedom: 4.3027 times 1/√3.
    assert point.high - point.gap == pytest.approx(4.30265 / 3**0.5, abs=1e-4)
    some = [(cell, row if cell.seed == 1 else None) for cell, row in found]
    (point,) = [
        p for p in tables.points(experiment, some) if (p.policy, p.x) == ("tiny", 10)
    ]
    assert (point.gap, point.low, point.seeds, point.wanted) == (2.0, 1.5, 1, 3)


def point_at(policy, x, gap):
    """A point with only what a goal is about."""
    others = {f.name: None for f in dataclasses.fields(tables.Point)}
    seen = {"policy": policy, "x": x, "gap": gap, "condition": "T = 10"}
    test = {"tested": "100 × 30", "seeds": 1, "wanted": 1, "published": False}
    return tables.Point(**{**others, **seen, **test})


GAPS = {
    "mean-plan": {None: 0.5},
    "tiny": {5: 4.0, 20: 2.5, 1600: 0.41},
    "smollm2": {5: 0.9, 80: 2.6, 1600: 0.93},
    "scratch": {5: 0.5, 1600: 3.0, 3200: None},
    "longer": {80: 2.4},
}


def test_what_it_takes_to_meet_a_goal_is_told():
    """The least from which on every gap is within it: no lucky one before a worse."""
    experiment = dataclasses.replace(
        experiments()["pretraining"], goal=2.5, x_title="lessons"
    )
    shown = [
        point_at(p, x, gap) for p, along in GAPS.items() for x, gap in along.items()
    ]
    assert tables.reached(experiment, shown) == (
        "To keep within 2.5 %, as estimated, it takes, in lessons and of those run: "
        "`tiny` 20; `smollm2` 1,600; `scratch` more than 1,600; `longer` 80 or fewer."
    )
    assert tables.reached(experiment, shown[:1]) == ""
    assert tables.reached(dataclasses.replace(experiment, goal=None), shown) == ""
    strict = dataclasses.replace(experiment, goal=0.0)
    assert "`longer` more than 80" in tables.reached(strict, shown)


def test_a_goal_is_seen_in_the_figure_and_told_below_it(page, monkeypatch):
    monkeypatch.setattr("sdm.experiments.rows.PUBLISHED", page / "no published rows")
    marked, unmarked = report.sections(
        [experiments()["pretraining"], experiments()["mdp-tasks"]], page, "laptop"
    )
    rules = [
        layer["data"]["values"]
        for layer in marked.figure["layer"]
        if "values" in layer.get("data", {})
    ]
    assert rules == [[{"gap": 1.0}]] and not unmarked.reached
    text, html = report.markdown([marked]), report.html_page([marked])
    assert marked.reached.startswith("To keep within 1 %")
    assert text.index("laptop.png") < text.index(marked.reached) < text.index("| ---")
    assert "<code>smollm2-scratch-4x</code>" in html


def test_a_goal_wants_numbers_along_one_axis(tmp_path):
    config = (catalogue.HERE / "configs" / "mdp-horizon.toml").read_text()
    file = tmp_path / "config.toml"
    file.write_text("goal = 1.0\n" + config)
    with pytest.raises(CatalogueError, match="a goal wants one panel and numbers"):
        catalogue._read(file)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of all experiments; one is not run, one only in half."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdm.experiments.rows.PUBLISHED", folder / "no published rows")
        _write_page(folder)
    return folder


def _write_page(folder):
    for name, experiment in experiments().items():
        rows = fabricated(experiment, "laptop")
        if name == "loss":
            continue
        kept = rows[: len(rows) // 2] if name == "schema" else rows
        write_rows(rows_file(folder, name, "laptop"), kept)
    shown = report.sections(list(experiments().values()), folder, "laptop")
    report.write_report(shown, folder)


def test_the_report_says_what_was_not_run(page, monkeypatch):
    monkeypatch.setattr("sdm.experiments.rows.PUBLISHED", page / "no published rows")
    shown = report.sections(list(experiments().values()), page, "laptop")
    by_name = {section.name: section for section in shown}
    missing, half = by_name["loss"], by_name["schema"]
    assert missing.done == 0 and missing.figure is None and not missing.picture
    assert all("not run" in line.texts and not line.done for line in missing.lines)
    assert [line.done for line in half.lines].count(True) == half.done == 3
    whole = by_name["mdp-horizon"]
    assert whole.done == whole.wanted and all(line.done for line in whole.lines)
    table = [dict(zip(whole.head, line.texts, strict=True)) for line in whole.lines]
    (tiny,) = [r for r in table if r["policy"] == "tiny" and r["horizon T"] == "20"]
    assert (tiny["paper"], tiny["ours"], tiny["difference"]) == ("15", "1.00", "-14.00")
    assert tiny["95 % interval"] == "0.50 … 1.50" and tiny["exact gap"] == "1.25"
    assert (tiny["trained on"], tiny["seconds"]) == ("3,200 tasks", "2")
    assert tiny["tested on"] == "100 × 30"
    assert "another machine" in whole.devices and "0" * 12 in whole.commits
    columns = [dict(zip(half.head, line.texts, strict=True)) for line in half.lines]
    trained = [row for row in columns if row["policy"] == "tiny"]
    assert {row["training seconds"] for row in trained} == {"2"}  # 1.5, rounded to even
    assert {row["training tokens"] for row in trained} == {"4,321"}
    theory = by_name["theory"]
    at_ten = dict(zip(theory.head, theory.lines[1].texts, strict=True))
    assert at_ten["ours"] == "2 of 3 below it"
    assert (at_ten["bound / gap, least"], at_ten["most"]) == ("0.5", "9")


def values_of(description):
    """The records of a figure in Vega-Lite, wherever they stand in it."""
    (values,) = [
        found["values"]
        for found in (
            description.get("data"),
            *description.get("datasets", {}).values(),
        )
        if isinstance(found, dict) and "values" in found
    ]
    return values


def test_a_figure_shows_the_numbers_of_the_table(page, monkeypatch):
    monkeypatch.setattr("sdm.experiments.rows.PUBLISHED", page / "no published rows")
    (section,) = report.sections([experiments()["mdp-horizon"]], page, "laptop")
    shown = [
        (r["source"], r["gap"], r["low"], r["high"])
        for r in values_of(section.figure)
        if (r["policy"], r["x"]) == ("tiny", 20)
    ]
    assert shown == [("ours", 1.0, 0.5, 1.5), ("paper", 15.0, None, None)]


def test_smoke_is_shown_only_where_there_is_nothing_larger(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "sdm.experiments.rows.PUBLISHED", tmp_path / "no published rows"
    )
    experiment = experiments()["loss"]
    shown = []
    for profile in ("smoke", "laptop"):
        rows = fabricated(experiment, profile)
        write_rows(rows_file(tmp_path, "loss", profile), rows)
        shown.append([s.profile for s in report.sections([experiment], tmp_path)])
    assert shown == [["smoke"], ["laptop"]]


def test_a_training_that_cells_share_is_counted_once():
    one, other = fabricated(experiments()["loss"], "laptop")[:2]
    assert seconds_spent([one, other]) == pytest.approx(1.5 + 2 * 0.5)
    alone = {**other, "training": None}
    assert seconds_spent([one, alone]) == pytest.approx(2.0 + 2.0)


def test_every_published_row_of_the_same_cell_is_found_anywhere(tmp_path, monkeypatch):
    """Cells of `dpt` that `mdp-horizon` has run are not shown as not run."""
    monkeypatch.setattr("sdm.experiments.rows.PUBLISHED", tmp_path)
    rows = fabricated(experiments()["mdp-horizon"], "laptop")
    write_rows(rows_file(tmp_path, "mdp-horizon", "laptop"), rows)
    found = found_rows(experiments()["dpt"], "laptop", tmp_path / "mine")
    done = [(cell.policy, cell.value("test.horizon")) for cell, row in found if row]
    assert done == [("tiny", horizon) for horizon in (10, 20, 30)]
    # Baselines have the same cells in every profile: one is not half of the other.
    found = found_rows(experiments()["mdp-horizon"], "paper", tmp_path / "mine")
    assert not any(row for _, row in found)


def test_the_report_is_one_file_that_needs_no_network(page):
    text = (page / "report.html").read_text()
    markup = "".join(re.split(r"<script>.*?</script>", text, flags=re.DOTALL))
    assert len(text) - len(markup) > 800_000, "the code that draws is in it"
    assert not re.search(r"""(src|href)=["'](?!data:|#)|@import|url\(""", markup)
    assert len(text) < 6_000_000
    for name in ("mdp-horizon", "theory", "darkroom"):
        picture = (page / name / "laptop.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 5_000


def test_making_the_report_again_changes_what_is_between_the_marks(page, tmp_path):
    text = (page / "README.md").read_text()
    assert text.count(report.BEGIN) == text.count(report.END) == 1
    assert "| T" not in text.partition(report.BEGIN)[0]
    changed = tmp_path / "README.md"
    changed.write_text(f"before\n{report.BEGIN} old {report.END}\nafter\n")
    shown = report.sections([experiments()["theory"]], page, "laptop")
    report.write_report(shown, tmp_path)
    again = changed.read_text()
    assert again.startswith("before\n") and again.endswith("after\n")
    assert " old " not in again and "Proposition 1" in again
    changed.write_text("something else\n")
    with pytest.raises(CatalogueError, match="lacks the marks"):
        report.write_report(shown, tmp_path)
    assert changed.read_text() == "something else\n"


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def browser():
    """A real browser without a screen, and without a network."""
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=quiet)
        yield started
        started.close()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_browser_draws_every_figure_without_a_complaint(page, browser):
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    said, asked = [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto((page / "report.html").as_uri())
    opened.wait_for_function(
        "() => document.querySelectorAll('figure > img').length === 0", timeout=60_000
    )
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    figures = opened.locator("figure")
    assert figures.count() == len(NAMES) - 1  # `loss` was not run
    for i in range(figures.count()):
        drawn = figures.nth(i).locator("svg").first
        drawn.scroll_into_view_if_needed()
        assert drawn.is_visible()
        box = drawn.bounding_box()
        assert box["width"] > 200 and box["height"] > 150
        # Something is drawn in it: symbols of points.
        assert figures.nth(i).locator("svg path").count() > 10
    # What a point is about is told where the mouse is on it.
    opened.locator("#mdp-horizon-laptop svg path[aria-label*='tiny']").first.hover()
    assert opened.locator("#vg-tooltip-element").inner_text().count("tiny")
    # Wide tables scroll by themselves: the page does not.
    assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_without_scripts_the_pictures_are_shown(page, browser):
    opened = browser.new_context(java_script_enabled=False).new_page()
    opened.goto((page / "report.html").as_uri())
    pictures = opened.locator("figure > img")
    assert pictures.count() == len(NAMES) - 1
    for i in range(pictures.count()):
        assert pictures.nth(i).is_visible()
        assert pictures.nth(i).bounding_box()["width"] > 200


# What was published


def test_published_rows_are_of_cells_that_there_are():
    for experiment in experiments().values():
        for profile in ("laptop", "paper"):
            keys = {cell.key for cell in cells(experiment, profile)}
            for row in read_rows(rows_file(PUBLISHED, experiment.name, profile)):
                assert row["key"] in keys, (experiment.name, row["policy"])
                assert re.fullmatch(r"[0-9a-f]{12}", row["commit"]), "uncommitted code"


def test_the_users_own_rows_come_before_the_published(tmp_path, monkeypatch):
    experiment = experiments()["loss"]
    monkeypatch.setattr("sdm.experiments.rows.PUBLISHED", tmp_path / "published")
    rows = fabricated(experiment, "laptop")
    write_rows(rows_file(tmp_path / "published", "loss", "laptop"), rows)
    mine = [{**rows[0], "seconds": 99.0}]
    write_rows(rows_file(tmp_path / "mine", "loss", "laptop"), mine)
    found = found_rows(experiment, "laptop", tmp_path / "mine")
    assert [row["seconds"] for _, row in found] == [99.0] + [2.0] * (len(rows) - 1)
    (shown,) = report.sections([experiment], tmp_path / "mine")
    assert (shown.done, shown.published) == (len(rows), len(rows) - 1)
    table = [dict(zip(shown.head, line.texts, strict=True)) for line in shown.lines]
    assert [line["from"] for line in table] == [""] + ["published"] * (len(rows) - 1)
    assert f"{len(rows) - 1} of them published" in report.markdown([shown])
    # Of the published rows themselves that need not be said.
    (alone,) = report.sections([experiment], tmp_path / "published")
    assert alone.published == 0 and "from" not in alone.head


def test_runs_at_the_same_time_keep_each_others_rows(tmp_path):
    experiment = experiments()["loss"]
    rows = fabricated(experiment, "laptop")
    order = [row["key"] for row in rows]
    file = rows_file(tmp_path, "loss", "laptop")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        jobs = [pool.apply_async(add_row, (file, row, order)) for row in rows * 10]
        for job in jobs:
            job.get(60)
    assert read_rows(file) == rows
    assert add_row(file, rows[0], order[:2]) == rows[:2], "of these keys"
    assert read_rows(file) == rows


def test_one_seed_may_be_run_or_overwritten_alone(small, tmp_path, monkeypatch):
    sizes = {**catalogue.profiles()["smoke"], "seeds": [0, 1]}
    monkeypatch.setitem(catalogue.profiles(), "smoke", sizes)
    plain = dataclasses.replace(SMALL, policies={"random": "random"})
    experiment = made_of(plain)
    first = run_experiment(experiment, "smoke", tmp_path, Quiet(), seed=1)
    assert [row["seed"] for row in first.rows] == [1, 1]
    both = run_experiment(experiment, "smoke", tmp_path, Quiet(), resume=True)
    assert both.new == 2 and sorted(row["seed"] for row in both.rows) == [0, 0, 1, 1]
    again = run_experiment(
        experiment, "smoke", tmp_path, Quiet(), seed=1, overwrite=True
    )
    assert again.new == 2 and numbers(again.rows) == numbers(both.rows)
    with pytest.raises(CatalogueError, match="no cells of seed 7"):
        run_experiment(experiment, "smoke", tmp_path, Quiet(), seed=7, resume=True)


def test_a_theory_that_fails_is_told_like_any_other(tmp_path, monkeypatch):
    def fail(grid):
        raise ValueError("no")

    monkeypatch.setattr("sdm.theory.proposition_1.validate", fail)
    outcome = run_experiment(experiments()["theory"], "laptop", tmp_path, Quiet())
    ((cell, why),) = outcome.failed
    assert why == "no" and cell.condition == "κ, M and N"


def test_both_profiles_of_an_experiment_are_shown(tmp_path):
    experiment = experiments()["loss"]
    for profile in ("laptop", "paper"):
        rows = fabricated(experiment, profile)
        write_rows(rows_file(tmp_path, "loss", profile), rows)
    shown = report.sections([experiment], tmp_path)
    assert [section.profile for section in shown] == ["laptop", "paper"]
    page = report.html_page(shown)
    assert page.count('id="figure-loss-laptop"') == 1
    assert page.count('id="figure-loss-paper"') == 1
    (alone,) = report.sections([experiment], tmp_path / "nothing", "smoke")
    assert f"paper: none of {len(cells(experiment, 'paper'))} cells" in alone.elsewhere


def test_a_page_that_is_not_ours_is_not_replaced(tmp_path):
    (tmp_path / "report.html").write_text("<html>mine</html>")
    shown = report.sections([experiments()["loss"]], tmp_path, "smoke")
    with pytest.raises(CatalogueError, match="is no report of sdm"):
        report.write_report(shown, tmp_path)
    assert (tmp_path / "report.html").read_text() == "<html>mine</html>"
    assert not (tmp_path / "README.md").exists()


def test_a_small_profile_makes_nothing_larger():
    """What it caps stays below that where it was."""
    sizes = catalogue.profiles()["smoke"]["most"]
    found = [c for c in cells(experiments()["loss"], "smoke") if c.kind == "finetune"]
    texts = {c.policy: c.learn["texts_per_task"] for c in found}
    assert texts["tiny"] == sizes["learn"]["texts_per_task"] == 2
    assert texts["smollm2"] == 1


def test_what_a_test_is_out_of_is_what_was_trained_on():
    """The range of p of a test is not that of the data, whatever else they share."""
    test = {"setting": "mdp", "horizon": 5, "p_min": 0.05, "p_max": 0.2}
    grid = Grid(policies={"tiny": "tiny"}, test={**test, "charge_cost": 0.1})
    (cell,) = cells(made_of(grid), "smoke")
    cell = dataclasses.replace(cell, test={**cell.test, **test})
    assert (evaluation_of(cell).family.p_min, cell.data.get("p_min")) == (0.05, None)
    family = dataset_of(cell).family
    assert (family.p_min, family.p_max, family.charge_cost) == (0.2, 0.9, 0.1)


def test_a_cell_may_be_trained_in_two_stages(tmp_path):
    (cell,) = [c for c in cells(experiments()["darkroom"], "smoke") if c.name == "tiny"]
    cell = dataclasses.replace(cell, learn={**cell.learn, "epochs": 4})
    stage = first_stage(cell)
    assert (stage.test["horizon"], stage.learn["texts_per_task"]) == (4, 3)
    assert cell.test["horizon"] == 5 and first_stage(stage) is None
    assert dataset_of(stage).horizon == 4
    kept = {"test", "learn"}
    for name in set(cell.__dataclass_fields__) - kept:
        assert getattr(stage, name) == getattr(cell, name)
    workshop = Workshop(tmp_path, lambda *_: None)
    policy = workshop.policy(cell)
    short, long = workshop.run_folder(stage), workshop.run_folder(cell)
    assert short.is_dir() and Path(policy.name) == long
    header = read_run(long)
    assert header.config["base"] == str(short / "model") and header.horizon == 5
    # It goes on from where the first stage ended, a step away, and not from anew.
    (own, first) = (load_run(folder).model.state_dict() for folder in (long, short))
    fresh = tiny_model(0).state_dict()
    name = "model.layers.0.mlp.up_proj.weight"
    near = (own[name] - first[name]).abs().mean()
    assert 0 < near < (first[name] - fresh[name]).abs().mean() * 3
    assert (own[name] - fresh[name]).abs().mean() > near
    parts = policy.training["first"]
    assert policy.training["tokens"] > parts["tokens"] > 0
    more = dataclasses.replace(
        cell, learn={**cell.learn, "first": {**cell.learn["first"], "horizon": 3}}
    )
    assert workshop.run_folder(more) != long
