"""Experiments' configurations, and the cells and numbers that they come to."""

import dataclasses
import json
from pathlib import Path

import pytest
from experiment_support import SMALL, change_profile, made_of

from sdm.experiments import catalogue
from sdm.experiments.artifacts import Artifacts
from sdm.experiments.catalogue import experiment_named, experiments
from sdm.experiments.cell_configs import (
    dataset_of,
    evaluation_of,
)
from sdm.experiments.grid_cells import cells
from sdm.experiments.learned import ACTING_TEMPERATURE
from sdm.experiments.origin import origin_of, trains
from sdm.experiments.origins.finetune import first_stage
from sdm.experiments.origins.imitate import OWN, _chosen
from sdm.experiments.origins.selftrain import self_training_of
from sdm.experiments.spec import (
    PROFILES,
    UNSPELLED,
    ExperimentError,
    Grid,
    key_of,
)
from sdm.tasks.families.bandit import BanditFamily
from sdm.tasks.registry import FamilyError

NAMES = (
    "mdp-horizon mdp-tasks pomdp-observation apomdp-ambiguity apomdp-ambiguity-near "
    "theory dpt ood "
    "support-quality darkroom ai-feedback bandits ceiling clinical-gap confounding "
    "families forgetting from-logs loss oracle-free "
    "pretraining schema self-training support-count"
).split()


def everywhere():
    return [
        cell
        for experiment in experiments().values()
        for profile in PROFILES
        for cell in cells(experiment, profile)
    ]


def test_every_experiment_has_cells_in_every_profile():
    assert list(experiments()) == NAMES
    for experiment in experiments().values():
        for profile in PROFILES:
            found = cells(experiment, profile)
            assert found, (experiment.name, profile)
            assert len({(cell.key, cell.policy) for cell in found}) == len(found)


@pytest.mark.slow
def test_every_number_of_every_cell_arrives():
    """What a configuration says is what the test, the data and the training have."""
    asked = set()
    for cell in everywhere():
        if cell.study:
            continue
        test = evaluation_of(cell)
        for name, value in cell.test.items():
            if name != "family":
                found = getattr(test, name, getattr(test.family, name, None))
                assert found == value, (cell.experiment, name)
            asked.add(name)
        assert test.family.name == cell.family and test.seed == cell.seed
        if cell.learner == "selftrain":
            check_self_training(cell, test)
        elif trains(cell):
            check_training(cell, test)
    assert {"q", "models", "alpha", "demonstrations", "support", "pays"} <= asked


def check_self_training(cell, test):
    """Iterations share a run, whose options are those of the cell."""
    config = self_training_of(cell)
    for name, value in cell.learn.items():
        if name == "start_family":
            given = config.start_family.config()
            assert given.items() >= value.items(), (cell.experiment, name)
        elif name not in ("iteration", "acting_temperature"):
            found = getattr(config, name, config.training.get(name))
            assert found == value, (cell.experiment, name)
    # All of the tasks is as in the test but what `data` changes.
    own, tested = config.family.config(), test.family.config()
    assert own == tested | {name: x for name, x in cell.data.items() if name in own}
    assert (config.family.name, config.kind) == (test.family.name, test.kind)
    horizon = cell.learn.get("horizon", test.horizon)
    assert (config.horizon, config.support) == (horizon, test.support)
    assert config.seed == cell.seed and test.demonstrations == "random"
    made, work = origin_of(cell), Artifacts(Path("work"))
    folder = made.folder(cell, work)
    for name, x, same in (
        ("iteration", 0, True),
        ("acting_temperature", 0.5, True),
        ("keep", config.keep + 1, False),
    ):
        learn = {**cell.learn, name: x}
        other = dataclasses.replace(cell, learn=learn)
        assert (made.folder(other, work) == folder) == same
    with pytest.raises(ExperimentError, match="iteration must be from 0 to iterations"):
        self_training_of(
            dataclasses.replace(cell, learn={**cell.learn, "iteration": 99})
        )


def check_training(cell, test):
    data, own = dataset_of(cell), set(cell.test) - {*cell.data, "family", "horizon"}
    for name, value in cell.data.items():
        found = getattr(data, name, getattr(data.family, name, None))
        found = data.family.name if name == "family" else found
        assert found == value, (cell.experiment, name)
    # All else of the tasks is as in the test.
    for name in own & set(data.family.config()):
        assert getattr(data.family, name) == cell.test[name]
    assert (data.kind, data.horizon) == (test.kind, test.horizon)
    assert data.rewards_seen == test.rewards_seen
    config = origin_of(cell).config(cell, "data")
    for name, value in cell.learn.items():
        if cell.learner == "imitate" and name in OWN:
            assert getattr(_chosen(cell), name) == value, (cell.experiment, name)
        elif name not in ("first", ACTING_TEMPERATURE):
            assert getattr(config, name) == value, (cell.experiment, name)
    if cell.learner != "cql":
        assert config.support == test.support
    assert config.seed == data.seed == cell.seed
    if cell.learner == "finetune" and cell.data.get("random_trajectories"):
        # Random episodes are made only where something learns from them.
        chosen = {config.demonstrations, config.queries}
        assert chosen & {"all", "random"}, cell.experiment


def test_a_grid_is_the_product_of_its_lists():
    grid = Grid(
        policies={"ce": "ce", "tiny": "small"},
        test={"kind": "mdp", "horizon": [5, 7]},
        data={"tasks": [30, 60]},
        learn={"loss": ["all", "actions"]},
    )
    found = cells(made_of(grid), "laptop")
    learned = [cell for cell in found if cell.policy == "small"]
    assert {(c.test["horizon"], c.data["tasks"], c.learn["loss"]) for c in learned} == {
        (t, n, loss) for t in (5, 7) for n in (30, 60) for loss in ("all", "actions")
    }
    assert len(learned) == 8
    # A policy without training has neither tasks nor losses: two tests, two cells.
    assert [c.test["horizon"] for c in found if c.policy == "ce"] == [5, 7]
    # Those of one test follow each other, so that it is made once.
    assert [c.test["horizon"] for c in found] == [5] * 5 + [7] * 5
    corner = cells(made_of(grid), "smoke")
    assert [(c.policy, c.test["horizon"]) for c in corner] == [("ce", 5), ("small", 5)]
    seeds = dataclasses.replace(grid, policies={"ce": "ce"}, seeds=(3, 4))
    assert [c.seed for c in cells(made_of(seeds), "laptop")] == [3, 4, 3, 4]
    assert [c.seed for c in cells(made_of(seeds), "smoke")] == [3]


def test_sizes_come_from_the_profile_then_the_learner_then_the_grid():
    grid = Grid(policies={"smollm2": "smollm2"}, test={"kind": "mdp", "horizon": 5})
    (cell,) = cells(made_of(grid), "laptop")
    assert cell.test["tasks"] == 50 and cell.data["tasks"] == 900
    own = dataclasses.replace(grid, test={**grid.test, "tasks": 3}, data={"tasks": 8})
    (cell,) = cells(made_of(own), "laptop")
    assert cell.test["tasks"] == 3 and cell.data["tasks"] == 8
    shared = Grid(policies={"tiny": "tiny"}, test=grid.test, texts=25600)
    (cell,) = cells(made_of(shared), "laptop")
    assert cell.learn["texts_per_task"] == 25600 // cell.data["tasks"]
    with pytest.raises(ExperimentError, match="must be a multiple of"):
        cells(made_of(dataclasses.replace(shared, texts=25601)), "laptop")
    large = dataclasses.replace(grid, policies={"llama-2-7b": "llama-2-7b"})
    assert not cells(made_of(large), "laptop"), "a laptop trains no Llama"
    assert cells(made_of(large), "paper")[0].learn["base"].endswith("Llama-2-7b-hf")
    mine = {"tiny": {"learner": "finetune", "base": "smollm2", "tasks": 7}}
    (cell,) = cells(made_of(shared, learners=mine), "laptop")
    assert (cell.learn["base"], cell.learn["tasks"]) == ("smollm2", 7)


def test_kinds_and_families_have_their_own_sizes(monkeypatch):
    learner = {"learner": "finetune", "base": "tiny", "epochs": 1}
    change_profile(
        monkeypatch,
        "laptop",
        test={"tasks": 9, "trajectories": 1, "kind": {"pomdp": {"tasks": 5}}},
        learners={"tiny": {**learner, "family": {"darkroom": {"epochs": 2}}}},
    )
    found = {}
    for family, kind in (("energy", "mdp"), ("energy", "pomdp"), ("darkroom", "mdp")):
        grid = Grid(policies={"tiny": "tiny"}, test={"family": family, "kind": kind})
        (cell,) = cells(made_of(grid), "laptop")
        assert "kind" not in cell.learn and "family" not in cell.learn
        found[family, kind] = (cell.test["tasks"], cell.learn["epochs"])
    assert found == {
        ("energy", "mdp"): (9, 1),
        ("energy", "pomdp"): (5, 1),
        ("darkroom", "mdp"): (9, 2),
    }


def test_defaults_are_the_familys():
    grid = Grid(policies={"dpt": "dpt"}, test={"family": "darkroom", "kind": "mdp"})
    (cell,) = cells(made_of(grid), "laptop")
    plain = dataclasses.replace(
        cell, test={k: x for k, x in cell.test.items() if k != "horizon"}
    )
    data = {k: x for k, x in cell.data.items() if k != "random_trajectories"}
    plain = dataclasses.replace(plain, data=data)
    assert evaluation_of(plain).horizon == 100
    assert dataset_of(plain).random_trajectories == 100
    # A profile's number of tasks is lowered to those that the family has.
    sizes = {"family": "darkroom", "kind": "mdp", "size": 4}
    (cell,) = cells(made_of(dataclasses.replace(grid, test=sizes)), "laptop")
    assert (cell.test["tasks"], cell.data["tasks"]) == (3, 13)
    wrong = made_of(dataclasses.replace(grid, test={**sizes, "tasks": 4}))
    with pytest.raises(ValueError, match="at most 3, the test tasks"):
        evaluation_of(cells(wrong, "laptop")[0])


def test_out_of_distribution_only_the_test_is():
    everything = cells(experiments()["ood"], "laptop")
    (cell, *_) = [c for c in everything if c.learner == "finetune"]
    test, data = evaluation_of(cell), dataset_of(cell)
    assert (test.family.p_min, test.family.p_max) == (0.05, 0.2)
    assert (data.family.p_min, data.family.p_max) == (0.2, 0.9)
    assert test.training_family == data.family
    # Policies without training believe in the training tasks, where the grid says so.
    (ce, *_) = [c for c in everything if (c.policy, c.learner) == ("ce", "untrained")]
    assert evaluation_of(ce).training_family == data.family
    of_kind = {
        kind: [c for c in everything if c.test["kind"] == kind]
        for kind in ("pomdp", "apomdp")
    }
    trained = {dataset_of(c).family.q for c in of_kind["pomdp"] if "base" in c.learn}
    assert trained == {0.6, 0.8, 1.0}
    assert {evaluation_of(c).family.q for c in of_kind["pomdp"]} == {0.7}
    assert [c.data for c in of_kind["pomdp"] if c.policy == "ce"] == [{}] * 3
    sets = {
        (evaluation_of(c).family.models, dataset_of(c).family.models)
        for c in of_kind["apomdp"]
        if c.learner == "finetune"
    }
    assert sets == {(7, 5)}


def test_data_of_another_family_has_none_of_the_tests_options():
    (cell,) = cells(
        made_of(
            dataclasses.replace(
                SMALL,
                policies={"tiny": "tiny"},
                test={"kind": "mdp", "horizon": 5, "p_max": 0.5},
            )
        ),
        "laptop",
    )
    assert dataset_of(cell).family.p_max == 0.5
    other = {**cell.data, "family": "inventory", "capacity": 3}
    data = dataset_of(dataclasses.replace(cell, data=other))
    assert (data.family.name, data.family.capacity) == ("inventory", 3)


@pytest.mark.parametrize(
    ("part", "options", "words"),
    [
        ("test", {"K": 5}, "test: unknown option `K`"),
        ("data", {"trajectory": 15}, "data: unknown option `trajectory`"),
        ("data", {"horizon": 15}, "data: unknown option `horizon`"),
        ("learn", {"epoch": 2}, "unexpected keyword argument 'epoch'"),
    ],
)
def test_an_unknown_option_is_named(part, options, words):
    grid = dataclasses.replace(SMALL, policies={"tiny": "tiny"})
    (cell, _) = cells(made_of(grid), "laptop")
    changed = {**getattr(cell, part), **options}
    wrong = dataclasses.replace(cell, **{part: changed})
    with pytest.raises(ExperimentError, match=words):
        origin_of(wrong).config(wrong, "data")


def test_a_key_holds_what_decides_the_result_and_nothing_else():
    (cell, *_) = cells(experiments()["mdp-horizon"], "laptop")
    turned = dict(reversed(cell.test.items()))
    for same in ({"test": turned}, {"experiment": "other"}, {"policy": "x"}):
        assert dataclasses.replace(cell, **same).key == cell.key
    others = [
        dataclasses.replace(cell, seed=cell.seed + 1),
        dataclasses.replace(cell, learn={"name": "ce"}),
        dataclasses.replace(cell, data={"a": 1}),
        dataclasses.replace(cell, learner="icl"),
        dataclasses.replace(cell, test={**cell.test, "tasks": 99}),
        dataclasses.replace(cell, test={**cell.test, "kind": "pomdp"}),
        dataclasses.replace(cell, test={**cell.test, "family": "darkroom"}),
    ]
    assert len({cell.key, *(other.key for other in others)}) == 8
    assert key_of({"q": 1.0}) == key_of({"q": 1}) != key_of({"q": 1.5})


def test_the_same_test_has_the_same_key_however_it_is_spelled():
    plain = Grid(policies={"ce": "ce"}, test={"kind": "mdp", "horizon": 5})
    (cell,) = cells(made_of(plain), "laptop")
    test, other = evaluation_of(cell), {"support": 4, "demonstrations": "random"}
    assert set(UNSPELLED) == {"family", "support", "demonstrations"}
    assert test.family.name == UNSPELLED["family"]
    for name, value in UNSPELLED.items():
        assert name == "family" or getattr(test, name) == value
        spelled = dataclasses.replace(plain, test={**plain.test, name: value})
        (found,) = cells(made_of(spelled), "laptop")
        assert found.key == cell.key and found.test[name] == value
        if name in other:
            spelled = dataclasses.replace(plain, test={**plain.test, name: other[name]})
            assert cells(made_of(spelled), "laptop")[0].key != cell.key


def test_labels_neither_join_nor_split_policies():
    grid = Grid(policies={"ce": "x", "bc": "x"}, test={"kind": "mdp"})
    one, other = cells(made_of(grid), "laptop")
    assert one.policy == other.policy == "x" and one.key != other.key
    again = dataclasses.replace(grid, policies={"ce": "y"})
    *_, named = cells(made_of(grid, again), "laptop")
    assert len(cells(made_of(grid, again), "laptop")) == 3
    assert (named.policy, named.key) == ("y", one.key)
    assert len(cells(made_of(grid, grid), "laptop")) == 2


def test_unknown_names_are_reported_with_those_that_exist(tmp_path):
    with pytest.raises(ExperimentError, match="unknown experiment `mdp`") as caught:
        experiment_named("mdp")
    assert "mdp-horizon" in caught.value.hint
    with pytest.raises(ExperimentError, match="unknown profile `huge`"):
        cells(experiments()["loss"], "huge")
    grid = dataclasses.replace(SMALL, policies={"cee": "cee"})
    with pytest.raises(ExperimentError, match="unknown policy `cee`") as caught:
        cells(made_of(grid), "laptop")
    assert "mean-plan" in caught.value.hint and "smollm2" in caught.value.hint
    (cell, *_) = cells(made_of(SMALL), "laptop")
    with pytest.raises(ExperimentError, match=r"unknown value `tests\.horizon`"):
        cell.value("tests.horizon")
    for name, words in (("loss.toml", "exist"), (str(tmp_path / "x.toml"), "exist")):
        with pytest.raises(ExperimentError, match=words):
            experiment_named(name)


CONFIG = """
title = "Mine"
question = "Does a family of my own work?"
x = "condition"
x_title = ""

[learners.small]
learner = "finetune"
base = "tiny"

[[cells]]
test = { family = "family_of_mine:Mine", kind = "pomdp", levels = [4, 6] }
policies = ["ce", "small"]
"""
FAMILY = """
from dataclasses import dataclass
from sdm.tasks.families.energy import EnergyFamily

@dataclass(frozen=True)
class Mine(EnergyFamily):
    name = "mine"
    levels: int = 3
"""


def test_a_users_configuration_and_family(tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text(CONFIG)
    (tmp_path / "family_of_mine.py").write_text(FAMILY)
    monkeypatch.chdir(tmp_path)
    experiment = experiment_named("mine.toml")
    assert (experiment.name, experiment.command) == ("mine", "mine.toml")
    every = cells(experiment, "laptop")
    assert [c.seed for c in every].count(0) * 3 == len(every) == 12
    found = [c for c in every if c.seed == 0]
    assert [(c.policy, c.condition) for c in found] == [
        (policy, f"levels = {n}") for n in (4, 6) for policy in ("ce", "small")
    ]
    assert [evaluation_of(c).family.levels for c in found] == [4, 4, 6, 6]
    assert dataset_of(found[-1]).family.levels == 6
    assert found[0].tasks == "family_of_mine:Mine pomdp"
    (tmp_path / "loss.toml").write_text(CONFIG)
    with pytest.raises(ExperimentError, match="package has an experiment `loss`"):
        experiment_named("loss.toml")
    (tmp_path / "mine.toml").write_text(CONFIG.replace("family_of_mine", "nowhere"))
    with pytest.raises(FamilyError, match="no module `nowhere`"):
        cells(experiment_named("mine.toml"), "laptop")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[[cells]]", "[[cell]]", "cells is missing"),
        ('kind = "pomdp",', "", "`kind` in `test` of a table `cells` is missing"),
        (
            "policies =",
            "policy =",
            "unknown key `policy` in a table `cells`; did you mean",
        ),
        (
            "[learners",
            "[learner",
            "unknown key `learner` at the top; did you mean `lea",
        ),
        ("question =", "# question =", "`question` at the top is missing"),
        ("title =", "title", "Expected '=' after a key"),
        ("title =", "goal = 1.0\ntitle =", "a goal needs one panel and a logarithmic"),
        ("[[cells]]", "[[claims]]\n[[cells]]", "`text` in a table `claims` is missing"),
        (
            "[[cells]]",
            '[claims]\ntext = "a"\n[[cells]]',
            "claims: must be tables",
        ),
        (
            "[[cells]]",
            '[[claims]]\ntext = ""\nless = "tiny"\nthan = 1.0\n[[cells]]',
            "claim: `text` must be a text, found ''",
        ),
        (
            "[[cells]]",
            '[[claims]]\ntext = "a"\nless = "tony"\nthan = 1.0\n[[cells]]',
            "claim `a`: no policy `tony`",
        ),
        (
            "[[cells]]",
            '[[claims]]\ntext = "a"\nless = "tiny"\nthan = nan\n[[cells]]',
            "than = nan: must be a finite",
        ),
        (
            "[[cells]]",
            '[[claims]]\ntext = "a"\nless = "tiny"\nthan = "tiny"\n[[cells]]',
            "compares `tiny` with itself",
        ),
        (
            "[[cells]]",
            '[[claims]]\ntext = "a"\nless = "tiny"\nthan = 1.0\nacross = "test.q"\n'
            "[[cells]]",
            "`a`: across = 'test.q': has no effect with than = 1.0, a number",
        ),
        (
            "[[cells]]",
            '[[claims]]\ntext = "a"\nless = "tiny"\nthan = "ce"\nacross = "horizon"\n'
            "[[cells]]",
            r"`a`: across = 'horizon': must be a value of the tests \(test.family",
        ),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path, old, new, words):
    file = tmp_path / "mine.toml"
    file.write_text(CONFIG.replace(old, new, 1))
    with pytest.raises(ExperimentError, match=words) as caught:
        experiment_named(str(file))
    assert str(file) in str(caught.value)


def test_a_small_profile_makes_nothing_larger():
    """What it caps stays below that where it was."""
    most = catalogue.profiles()["smoke"]["most"]
    found = [c for c in cells(experiments()["loss"], "smoke") if "base" in c.learn]
    texts = {c.policy: c.learn["texts_per_task"] for c in found}
    assert texts["tiny"] == most["learn"]["texts_per_task"] == 2
    assert texts["smollm2"] == 1


def test_the_first_stage_has_a_horizon_of_its_own():
    (cell,) = [
        c for c in cells(experiments()["darkroom"], "smoke") if "base" in c.learn
    ]
    stage = first_stage(cell)
    assert (stage.test["horizon"], stage.learn["texts_per_task"]) == (4, 3)
    assert cell.test["horizon"] == 5 and first_stage(stage) is None
    assert dataset_of(stage).horizon == 4
    for name in set(cell.__dataclass_fields__) - {"test", "learn"}:
        assert getattr(stage, name) == getattr(cell, name)
    json.dumps(stage.spec)


def test_self_training_has_no_dataset_but_the_family_of_one():
    found = cells(experiments()["bandits"], "laptop")
    data = [cell.data for cell in found if cell.learner == "selftrain"]
    hard, law = {"separation": 0.0}, {"law": "gaussian"}
    assert [each for each in data if each] == [*[hard] * 54, *[law] * 24]
    # Runs are shared by tests: with uniform means by two scores, of which one is also
    # tested on the hard instance, on the easy instance, and with Gaussian rewards, also
    # tested with Gamma rewards, for each of three seeds.
    runs = {
        origin_of(cell).folder(cell, Artifacts(Path("work")))
        for cell in found
        if cell.learner == "selftrain"
    }
    assert len(runs) == 12
    first = {self_training_of(cell).start_family for cell in found if cell.data == hard}
    assert first == {BanditFamily(separation=0.0, mean_concentration=0.1)}


def test_a_self_trained_model_acts_at_the_temperature_of_its_cell(tmp_path):
    found = cells(experiments()["bandits"], "laptop")
    row = {"seconds": {"play": 1.0, "train": 2.0, "test": 4.0}, "selection": {}}
    seen = set()
    names = ("selftrain", "selftrain-warm")
    for cell in (x for x in found if x.policy in names and x.seed == 0):
        out = origin_of(cell).folder(cell, Artifacts(tmp_path))
        out.mkdir(exist_ok=True)
        report = {"iterations": [row] * 30, "environment": {}}
        (out / "results.json").write_text(json.dumps(report))
        ready = origin_of(cell).policy(cell, Artifacts(tmp_path))
        assert ready.training["seconds"] == 3 * (1 + cell.learn["iteration"])
        assert ready.options.temperature == cell.learn.get(ACTING_TEMPERATURE, 1.0)
        seen.add(ready.options.temperature)
    assert seen == {1.0, 1.3, 1.4, 1.45, 1.5, 1.6, 1.7}
