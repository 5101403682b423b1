"""Running experiments: rows, resuming, failures, and what cells share."""

import dataclasses
import json
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
from experiment_support import SMALL, Quiet, change_profile, made_of, numbers
from filelock import FileLock

from sdm.experiments import origin
from sdm.experiments.artifacts import Artifacts
from sdm.experiments.catalogue import experiments
from sdm.experiments.cell_configs import dataset_of
from sdm.experiments.grid_cells import cells
from sdm.experiments.origin import (
    ReadyPolicy,
    is_trained,
    origin_of,
)
from sdm.experiments.origins.finetune import Finetuned
from sdm.experiments.rows import read_rows, rows_file, write_rows
from sdm.experiments.runner import run_experiment
from sdm.experiments.spec import ExperimentError, Grid
from sdm.policies.spec import ActingOptions
from sdm.storage.provenance import provenance

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of transformers, as it runs
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
LEARNED = Grid(
    policies={"random": "random", "tiny": "tiny"}, test={"kind": "mdp", "horizon": 4}
)


@pytest.fixture
def small(monkeypatch):
    """An experiment of four cells without training."""
    change_profile(monkeypatch, "smoke")
    return made_of(SMALL)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Outcome, watcher and folder of a run that trains a policy."""
    folder, watcher = tmp_path_factory.mktemp("learned"), Quiet()
    outcome = run_experiment(made_of(LEARNED), "smoke", folder, watcher)
    assert not outcome.failed
    return outcome, watcher, folder


def test_a_run_leaves_a_row_a_cell(learned):
    outcome, watcher, folder = learned
    wanted = cells(made_of(LEARNED), "smoke")
    rows = read_rows(rows_file(folder, "made", "smoke"))
    assert rows == outcome.rows and outcome.new == watcher.cells == 2
    assert [row["key"] for row in rows] == [cell.key for cell in wanted]
    for row, cell in zip(rows, wanted, strict=True):
        assert {name: row[name] for name in cell.spec} == cell.spec
        assert row["version"] == 2 and row["policy"] == cell.policy
        assert row["seconds"] > 0 and row["device"] and row["versions"]["jax"]
        assert re.fullmatch(r"[0-9a-f]{12}\+?", row["commit"])
        json.dumps(row, allow_nan=False)
    assert rows[0]["training"] is None
    training = rows[1]["training"]
    assert training["config"]["base"] == "tiny"
    assert training["commit"] == rows[1]["commit"]
    # Of the training and of acting.
    acting = rows[1]["seconds"] - training["seconds"]
    assert acting == pytest.approx(rows[1]["result"]["seconds"]) and acting > 0
    # 11 tasks, two texts of three episodes of 10 tokens and two ends.
    assert training["tokens"] == 22 * 26
    assert [left for _, left in watcher.rows][-1] == 0
    # Datasets, runs, and nothing of what was played.
    folders = [p for p in (folder / "work").iterdir() if p.is_dir()]
    kept = sorted(path.name.split("-")[0] for path in folders)
    assert kept == ["data", "finetune"]


def test_a_run_again_keeps_trained_policies(learned, tmp_path, monkeypatch):
    """Also where the results are named otherwise, from elsewhere."""
    outcome, _, folder = learned
    shutil.copytree(folder, tmp_path / "results")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    watcher = Quiet()
    again = run_experiment(
        made_of(LEARNED), "smoke", Path("../results"), watcher, overwrite=True
    )
    assert again.new == 2 and numbers(again.rows) == numbers(outcome.rows)
    assert {name for _, name, *_ in watcher.steps} == {"beginning", "acting"}


@pytest.mark.slow
def test_rows_are_neither_made_twice_nor_lost(small, tmp_path):
    file = rows_file(tmp_path, "made", "smoke")
    whole = run_experiment(small, "smoke", tmp_path, Quiet()).rows
    with pytest.raises(ExperimentError, match="already has 4 of these 4 rows"):
        run_experiment(small, "smoke", tmp_path, Quiet())
    watcher = Quiet()
    complete = run_experiment(small, "smoke", tmp_path, watcher, resume=True)
    assert complete.rows == whole and complete.new == watcher.cells == 0
    # A row of a cell that there is no more is kept, and not shown.
    write_rows(file, [whole[0], whole[-1], {**whole[1], "key": "of old"}])
    again = Quiet()
    outcome = run_experiment(small, "smoke", tmp_path, again, resume=True)
    assert outcome.new == 2 and numbers(outcome.rows) == numbers(whole)
    assert {key for key, *_ in again.steps} == {row["key"] for row in whole[1:-1]}
    keys = [row["key"] for row in whole]
    assert [row["key"] for row in read_rows(file)] == [*keys, "of old"]
    outcome = run_experiment(small, "smoke", tmp_path, Quiet(), overwrite=True)
    assert outcome.new == 4 and numbers(outcome.rows) == numbers(whole)


def test_one_result_serves_two_labels_and_two_results_share_one(tmp_path):
    test = {"kind": "mdp", "horizon": 4}
    grid = Grid(policies={"random": "x", "mean-plan": "x"}, test=test)
    other = Grid(policies={"random": "y"}, test=test)
    watcher = Quiet()
    outcome = run_experiment(made_of(grid, other), "smoke", tmp_path, watcher)
    assert outcome.new == watcher.cells == 2 and not outcome.failed
    gaps = {row["learn"]["name"]: row["result"]["gap_percent"] for row in outcome.rows}
    assert gaps["random"] > gaps["mean-plan"]


def test_the_row_of_another_experiment_is_taken_from_there(small, tmp_path):
    first = run_experiment(small, "smoke", tmp_path, Quiet()).rows
    other, watcher = dataclasses.replace(small, name="other"), Quiet()
    outcome = run_experiment(other, "smoke", tmp_path, watcher)
    assert outcome.new == 4 and {name for _, name, *_ in watcher.steps} == {"beginning"}
    assert outcome.rows == [{**row, "experiment": "other"} for row in first]
    again = run_experiment(other, "smoke", tmp_path, Quiet(), overwrite=True).rows
    times = [[row["result"]["seconds"] for row in rows] for rows in (first, again)]
    assert not set(times[0]) & set(times[1]), "played again"


def test_a_cell_locked_by_another_process_comes_last(small, tmp_path):
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
    with pytest.raises(ExperimentError, match="is the output of another command"):
        run_experiment(small, "smoke", tmp_path, Quiet())


def test_one_seed_may_be_run_or_overwritten_alone(tmp_path, monkeypatch):
    change_profile(monkeypatch, "smoke", seeds=[0, 1])
    plain = dataclasses.replace(SMALL, policies={"random": "random"})
    experiment = dataclasses.replace(made_of(plain), grids=(plain,))
    first = run_experiment(experiment, "smoke", tmp_path, Quiet(), seed=1)
    assert [row["seed"] for row in first.rows] == [1, 1]
    both = run_experiment(experiment, "smoke", tmp_path, Quiet(), resume=True)
    assert both.new == 2 and sorted(row["seed"] for row in both.rows) == [0, 0, 1, 1]
    again = run_experiment(
        experiment, "smoke", tmp_path, Quiet(), seed=1, overwrite=True
    )
    assert again.new == 2 and numbers(again.rows) == numbers(both.rows)
    with pytest.raises(ExperimentError, match="no cells of seed 7"):
        run_experiment(experiment, "smoke", tmp_path, Quiet(), seed=7, resume=True)


def test_one_policy_may_be_run_alone(tmp_path):
    experiment = made_of(SMALL)
    first = run_experiment(experiment, "smoke", tmp_path, Quiet(), policies=["ce"])
    assert {row["policy"] for row in first.rows} == {"ce"}
    rest = run_experiment(experiment, "smoke", tmp_path, Quiet(), resume=True)
    assert rest.new == len(first.rows) and len(rest.rows) == 2 * rest.new
    with pytest.raises(ExperimentError, match="no policy `frog`") as caught:
        run_experiment(experiment, "smoke", tmp_path, Quiet(), policies=["frog"])
    assert caught.value.hint == "its policies are random, ce"


def test_a_cell_that_fails_is_skipped_and_tried_again(tmp_path):
    learners = {"nothing": {"learner": "finetune", "base": "no-such/base"}}
    policies = {"nothing": "nothing", "observation-as-state": "b", "random": "random"}
    grid = Grid(policies=policies, test={"kind": "mdp", "horizon": 4})
    experiment, watcher = made_of(grid, learners=learners), Quiet()
    outcome = run_experiment(experiment, "smoke", tmp_path, watcher)
    assert [row["policy"] for row in outcome.rows] == ["random"]
    (cell, why), (_, unfit) = outcome.failed
    assert cell.policy == "nothing" and "no-such/base" in why
    assert "does not fit mdp tasks" in unfit and watcher.failures == [why, unfit]
    outcome = run_experiment(experiment, "smoke", tmp_path, Quiet(), resume=True)
    assert outcome.new == 0 and len(outcome.failed) == 2, "tried again"


def test_a_theory_that_fails_is_reported_like_any_other(tmp_path, monkeypatch):
    def fail(grid):
        raise ValueError("no")

    monkeypatch.setattr("sdm.theory.proposition_1.validate", fail)
    outcome = run_experiment(experiments()["theory"], "laptop", tmp_path, Quiet())
    ((cell, why),) = outcome.failed
    assert why == "no" and cell.condition == "κ, M and N"


class Chosen:
    """Policies that are chosen by name, once; the folder says which."""

    name = "chosen"
    trains = True
    language_model = False

    def options(self, learn, data, grid):  # noqa: D102
        return {"of": learn["of"], "policies": len(grid.policies)}, {}

    def folder(self, cell, artifacts):  # noqa: D102
        return artifacts.folder / f"chosen-{cell.key}"

    def policy(self, cell, artifacts):  # noqa: D102
        def write(**how):
            folder.mkdir()
            (folder / "name").write_text(cell.learn["of"][-1])
            artifacts.training(1, 2)

        folder = self.folder(cell, artifacts)
        artifacts.make(folder, write)
        return ReadyPolicy((folder / "name").read_text(), {"seconds": 7.0})


def test_an_origin_of_another_package_provides_policies(tmp_path, monkeypatch):
    known = origin.origins()
    monkeypatch.setattr(origin, "origins", lambda: {**known, "chosen": Chosen()})
    grid = dataclasses.replace(LEARNED, policies={"chosen": "last", "ce": "ce"})
    learners = {"chosen": {"learner": "chosen", "of": ["oracle", "ce"]}}
    experiment = dataclasses.replace(made_of(grid), learners=learners)
    watcher = Quiet()
    outcome = run_experiment(experiment, "smoke", tmp_path, watcher)
    row, ce = outcome.rows
    assert (row["policy"], row["learner"], row["data"]) == ("last", "chosen", {})
    assert row["learn"] == {"of": ["oracle", "ce"], "policies": 2}
    assert row["training"] == {"seconds": 7.0} and ce["training"] is None
    assert row["result"]["gap_percent"] == ce["result"]["gap_percent"]
    assert ("training", 0.5) in {(name, share) for _, name, share, _ in watcher.steps}
    assert len(list((tmp_path / "work").glob("chosen-*/name"))) == 1


def test_an_unknown_learner_is_refused_with_those_there_are():
    learners = {"tiny": {"learner": "psychic"}}
    experiment = dataclasses.replace(made_of(LEARNED), learners=learners)
    with pytest.raises(ExperimentError, match="unknown learner `psychic`") as caught:
        cells(experiment, "smoke")
    assert "finetune" in caught.value.hint and "dpt" in caught.value.hint


def tiny_cell():
    return cells(made_of(LEARNED), "smoke")[1]


def test_what_decides_a_training_decides_its_folder(tmp_path, monkeypatch):
    """Another default of the recipe, which no configuration names, is another run."""
    from sdm.llm import recipes

    cell, artifacts = tiny_cell(), Artifacts(tmp_path / "work")
    run_folder = partial(origin_of(cell).folder, artifacts=artifacts)
    before = run_folder(cell)
    assert run_folder(cell) == before
    assert run_folder(dataclasses.replace(cell, seed=1)) != before
    more = {**cell.data, "trajectories": 9}
    assert run_folder(dataclasses.replace(cell, data=more)) != before
    staged = {**cell.learn, "first": {"horizon": 3}}
    two = run_folder(dataclasses.replace(cell, learn=staged))
    staged = {**cell.learn, "first": {"horizon": 2}}
    other = run_folder(dataclasses.replace(cell, learn=staged))
    assert len({before, two, other}) == 3
    changed = {**recipes.RECIPES["tiny"], "learning_rate": 1e-5}
    monkeypatch.setitem(recipes.RECIPES, "tiny", changed)
    assert run_folder(cell) != before
    assert not is_trained(cell, artifacts)
    assert not (tmp_path / "work").exists(), "looking makes no folder"


@pytest.mark.slow
def test_a_training_begun_by_another_version_is_begun_again(tmp_path):
    cell, artifacts = tiny_cell(), Artifacts(tmp_path / "work")
    run = origin_of(cell).folder(cell, artifacts)
    for folder in (run, artifacts.dataset(dataset_of(cell))):
        if folder.is_dir():
            shutil.rmtree(folder)
        partial = folder.with_name(folder.name + ".partial")
        partial.mkdir(parents=True)
        (partial / "plan.json").write_text('{"made_by": "sdm", "old": 1}')
        (partial / "shard-00000.parquet").write_text("of another version")
    training = origin_of(cell).policy(cell, artifacts).training
    assert training["commit"] == provenance(by_torch=True)["commit"]
    assert is_trained(cell, artifacts)


def test_episodes_that_another_training_played_are_not_reused(
    learned, tmp_path, monkeypatch
):
    """Only those of this very training: its seconds are part of the name."""
    cell, kept = tiny_cell(), []
    experiment = made_of(dataclasses.replace(LEARNED, policies={"tiny": "tiny"}))

    def stop(*_, **options):
        raise RuntimeError(options["kept"].name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdm.evaluation.evaluate.evaluate", stop)
        patch.setattr("sdm.evaluation.evaluate.check_policy", lambda *_: None)
        for seconds in (1.0, 2.0):
            policy = ReadyPolicy("some-run", {"seconds": seconds})
            patch.setattr(Finetuned, "policy", lambda *_, p=policy: p)
            ((_, why),) = run_experiment(
                experiment, "smoke", tmp_path, Quiet(), resume=True
            ).failed
            kept.append(why)
    assert len(set(kept)) == 2
    assert all(name.startswith(f"played-{cell.key}") for name in kept)
    shutil.copytree(learned[2] / "work", tmp_path / "work", dirs_exist_ok=True)
    old = tmp_path / "work" / kept[0]
    old.mkdir(parents=True)
    (old / "0-0.npz").write_text("not episodes")
    outcome = run_experiment(experiment, "smoke", tmp_path, Quiet())
    assert not outcome.failed and not old.exists()


def test_a_prompted_models_options_arrive(tmp_path):
    every = cells(experiments()["schema"], "laptop")
    found = [c for c in every if (c.learner, c.seed) == ("icl", 0)]
    made = [origin_of(cell).policy(cell, Artifacts(tmp_path)) for cell in found]
    assert [policy.options for policy in made] == [
        ActingOptions(schema="compact"),
        ActingOptions(schema="paper"),
    ]
    assert {policy.name for policy in made} == {"icl:smollm2"}
