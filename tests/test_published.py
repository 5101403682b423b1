"""Published rows bear out what is printed: a reader can recompute every number."""

import ast
import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sdm.experiments.catalogue import PUBLISHED, experiments
from sdm.experiments.comparison import as_row, compare
from sdm.experiments.intervals import task_gaps
from sdm.experiments.rows import read_rows, rows_file

DOCS = Path(__file__).resolve().parents[1] / "docs"
# Values of each task have seven digits; a gap of 1 % is then known to 1e-5 points of
# the returns, whose lost share is their small difference.
NEAR = {"rel": 1e-4, "abs": 2e-5}


def rows_with_tasks(name):
    rows = read_rows(rows_file(PUBLISHED, name, "laptop"))
    return [row for row in rows if "returns" in row.get("result", {})]


@pytest.mark.parametrize("name", experiments())
def test_gaps_and_intervals_follow_from_the_values_of_each_task(name):
    for row in rows_with_tasks(name):
        result = row["result"]
        for estimator in ("returns", "regret"):
            gaps = task_gaps(result, "gap", estimator)
            if gaps is None:
                continue
            gaps = gaps[~np.isnan(gaps)]
            half = stats.sem(gaps) * stats.t.ppf(0.975, len(gaps) - 1)
            found = result[f"{estimator}_percent"]
            assert gaps.mean() == pytest.approx(found, **NEAR), row["key"]
            low = result[f"{estimator}_ci_low"]
            assert gaps.mean() - half == pytest.approx(low, **NEAR), row["key"]
        assert result["gap_percent"] == result[f"{result['estimator']}_percent"]
        for measure in ("worst_model", "alpha_meu", "random_model"):
            if f"{measure}_gap_percent" in result:
                gaps = task_gaps(result, measure, "returns")
                found = result[f"{measure}_gap_percent"]
                assert gaps.mean() == pytest.approx(found, **NEAR), row["key"]


def test_the_parts_of_every_row_sum_to_its_gap_by_regret():
    found = [row for name in experiments() for row in rows_with_tasks(name)]
    known = [row["result"] for row in found if "lost_by_stage" in row["result"]]
    assert len(known) > 100
    for result in known:
        parts = sum(result["lost_by_stage"])
        assert parts == pytest.approx(result["regret_percent"], **NEAR)


def test_the_code_of_the_documentation_recomputes_intervals_and_a_comparison(
    monkeypatch,
):
    """Ten lines of pandas have the numbers of the rows and of `compare`."""
    (code,) = re.findall(
        r"```python\n(.*?)```", (DOCS / "results.md").read_text("utf-8"), re.DOTALL
    )
    assert len(ast.parse(code).body) <= 13  # two of them import
    monkeypatch.chdir(DOCS.parent)
    names = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, names)
    means, half = names["seeds"].mean(), names["half"]
    checked = 0
    for row in rows_with_tasks("mdp-horizon"):
        result = row["result"]
        at = (row["test"]["horizon"], row["seed"])
        assert means.loc[at, row["policy"]] == pytest.approx(
            result["regret_percent"], **NEAR
        )
        width = (result["regret_ci_high"] - result["regret_ci_low"]) / 2
        assert half.loc[at, row["policy"]] == pytest.approx(width, **NEAR)
        checked += 1
    assert checked >= 45
    found = compare(
        "ce", "bayes-imitation", [experiments()["mdp-horizon"]], "laptop", PUBLISHED
    )
    (at_ten,) = [as_row(x) for x in found if x.condition == "T = 10"]
    assert at_ten["estimator"] == "regret"
    # `compare` weighs seeds, which have equally many tasks, and has S - 1 fewer
    # degrees of freedom: the p-values differ in the last of their many zeros.
    value = re.search(r"pvalue=(?:np.float64\()?([\d.e-]+)", printed.getvalue())
    assert max(float(value[1]), at_ten["p"]) < 1e-8


def test_the_table_of_the_main_page_is_that_of_its_runs():
    files = sorted((PUBLISHED / "demo").glob("results-seed-*.json"))
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    assert [run["demo"]["seed"] for run in runs] == list(range(5))
    gaps: dict[str, list[float]] = {}
    for run in runs:
        for policy, row in run["policies"].items():
            gaps.setdefault(policy, []).append(row["gap_percent"])
    page = (PUBLISHED.parents[1] / "README.md").read_text(encoding="utf-8")
    shown = {"icl:smollm2": "SmolLM2, in context only"}
    shown["smollm2 fine-tuned"] = "SmolLM2, fine-tuned"
    for policy, found in gaps.items():
        mean, low, high = np.mean(found), min(found), max(found)
        row = f"| {shown.get(policy, policy)} | {mean:.2f} | {low:.2f} … {high:.2f} |"
        assert f"{row} {found[0]:.2f}, " in page
