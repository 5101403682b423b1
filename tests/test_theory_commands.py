"""`sdm theory`, as typed."""

import csv
import json

import numpy as np
import pytest
from tolerances import ROUNDING
from typer.testing import CliRunner

from sdm.cli import app
from sdm.theory.beyond import STUDIES
from sdm.theory.covariances import log_spaced_eigenvalues
from sdm.theory.plots import DRAWINGS
from sdm.theory.risk import lemma_1

run = CliRunner().invoke
SMALL = ["--kappa", "1", "--kappa", "10", "--support", "20", "--support", "5"]
SMALL += ["--train", "10", "--tasks", "50"]


@pytest.mark.slow
def test_validate_reports_cells_and_leaves_figure_and_table(tmp_path):
    out = tmp_path / "v"
    result = run(app, ["theory", "validate", *SMALL, "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    promised = "kappa support train gap eps_hat bound holds risk_empirical risk_exact"
    promised += " risk_bound calibration"
    assert all(set(promised.split()) <= cell.keys() for cell in report["cells"])
    assert report["all_hold"] is True
    found = [(c["kappa"], c["support"]) for c in report["cells"]]
    assert found == [(1, 5), (1, 20), (10, 5), (10, 20)]
    names = {path.name for path in out.iterdir()}
    assert names == {
        "cells.csv",
        "plan.json",
        "results.json",
        "gap_against_bound.png",
        "gap_against_bound.pdf",
    }
    with (out / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(r["gap"]) for r in rows] == [c["gap"] for c in report["cells"]]
    assert json.loads((out / "results.json").read_text()) == report
    again = run(app, ["theory", "validate", *SMALL, "--out", str(out)])
    assert again.exit_code == 2 and "exists already" in again.stderr


def test_validate_says_which_claim_was_checked_where():
    result = run(app, ["theory", "validate", *SMALL])
    assert result.exit_code == 0, result.output
    for words in ("Lemma 1", "Prop. 1", "E.2, (12)", "4 of 4", "median"):
        assert words in result.stdout


def test_the_same_seed_gives_the_same_cells():
    def gaps(seed):
        result = run(app, ["theory", "validate", *SMALL, "--json", "--seed", seed])
        return [cell["gap"] for cell in json.loads(result.stdout)["cells"]]

    assert gaps("1") == gaps("1") != gaps("2")


@pytest.mark.slow
def test_flow_reports_gamma_for_each_condition(tmp_path):
    options = ["--dim", "3", "--kappa", "1", "--kappa", "10", "--out"]
    result = run(app, ["theory", "flow", *options, str(tmp_path / "f"), "--json"])
    assert result.exit_code == 0, result.output
    for flow in json.loads(result.stdout)["flows"]:
        assert flow["gamma_relative_error"] < 1e-3
        assert flow["loss"] == pytest.approx(flow["loss_at_minimum"], rel=ROUNDING)
    assert (tmp_path / "f" / "flow.png").is_file()


@pytest.mark.slow
def test_sample_size_is_confirmed():
    options = ["--delta", "10", "--dim", "3", "--horizon", "5", "--tasks", "50"]
    result = run(app, ["theory", "sample-size", *options, "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["holds"] and report["achieved_gap"] <= 10
    assert report["achieved_calibration"] <= report["calibration_assumed"]


def test_sizes_too_large_to_simulate_are_still_told():
    options = ["--delta", "0.001", "--json"]
    result = run(app, ["theory", "sample-size", *options])
    assert result.exit_code == 0 and "not simulated" in result.stderr
    report = json.loads(result.stdout)
    assert report["support"] > 10**9 and report["holds"] is None


SLOW = ("finite-training", "linear-mdp", "covariate-shift")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW))
        for n in STUDIES
        if n != "looseness"
    ],
)
def test_every_study_has_rows_and_a_picture(name, tmp_path):
    result = run(app, ["theory", "beyond", name, "--out", str(tmp_path / "b")])
    assert result.exit_code == 0, result.output
    with (tmp_path / "b" / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 16
    assert (tmp_path / "b" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    if name == "covariate-shift":
        fails = {r["shift"] for r in rows if r["lemma_1_holds"] == "False"}
        assert fails == {"scale", "κ", "rotation, degrees"}  # each far enough
        matched = [r for r in rows if (r["shift"], r["amount"]) == ("scale", "1.0")]
        assert all(r["risk"] == r["risk_matched"] for r in matched)
        for row in rows:  # 2 ε (1 - γ^T)/(1 - γ), but for the noise of 1,000 tasks
            wanted = 2 * np.sqrt(float(row["risk_matched"])) * (1 - 0.95**20) / 0.05
            assert float(row["bound_matched"]) == pytest.approx(wanted, rel=0.15)
    if name == "noisy-labels":
        off = [
            abs(float(r["risk_simulated"]) - float(r["risk"])) / float(r["risk_se"])
            for r in rows
        ]
        assert max(off) < 4  # standard errors, 16 of them
        assert all(float(r["risk_se"]) < 0.1 * float(r["risk"]) for r in rows)
        covariance = np.diag(log_spaced_eigenvalues(5, 10.0))
        for row in rows:
            bound = lemma_1(covariance, int(row["support"]), 20)
            assert float(row["lemma_1"]) == pytest.approx(bound)
    if name == "linear-mdp":
        assert all(float(r["gap"]) <= float(r["bound"]) for r in rows)
        assert np.mean([float(r["calibration"]) for r in rows]) > 1


def test_every_study_is_drawn():
    assert DRAWINGS.keys() == STUDIES.keys()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("validate --dim 0", "d: must be 1 or more and finite, found 0"),
        ("validate --kappa 0.5", "κ: must be 1 or more and finite, found 0.5"),
        ("validate --discount 0", "γ: must be above 0 and at most 1, found 0"),
        ("validate --support 0", "M: must be 1 or more and finite, found 0"),
        ("validate --train 0", "N: must be 1 or more and finite, found 0"),
        ("flow --scale 5", "σ² ‖Γ‖ √d < 2"),
        ("flow --train 0", "N: must be 1 or more and finite, found 0"),
        ("sample-size --delta 0", "δ: must be between 1e-100 and 1e100, found 0"),
        ("sample-size --delta 1e-200", "1e100, found 1e-200"),
        (
            "sample-size --delta 9 --tasks 1",
            "number of tasks: must be 2 or more and finite, found 1",
        ),
        (
            "validate --support 3000000000",
            "M: must be 1000000 or fewer, found 3000000000",
        ),
        ("validate --dim 1", "κ: must be 1 for d = 1, found 10"),
        ("beyond gravity", "unknown study `gravity`"),
    ],
)
def test_bad_input_is_one_line(command, message):
    result = run(app, ["theory", *command.split()])
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.count("error:") == 1
