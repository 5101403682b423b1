"""Tests unlike a policy's training are pointed out."""

import dataclasses
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner
from untrained_run import untrained_run

from sdm.cli import app
from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.data.request import family_header
from sdm.llm.acting import language_model_policy
from sdm.llm.schema import Contents, make_schema, unlike_stages
from sdm.llm.schemas.compact import CompactSchema
from sdm.policies.learned import Learned
from sdm.policies.policy_runs import LearnedRun, PolicyRecord
from sdm.policies.registry import prepare
from sdm.policies.spec import ActingOptions
from sdm.policies.trained_on import differences
from sdm.solvers_jax import DarkroomFamily, EnergyFamily
from sdm.tasks import load_family
from sdm.tasks.families.bandit import BanditFamily
from sdm.tasks.family import Component

PLAIN = EnergyFamily()
LOW = EnergyFamily(p_min=0.05, p_max=0.2)


def tasks_of(family=PLAIN, kind="mdp", horizon=10):
    return {
        **family_header(family, kind),
        "horizon": horizon,
        "observes_reward": kind in family.defaults.observes_reward,
    }


def found(trained, family=PLAIN, kind="mdp", horizon=10, support=None, **options):
    config = EvaluationConfig(family, horizon, 2, kind=kind, **options)
    before, now = differences(trained, config, support=support)
    assert before.keys() == now.keys()
    return {name: (before[name], now[name]) for name in before}


def test_options_that_a_kind_has_are_compared():
    other = EnergyFamily(q=0.6, models=2, radius=0.3, alpha=1.0, concentration=2.0)
    assert found(tasks_of(), other) == {}
    assert found(tasks_of(kind="pomdp"), other, "pomdp") == {"q": (0.8, 0.6)}
    assert found(tasks_of(kind="apomdp"), other, "apomdp") == {
        "q": (0.8, 0.6),
        "models": (5, 2),
        "radius": (1.0, 0.3),
        "alpha": (0.5, 1.0),
        "concentration": (1.0, 2.0),
    }
    assert found(tasks_of(), LOW) == {"p_min": (0.2, 0.05), "p_max": (0.9, 0.2)}
    room = DarkroomFamily(size=3)
    moved = dataclasses.replace(room, split=1)
    assert found(tasks_of(room), moved) == {"split": (0, 1)}
    machine = load_family("maintenance")
    blurred = dataclasses.replace(machine, accuracy=0.9)
    assert found(tasks_of(machine), blurred) == {}
    assert "accuracy" in found(tasks_of(machine, "pomdp"), blurred, "pomdp")


def test_kind_horizon_demonstrations_and_family_are_compared():
    assert found(tasks_of(horizon=3), support=7) == {
        "horizon": (3, 10),
        "support": (7, 2),
    }
    # A kind without q has none to compare, and agents see their rewards in MDPs only.
    hidden = found(tasks_of(EnergyFamily(q=0.6)), kind="pomdp")
    assert hidden == {"kind": ("mdp", "pomdp"), "observes_reward": (True, False)}
    other = found(tasks_of(), DarkroomFamily(size=3))
    assert other == {"family": ("energy", "darkroom")}
    without = tasks_of()
    del without["family_config"]["p_max"]  # an option that was added since
    assert found(without, LOW).keys() == {"p_min"}


def test_a_test_that_is_declared_out_of_distribution_is_no_surprise():
    assert found(tasks_of(), LOW, training_family=PLAIN) == {}
    wide = EnergyFamily(p_min=0.05, p_max=0.9)
    assert found(tasks_of(wide), LOW, training_family=PLAIN) == {"p_max": (0.9, 0.2)}


@pytest.fixture(scope="module")
def hidden():
    return make_benchmark(EvaluationConfig(EnergyFamily(q=0.6), 10, 2, 2, kind="pomdp"))


@pytest.mark.slow
def test_a_run_is_compared_with_its_test_once(hidden, tmp_path):
    folder = untrained_run(tmp_path / "run", PLAIN, "pomdp", 10)
    said = f"`{folder}`: trained with q = 0.8; evaluated with q = 0.6"
    with pytest.warns(UserWarning) as warned:
        language_model_policy(folder, hidden)
    assert [str(each.message) for each in warned] == [said]
    same = untrained_run(tmp_path / "same", EnergyFamily(q=0.6), "pomdp", 10)
    language_model_policy(same, hidden)  # without a warning


COINS = BanditFamily(mean_min=0.1)
NUMBERS = dataclasses.replace(COINS, law="gamma")


@pytest.mark.parametrize(
    ("one", "other", "name", "texts"),
    [
        (COINS, NUMBERS, "compact", ("0a", "0a0,")),
        (NUMBERS, COINS, "compact", ("0a0,", "0a")),
        (COINS, COINS, "compact", None),
        (NUMBERS, dataclasses.replace(COINS, law="gaussian"), "compact", None),
        (COINS, NUMBERS, "paper", None),
        (PLAIN, PLAIN, "compact", None),
    ],
)
def test_schemas_that_write_a_stage_differently(one, other, name, texts):
    written = (
        make_schema(name, each.spaces, "mdp", rewards=True) for each in (one, other)
    )
    assert unlike_stages(*written) == texts


def test_schemas_of_other_levels_may_write_a_stage_alike():
    pairs = ((0.0, 1.0), (2.0, 3.0)), ((0.0, 1.0), (2.0, 3.0, 4.0))
    found = []
    for pair in pairs:
        one, other = (
            CompactSchema(Contents((Component("arm", 1),), ("a", "b"), True, levels))
            for levels in pair
        )
        found.append(unlike_stages(one, other))
    assert found == [None, ("0a", "0a_a")]


@pytest.mark.slow
def test_a_run_that_reads_other_marks_of_rewards_is_pointed_out(tmp_path):
    folder = untrained_run(tmp_path / "run", COINS, "mdp", 5)
    test = make_benchmark(EvaluationConfig(NUMBERS, 5, 2, 2, kind="mdp", support=0))
    with pytest.warns(UserWarning, match="trained with law|texts write") as warned:
        language_model_policy(folder, test)
    law, texts = (str(each.message) for each in warned)
    assert "trained with law = bernoulli" in law
    assert texts == (
        f"`{folder}`: its training texts write a stage as `0a`, those of the test as "
        "`0a0,`, which it has not learned to read"
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("default:.*trained with")
def test_the_command_warns_once_for_each_run(tmp_path):
    names = [untrained_run(tmp_path / name, PLAIN, "mdp", 2) for name in ("one", "two")]
    ask = ["eval", "--horizon", "2", "--tasks", "3", "--trajectories", "2"]
    policies = [part for name in names for part in ("--policy", name)]
    played = CliRunner().invoke(app, [*ask, *policies, "--p-max", "0.5", "--json"])
    assert played.exit_code == 0, played.output
    assert played.stderr.count("warning") == 2
    for name in names:
        said = f"`{name}`: trained with p_max = 0.9; evaluated with p_max = 0.5\n"
        assert said in played.stderr


@pytest.mark.slow
def test_other_learned_policies_are_compared_too(hidden, monkeypatch):
    record = PolicyRecord(tasks_of(kind="pomdp"), {}, {}, {})
    run = LearnedRun("dpt", {}, record)
    learner = SimpleNamespace(
        prepare=lambda run, bed: prepare("random", bed),
        demonstrations=lambda run, hidden: None,
    )
    monkeypatch.setattr("sdm.policies.learned.load_policy_run", lambda *_: run)
    monkeypatch.setattr("sdm.policies.learned.learners", lambda: {"dpt": learner})
    with pytest.warns(UserWarning, match=r"`dpt:x`: trained with q = 0.8; .* q = 0.6"):
        Learned("dpt:x").build(hidden, ActingOptions())
