"""Conservative Q-learning through d3rlpy: what it is given, and what is kept of it."""

import json

import numpy as np
import pytest
import torch

from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.data.generation import write_oracle_dataset
from sdm.data.request import OracleConfig
from sdm.evaluation.evaluate import evaluate, evaluate_untrained
from sdm.policies.cql_config import CQLConfig
from sdm.policies.cql_training import TARGET_INTERVAL
from sdm.solvers_jax import EnergyFamily

pytestmark = pytest.mark.filterwarnings("ignore")  # of d3rlpy and what it still needs


def test_the_network_sees_the_symbol_and_the_share_of_stages_gone():
    from sdm.policies.cql_training import features

    given = features(np.array([[0, 2]]), np.array([[0, 3]]), 3, 4)
    np.testing.assert_array_equal(given, [[[1, 0, 0, 0], [0, 0, 1, 0.75]]])


@pytest.mark.slow
def test_it_learns_from_the_pooled_episodes(tmp_path):
    from sdm.policies.cql_training import train_cql

    # One task only, so that there is one best policy to be learned.
    family = EnergyFamily(p_min=0.9, p_max=0.9, max_energy=2)
    made = OracleConfig(family, 4, 2, 20, random_trajectories=60)
    write_oracle_dataset(made, tmp_path / "data")
    steps = []
    states = np.random.get_state()[1][0], torch.get_rng_state()  # noqa: NPY002
    run = train_cql(
        CQLConfig(str(tmp_path / "data"), steps=600, learning_rate=3e-3),
        tmp_path / "run",
        progress=lambda step, total: steps.append((step, total)),
    )
    assert np.random.get_state()[1][0] == states[0]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[1])
    assert steps[-1] == (600, 600) and run.arrays["q"].shape == (4, 3, 3)
    bed = make_benchmark(EvaluationConfig(family, 4, 4, 5))
    (result,) = evaluate([f"cql:{tmp_path / 'run'}"], bed)
    random_gap = evaluate_untrained("random", bed).exact_gap.mean
    assert result.exact_gap.mean < 0.2 * random_gap
    about = json.loads((tmp_path / "run/policy.json").read_text())
    assert about["kind"] == "cql" and about["config"]["steps"] == 600
    short = CQLConfig(str(tmp_path / "data"), steps=20)
    twice = [train_cql(short, tmp_path / name).arrays["q"] for name in ("a", "b")]
    np.testing.assert_array_equal(*twice)


@pytest.mark.slow
def test_it_takes_as_many_steps_as_it_says_in_hidden_tasks_too(tmp_path):
    from sdm.policies.cql_training import train_cql

    family = EnergyFamily(max_energy=2, discount=0.5)
    write_oracle_dataset(OracleConfig(family, 3, 2, 4, kind="pomdp"), tmp_path / "d")
    steps = []
    train_cql(
        CQLConfig(str(tmp_path / "d"), steps=1003),
        tmp_path / "run",
        progress=lambda step, total: steps.append(step),
    )
    assert len(steps) == 1003 and steps[-1] == 1003
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 1003
    about = json.loads((tmp_path / "run/policy.json").read_text())
    made = about["environment"]
    assert made["device"] and {"d3rlpy", "torch"} <= made["versions"].keys()
    bed = make_benchmark(EvaluationConfig(family, 3, 2, 2, kind="pomdp"))
    (result,) = evaluate([f"cql:{tmp_path / 'run'}"], bed)
    assert result.exact_return_mean is not None


@pytest.mark.slow
def test_d3rlpy_is_told_what_the_configuration_says(tmp_path, monkeypatch):
    import d3rlpy.algos
    import d3rlpy.dataset

    from sdm.policies.cql_training import train_cql

    family = EnergyFamily(max_energy=2, discount=0.5)
    made = OracleConfig(family, 3, 2, 4, random_trajectories=5)
    write_oracle_dataset(made, tmp_path / "d")
    learner, episodes = d3rlpy.algos.DiscreteCQLConfig, d3rlpy.dataset.MDPDataset
    settings = {}

    def recorded(**options):
        settings.update(options)
        return learner(**options)

    def counted(seen, *rest, **options):
        settings["transitions"] = len(seen)
        return episodes(seen, *rest, **options)

    monkeypatch.setattr(d3rlpy.algos, "DiscreteCQLConfig", recorded)
    monkeypatch.setattr(d3rlpy.dataset, "MDPDataset", counted)
    options = {"steps": 3, "batch_size": 7, "learning_rate": 2e-3, "conservative": 3.0}
    values = [
        train_cql(
            CQLConfig(str(tmp_path / "d"), **options, seed=seed), tmp_path / f"{seed}"
        ).arrays["q"]
        for seed in (0, 1)
    ]
    assert settings["transitions"] == 2 * (4 + 5) * 3, "the random episodes count too"
    assert (settings["gamma"], settings["alpha"]) == (0.5, 3.0)
    assert (settings["batch_size"], settings["learning_rate"]) == (7, 2e-3)
    assert settings["target_update_interval"] == TARGET_INTERVAL
    assert not np.array_equal(*values)


def test_values_that_are_not_finite_are_not_kept(tmp_path, monkeypatch):
    from d3rlpy.algos import DiscreteCQL

    from sdm.policies.cql_training import train_cql

    write_oracle_dataset(OracleConfig(EnergyFamily(), 2, 2, 2), tmp_path / "d")
    monkeypatch.setattr(
        DiscreteCQL, "predict_value", lambda self, x, a: np.full(len(x), np.nan)
    )
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train_cql(CQLConfig(str(tmp_path / "d"), steps=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.undo()
    # What was left of it cannot be gone on with, and is in nobody's way.
    train_cql(CQLConfig(str(tmp_path / "d"), steps=2), tmp_path / "run")
    for wrong in ({"learning_rate": 0.0}, {"conservative": -1.0}, {"steps": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            CQLConfig("d", **wrong)
