"""Published rows bear out what is printed: a reader can recompute every number."""

import ast
import contextlib
import functools
import io
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sdm.experiments.catalogue import PUBLISHED, experiments
from sdm.experiments.comparison import as_row, compare
from sdm.experiments.intervals import task_gaps
from sdm.experiments.policy_runs import named_groups, same_tests
from sdm.experiments.rows import found_rows, read_rows, rows_file
from sdm.experiments.spec import ExperimentError
from sdm.experiments.tables import points

NOWHERE = PUBLISHED / "none"  # no rows of one's own
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
            low, high = (result[f"{estimator}_ci_{end}"] for end in ("low", "high"))
            assert gaps.mean() - half == pytest.approx(low, **NEAR), row["key"]
            slack = result["regret_slack_percent"] if estimator == "regret" else 0.0
            top = gaps.mean() + half + slack
            assert top == pytest.approx(high, **NEAR), row["key"]
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


def recipe(monkeypatch, name="mdp-horizon", by="regrets"):
    """Run the code of docs/results.md on an experiment, by an estimate of the gap."""
    (code,) = re.findall(
        r"```python\n(.*?)```", (DOCS / "results.md").read_text("utf-8"), re.DOTALL
    )
    *loads, over_seeds, _, _, _ = ast.parse(code).body
    assert len(over_seeds.body) <= 10
    assert sum(isinstance(one, ast.Assign | ast.Expr) for one in loads) <= 10
    for old, new in (
        ("mdp-horizon/laptop", f"{name}/laptop"),
        ('by="regrets"', f'by="{by}"'),
    ):
        assert code.count(old) == 1
        code = code.replace(old, new)
    if (name, by) != ("mdp-horizon", "regrets"):  # whose policies are others
        code = code[: code.index("tiny, ce =")]
    monkeypatch.chdir(DOCS.parent)
    names = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, names)
    rows = names["rows"].set_index("key")
    return names, {key: (row["policy"], row["test"]) for key, row in rows.iterrows()}


def test_the_code_of_the_documentation_recomputes_gaps(monkeypatch):
    names, column_of = recipe(monkeypatch)
    experiment, checked = experiments()["mdp-horizon"], 0
    test_of = {
        where[1]: ast.literal_eval(where[1])["horizon"] for where in column_of.values()
    }
    for point in points(experiment, found_rows(experiment, "laptop", NOWHERE)):
        by_regret = estimators(point.policy, point.x) == {"regret"}
        if by_regret and point.seeds == 3:
            trained = point.training_seconds is not None
            gaps = names["gaps"][point.policy]
            found = names["over_seeds"](gaps, trained, paired=False)
            ours = found.rename(index=test_of).loc[point.x]
            for name, value in (("mean", point.gap), ("low", point.low)):
                assert ours[name] == pytest.approx(value, **NEAR)
            assert ours["high"] == pytest.approx(point.high, **NEAR)
            checked += 1
    assert checked >= 9  # those of `tiny`, `ce` and `bayes-imitation` at least


BY = {"regret": "regrets", "returns": "returns"}


def test_the_code_of_the_documentation_recomputes_every_comparison(monkeypatch):
    """A few lines of pandas have the numbers of the report and of `compare`."""
    checked = Counter()
    for experiment in experiments().values():
        if experiment.study or not experiment.compare:
            continue
        run = functools.cache(functools.partial(recipe, monkeypatch, experiment.name))
        for first, second in experiment.compare:
            for one, keys in published(experiment, first, second):
                by = BY[one["estimator"]]
                if experiment.measure == "worst_model":
                    by = "returns_by_model"
                names, column_of = run(by)
                if not {key for pair in keys for key in pair} <= column_of.keys():
                    continue  # in the file of another experiment
                (ours, test), (theirs, _) = (column_of[key] for key in keys[0])
                apart = names["gaps"][ours] - names["gaps"][theirs]
                found = names["over_seeds"](apart, one["trained"], paired=True)
                found = found.fillna({"p": 1.0})  # of differences that are all 0
                for name, column in (
                    ("mean", "difference"),
                    ("low", "ci_low"),
                    ("high", "ci_high"),
                    ("p", "p"),
                ):
                    value = pytest.approx(one[column], **NEAR)
                    assert found.loc[test, name] == value, (experiment.name, one)
                checked[by] += 1
    assert checked["regrets"] >= 80
    assert checked["returns"] >= 20
    assert checked["returns_by_model"] == 36


def published(experiment, first, second):
    """Yield every known comparison of two policies, and the keys of its rows."""
    try:
        made = compare(
            first, second, [experiment], "laptop", NOWHERE, experiment.measure
        )
    except ExperimentError:  # one of the policies has not been run
        return
    groups = (
        named_groups(name, [experiment], "laptop", NOWHERE) for name in (first, second)
    )
    pairs = [
        [{cell.seed: row["key"] for cell, row in group} for _, group in pair]
        for pair in same_tests(*groups)
    ]
    shared = [
        [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
        for ours, theirs in pairs
        if ours.keys() & theirs.keys()
    ]
    for one, keys in zip(made, shared, strict=True):
        if one.difference is not None:
            yield as_row(one) | {"trained": one.trained}, keys


def test_every_file_that_holds_rows_of_a_section_is_linked():
    page = (PUBLISHED / "README.md").read_text(encoding="utf-8")
    of_title = {part.partition("\n")[0]: part for part in page.split("\n## ")[1:]}
    shared = 0
    for experiment in experiments().values():
        rows = [row for _, row in found_rows(experiment, "laptop", NOWHERE) if row]
        for name in {row["experiment"] for row in rows}:
            assert f"]({name}/laptop.jsonl)" in of_title[experiment.title]
            shared += name != experiment.name
    assert shared >= 5


def estimators(policy, horizon):
    """The estimators of the headline of a policy's rows."""
    return {
        row["result"]["estimator"]
        for row in rows_with_tasks("mdp-horizon")
        if (row["policy"], row["test"]["horizon"]) == (policy, horizon)
    }


def test_the_table_of_the_demo_is_that_of_its_runs():
    files = sorted((PUBLISHED / "demo").glob("results-seed-*.json"))
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    assert [run["demo"]["seed"] for run in runs] == list(range(5))
    gaps: dict[str, list[float]] = {}
    for run in runs:
        for policy, row in run["policies"].items():
            gaps.setdefault(policy, []).append(row["gap_percent"])
    page = (PUBLISHED.parents[1] / "docs/demo.md").read_text(encoding="utf-8")
    shown = {"icl:smollm2": "SmolLM2, in context only"}
    shown["smollm2 fine-tuned"] = "SmolLM2, fine-tuned"
    for policy, found in gaps.items():
        mean, low, high = np.mean(found), min(found), max(found)
        row = f"| {shown.get(policy, policy)} | {mean:.2f} | {low:.2f} … {high:.2f} |"
        assert f"{row} {found[0]:.2f}, " in page


def mean_gap(name, policy, measure="gap_percent", **test):
    """The mean over seeds of a published gap."""
    rows = read_rows(rows_file(PUBLISHED, name, "laptop"))
    found = [
        row["result"][measure]
        for row in rows
        if row["policy"] == policy and test.items() <= row["test"].items()
    ]
    return float(np.mean(found)) if found else None


def goals():
    """Where each goal is reached and in how many tests, by the mean over seeds."""
    horizons, qualities = (10, 20, 30), (0.6, 0.8, 1.0)
    mdp = [mean_gap("mdp-horizon", "tiny", horizon=t) for t in horizons]
    pomdp = [mean_gap("pomdp-observation", "tiny", q=q) for q in qualities]
    beyond = [mean_gap("ood", "tiny", kind="mdp", horizon=t) for t in horizons]
    sets = [{"models": k, "alpha": a} for k in (2, 5, 10) for a in (1.0, 0.5, 0.0)]
    worst = [
        [
            mean_gap("apomdp-ambiguity", policy, "worst_model_gap_percent", **test)
            for policy in ("tiny", "tiny-nominal", "mean-plan")
        ]
        for test in sets
    ]
    darkroom = [
        [mean_gap("darkroom", policy, demonstrations="random") for policy in pair]
        for pair in (("tiny-mixed", "ce"),)
    ]
    return {
        "MDPs": [x <= 0.5 for x in mdp],
        "POMDPs": [x <= 1.0 for x in pomdp],
        "APOMDPs": [x[0] < min(x[1:]) for x in worst if None not in x],
        "Darkroom": [x[0] <= 2 * x[1] for x in darkroom if None not in x],
        "MDPs out of distribution": [
            x <= y + 1 for x, y in zip(beyond, mdp, strict=True)
        ],
    }


def test_the_goals_that_are_reached_are_those_of_the_rows():
    page = (PUBLISHED.parent / "README.md").read_text(encoding="utf-8")
    lines = re.findall(
        r"^\| \[([^]]+)\]\(\S+\) \| [^|]+ \| ([^|]+?) \| (\d+|-) \|$",
        page,
        re.MULTILINE,
    )
    assert {tasks: reached for tasks, reached, _ in lines} == {
        tasks: f"in {sum(met)} of {len(met)} tests" if met else "not run"
        for tasks, met in goals().items()
    }
    assert {tasks: limited for tasks, _, limited in lines} == {
        "MDPs": limited("mdp-horizon"),
        "POMDPs": limited("pomdp-observation"),
        "APOMDPs": limited("apomdp-ambiguity"),
        "Darkroom": "-",
        "MDPs out of distribution": limited("ood", "mdp"),
    }


def limited(name, kind=""):
    """In how many tests `tiny` has one seed, or a row with a note."""
    experiment = experiments()[name]
    found = [
        (cell, row)
        for cell, row in found_rows(experiment, "laptop", NOWHERE)
        if cell.policy == "tiny" and kind in ("", cell.test["kind"])
    ]
    shown = points(experiment, found)
    return str(sum(point.noted or point.seeds == 1 for point in shown))


def test_paired_tests_decide_nothing_about_the_goal_for_ambiguous_tasks():
    page = (PUBLISHED / "README.md").read_text(encoding="utf-8")
    for other in ("tiny-nominal", "mean-plan"):
        assert f"gap of `tiny` against that of `{other}` is undecided in 9 of 9" in page


def test_the_distance_of_plans_in_the_docs_is_that_of_the_rows():
    """Of the default radius, where `nominal` is far from the robust plan at each K."""
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"In the published rows.*?;", text, re.DOTALL)
    shown = re.findall(r"(-?\d+\.\d) % at K = (\d+)", sentence)
    assert [int(k) for _, k in shown] == [2, 5, 10]
    for value, k in shown:
        gap = mean_gap(
            "apomdp-ambiguity",
            "nominal",
            "worst_model_gap_percent",
            models=int(k),
            alpha=1.0,
        )
        assert value == f"{gap:.1f}"


def test_the_table_of_recipes_is_that_of_its_rows():
    folder = PUBLISHED / "recipes"
    rows = [
        json.loads(line)
        for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    text = (folder / "README.md").read_text(encoding="utf-8")
    lines = [
        [field.strip() for field in line.strip("|").split("|")]
        for line in text.splitlines()
        if re.match(r"\| (smollm2|tiny) \|", line)
    ]
    shown = {tuple(line[:6]) for line in lines}
    assert len(shown) == len(lines) == len(rows)
    assert shown == {
        (
            row["base"],
            str(row["horizon"]),
            str(row["texts"]),
            row["cell"],
            f"{row['gap_percent']:.2f}",
            f"{row['ci_low']:.2f} … {row['ci_high']:.2f}",
        )
        for row in rows
    }
