"""The test that all policies share: same tasks, same demonstrations, same luck."""

import dataclasses

import numpy as np
import pytest

from sdm.llm.acting import language_model_policy
from sdm.llm.bases import load_base
from sdm.llm.evaluate import (
    BASELINES,
    EvaluationConfig,
    baseline,
    check_policy_name,
    evaluate,
    evaluate_baseline,
    evaluate_stepwise,
    make_test_bed,
)
from sdm.llm.results import gap_table, result_row, save_gap_figure
from sdm.llm.runs import LoadedRun
from sdm.solvers_jax import EnergyFamily, TabularPolicy

CONFIG = EvaluationConfig(EnergyFamily(), horizon=6, tasks=12, trajectories=4, seed=3)


@pytest.fixture(scope="module")
def bed():
    return make_test_bed(CONFIG)


def test_the_oracle_has_no_gap(bed):
    result = evaluate_baseline("oracle", bed)
    assert result.gap.mean == 0 and result.agreement == 1
    assert result.exact_gap.mean == pytest.approx(0, abs=1e-12)  # rounding


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_is_played_and_valued(bed, name):
    result = evaluate_baseline(name, bed)
    assert -0.5 < result.gap.mean < 1 and -1e-12 <= result.exact_gap.mean < 1
    assert 0 <= result.agreement <= result.work_agreement <= 1


def test_estimated_gaps_tend_to_the_exact_ones():
    many = dataclasses.replace(CONFIG, trajectories=600)
    result = evaluate_baseline("random", make_test_bed(many))
    # Twelve tasks' own noise is 0.003 at 600 episodes; four of these.
    assert result.gap.mean == pytest.approx(result.exact_gap.mean, abs=0.012)


def test_stepping_in_groups_gives_what_the_compiled_loop_gives(bed, monkeypatch):
    monkeypatch.setattr("sdm.llm.evaluate.ROWS_TOGETHER", 20)  # 5 tasks a group
    whole = evaluate_baseline("random", bed)
    done = []

    def policy(group):
        return TabularPolicy(baseline("random", bed).probabilities[group])

    stepped = evaluate_stepwise(
        "stepped", bed, policy, progress=lambda n, total: done.append((n, total))
    )
    np.testing.assert_array_equal(stepped.returns, whole.returns)
    assert done == [(5, 12), (10, 12), (12, 12)]
    assert stepped.exact_gap is None


def test_what_a_prior_is_can_differ_from_what_is_tested():
    low = EnergyFamily(p_min=0.05, p_max=0.2)
    options = {"horizon": 20, "tasks": 40, "trajectories": 1}
    knows = EvaluationConfig(low, **options)
    mistaken = EvaluationConfig(low, **options, training_family=EnergyFamily())
    gaps = [
        evaluate_baseline("mean-plan", make_test_bed(config)).exact_gap.mean
        for config in (knows, mistaken)
    ]
    assert gaps[0] < 0.02 and gaps[1] > 0.3


def test_tasks_are_the_same_whatever_their_number(bed):
    fewer = make_test_bed(dataclasses.replace(CONFIG, tasks=5))
    np.testing.assert_array_equal(fewer.mdp.transition, bed.mdp.transition[:5])
    np.testing.assert_array_equal(fewer.support.action, bed.support.action[:5])
    np.testing.assert_array_equal(fewer.optimal_returns, bed.optimal_returns[:5])


def test_a_base_that_has_learned_nothing_plays(bed):
    (result,) = evaluate(["icl:tiny"], bed)
    assert result.gap.mean > 0.1 and result.agreement < 0.9


def test_a_run_tested_otherwise_than_it_was_trained_is_pointed_out(bed, monkeypatch):
    base, tokenizer = load_base("tiny")
    options = {"schema": "compact", "support": 7}
    run = LoadedRun(base, tokenizer, options, horizon=3)
    monkeypatch.setattr("sdm.llm.acting.load_run", lambda folder: run)
    with pytest.warns(UserWarning, match="trained over 3 stages after 7 demonstr"):
        language_model_policy("some-run", bed)


def test_names_that_are_no_policy_are_refused(tmp_path):
    for name in (*BASELINES, "icl:tiny", "icl:meta-llama/Llama-2-7b-hf"):
        check_policy_name(name)
    for name in ("optimal", str(tmp_path)):
        with pytest.raises(ValueError, match="there is no policy"):
            check_policy_name(name)
    with pytest.raises(ValueError, match="unknown base `foo`"):
        check_policy_name("icl:foo")


@pytest.mark.parametrize(
    "changes", [{"tasks": 0}, {"trajectories": 0}, {"support": -1}]
)
def test_counts_that_make_no_test_are_refused(changes):
    with pytest.raises(ValueError, match="must be"):
        dataclasses.replace(CONFIG, **changes)


def test_results_become_a_table_and_a_figure(bed, tmp_path):
    rows = {n: result_row(evaluate_baseline(n, bed)) for n in ("random", "oracle")}
    table = gap_table(rows, {"random": "57.6"})
    assert table.row_count == 2
    assert list(table.columns[4].cells) == ["57.6", ""]
    shown = next(iter(table.columns[1].cells))
    assert shown == f"{rows['random']['gap_percent']:.2f}"
    save_gap_figure(rows, "gaps", tmp_path / "gaps")
    assert (tmp_path / "gaps.png").stat().st_size > 5000
    assert (tmp_path / "gaps.pdf").read_bytes().startswith(b"%PDF")


def test_a_single_task_has_a_row_without_an_interval():
    one = make_test_bed(dataclasses.replace(CONFIG, tasks=1))
    row = result_row(evaluate_baseline("random", one))
    assert row["ci_low"] is None and row["gap_percent"] > 0
