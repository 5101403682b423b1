"""The paper's values stand beside tests like those of the paper."""

import pytest
from untrained_run import untrained_run

from sdm.commands.eval_report import Players, table_of
from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.evaluation.evaluate import evaluate_untrained
from sdm.evaluation.paper import paper_rows
from sdm.evaluation.tables import result_rows
from sdm.solvers_jax import DarkroomFamily, EnergyFamily

PLAIN = EnergyFamily()
LOW = EnergyFamily(p_min=0.05, p_max=0.2)


def test_the_paper_is_compared_where_training_is_like_its_own():
    def rows(family, trained, kind="mdp", horizon=10):
        config = EvaluationConfig(family, horizon, kind=kind, training_family=trained)
        return paper_rows(config)

    assert rows(PLAIN, PLAIN)["sft"] == "3"
    assert rows(PLAIN, LOW) == {} == rows(PLAIN, EnergyFamily(p_max=0.5))
    assert rows(LOW, PLAIN, horizon=20)["sft"] == "6"  # Fig. 7
    # What has no effect for a kind need not be the same.
    assert rows(PLAIN, EnergyFamily(q=0.6))["sft"] == "3"
    good, fair = EnergyFamily(q=0.8), EnergyFamily(q=0.7)
    assert rows(good, good, "pomdp")["dpt"] == "25"
    assert rows(good, EnergyFamily(q=0.6), "pomdp") == {}
    assert rows(fair, good, "pomdp") == {"sft": "10", "oracle": "0"}
    assert rows(PLAIN, DarkroomFamily()) == {}


@pytest.mark.slow
def test_each_run_stands_beside_the_paper_in_a_test_like_its_own(tmp_path):
    """Of two models in one test, one is in distribution."""
    config = EvaluationConfig(EnergyFamily(q=0.8), 10, 2, 2, kind="pomdp")
    rows = result_rows([evaluate_untrained("random", make_benchmark(config))])
    same = untrained_run(tmp_path / "same", EnergyFamily(q=0.8), "pomdp", 10)
    other = untrained_run(tmp_path / "other", EnergyFamily(q=0.6), "pomdp", 10)
    policies = dict.fromkeys((same, other), rows["random"])
    report = {"policies": policies, "paper": dict(paper_rows(config))}
    table = table_of(Players(config, list(policies), None), report)
    (column,) = (c for c in table.columns if "paper" in str(c.header))
    assert list(column.cells) == ["10", ""]
