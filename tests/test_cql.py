"""Conservative Q-learning through d3rlpy: what it is given, and what is kept of it."""

import json

import numpy as np
import pytest
import torch

from sdm.llm.evaluate import evaluate, evaluate_baseline
from sdm.llm.test_bed import EvaluationConfig, make_test_bed
from sdm.solvers_jax import EnergyFamily
from sdm.solvers_jax.oracle_data import OracleConfig, write_oracle_dataset

pytestmark = pytest.mark.filterwarnings("ignore")  # of d3rlpy and what it still needs


def test_the_network_sees_the_symbol_and_the_share_of_stages_gone():
    from sdm.baselines.cql import features

    given = features(np.array([[0, 2]]), np.array([[0, 3]]), 3, 4)
    np.testing.assert_array_equal(given, [[[1, 0, 0, 0], [0, 0, 1, 0.75]]])


def test_it_learns_from_the_pooled_episodes(tmp_path):
    from sdm.baselines.cql import CQLConfig, train_cql

    # One task only, so that there is one best policy to be learned.
    family = EnergyFamily(p_min=0.9, p_max=0.9, max_energy=2)
    made = OracleConfig(family, 3, 2, 20, random_trajectories=60)
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
    assert steps[-1] == (600, 600) and run.arrays["q"].shape == (3, 3, 3)
    bed = make_test_bed(EvaluationConfig(family, 3, 4, 5))
    (result,) = evaluate([f"cql:{tmp_path / 'run'}"], bed)
    random_gap = evaluate_baseline("random", bed).exact_gap.mean
    assert result.exact_gap.mean < 0.2 * random_gap
    about = json.loads((tmp_path / "run/policy.json").read_text())
    assert about["kind"] == "cql" and about["config"]["steps"] == 600
    again = train_cql(
        CQLConfig(str(tmp_path / "data"), steps=600, learning_rate=3e-3),
        tmp_path / "again",
    )
    np.testing.assert_array_equal(again.arrays["q"], run.arrays["q"])
