"""Intervals over tasks and seeds, and paired comparisons of policies."""

import dataclasses
import json
import math

import numpy as np
import pytest
from experiment_support import fabricated
from scipy import stats
from typer.testing import CliRunner

from sdm.cli import app
from sdm.commands.experiment_compare import OTHERWISE, comparison_table
from sdm.experiments.catalogue import experiments
from sdm.experiments.comparison import as_row, compare
from sdm.experiments.grid_cells import cells
from sdm.experiments.intervals import (
    NotComparableError,
    holm,
    over_seeds,
    paired,
    task_gaps,
)
from sdm.experiments.policy_runs import _same_test, about
from sdm.experiments.rows import rows_file, write_rows
from sdm.experiments.spec import ExperimentError

RANDOM = np.random.default_rng(0)
T2 = stats.t.ppf(0.975, 2)


def result(gaps, noise=0.0):
    """A result whose regrets are these gaps, in per cent of returns of 2 and 4."""
    gaps = np.asarray(gaps, float)
    best = np.resize([2.0, -4.0], gaps.size)
    lost = gaps / 100 * np.abs(best)
    half = stats.sem(gaps) * stats.t.ppf(0.975, gaps.size - 1)
    rough = RANDOM.normal(0, noise, gaps.size) if noise else 0.0
    return {
        "gap_percent": gaps.mean(),
        "ci_low": gaps.mean() - half,
        "ci_high": gaps.mean() + half,
        "exact_gap_percent": None,
        "regrets": lost.tolist(),
        "optimal_values": best.tolist(),
        "returns": (best - lost + rough).tolist(),
        "optimal_returns": best.tolist(),
    }


def test_one_seed_has_its_interval_over_tasks():
    one = result([1.0, 2.0, 3.0])
    for trained in (False, True):
        found = over_seeds([one], "gap", trained=trained)
        assert (found.mean, found.seeds) == (2.0, (2.0,))
        assert found.low == pytest.approx(one["ci_low"])
        assert found.high == pytest.approx(one["ci_high"])


def test_the_tasks_of_all_seeds_are_the_sample_without_training():
    gaps = [RANDOM.normal(m, 1, 400) for m in (1.0, 1.0, 1.0)]
    found = over_seeds([result(x) for x in gaps], "gap", trained=False)
    every = np.concatenate(gaps)
    half = stats.sem(every) * stats.norm.ppf(0.975)
    assert found.mean == pytest.approx(every.mean())
    # Seeds of 400 tasks differ little from one sample of 1,200: by 3 %.
    assert found.high - found.mean == pytest.approx(half, rel=0.03)


def test_trained_policies_have_the_wider_interval():
    far = [result([m - 0.1, m + 0.1]) for m in (1.0, 2.0, 6.0)]
    found = over_seeds(far, "gap", trained=True)
    half = T2 * np.std([1.0, 2.0, 6.0], ddof=1) / math.sqrt(3)
    assert found.high - found.mean == pytest.approx(half)
    untrained = over_seeds(far, "gap", trained=False)
    assert untrained.high - untrained.mean < half
    # Seeds that agree by chance do not hide the variation of tasks.
    near = [result([m - 5.0, m + 5.0]) for m in (1.0, 1.0, 1.0)]
    found = over_seeds(near, "gap", trained=True)
    own = near[0]["ci_high"] - 1.0
    assert found.high - found.mean == pytest.approx(own / math.sqrt(3))


def test_two_trained_seeds_have_one_degree_of_freedom():
    zero = np.linspace(-0.01, 0.01, 20)
    found = over_seeds([result(zero + m) for m in (1.0, 2.0)], "gap", trained=True)
    half = stats.t.ppf(0.975, 1) * 0.5
    assert found.high - found.mean == pytest.approx(half)
    pairs = [(result(zero + m), result(zero * 2)) for m in (1.0, 2.0)]
    difference = paired(pairs, "gap", trained=True)
    assert difference.p == pytest.approx(stats.ttest_1samp([1.0, 2.0], 0).pvalue)
    assert difference.high - difference.mean == pytest.approx(half)


def test_ends_of_an_interval_stay_on_their_sides():
    one = {"gap_percent": 1.0, "ci_low": 0.9, "ci_high": 3.0}
    found = over_seeds([one, one], "gap", trained=True)
    assert found.mean - found.low == pytest.approx(0.1 / math.sqrt(2))
    assert found.high - found.mean == pytest.approx(2.0 / math.sqrt(2))


def test_tasks_of_every_seed_vary_around_their_own_mean():
    """Two seeds of three tasks leave four degrees of freedom."""
    ours = [np.array([1.0, 2.0, 4.0]), np.array([0.0, 5.0, 6.0])]
    pairs = [(result(x), result([0.0, 1e-9, 0.0])) for x in ours]
    found = paired(pairs, "gap", trained=False)
    error = math.hypot(*map(stats.sem, ours)) / 2
    # The second policy's gaps of 1e-9 change nothing that is shown.
    assert found.high - found.mean == pytest.approx(
        error * stats.t.ppf(0.975, 4), rel=1e-6
    )


def test_a_single_task_has_no_interval():
    one = {"gap_percent": 3.0, "ci_low": None, "ci_high": None}
    found = over_seeds([one, one], "gap", trained=True)
    assert (found.mean, found.low, found.high) == (3.0, None, None)
    single = result([1.0, 1.0])
    single |= {k: single[k][:1] for k in ("regrets", "optimal_values")}
    single |= {k: single[k][:1] for k in ("returns", "optimal_returns")}
    found = paired([(single, single)], "gap", trained=False)
    assert (found.mean, found.low, found.p) == (0.0, None, None)


def test_a_paired_difference_is_the_t_test_of_scipy():
    ours, theirs = RANDOM.normal(1.0, 1.0, 50), RANDOM.normal(1.2, 1.0, 50)
    found = paired([(result(ours), result(theirs))], "gap", trained=True)
    wanted = stats.ttest_rel(ours, theirs)
    ends = wanted.confidence_interval(0.95)
    assert found.p == pytest.approx(wanted.pvalue)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert (found.tasks, found.seeds) == (50, (pytest.approx((ours - theirs).mean()),))
    turned = paired([(result(theirs), result(ours))], "gap", trained=True)
    assert turned.mean == pytest.approx(-found.mean) and turned.p == found.p


def test_the_estimate_of_a_difference_is_the_narrower_one():
    ours, theirs = RANDOM.normal(1.0, 1.0, 50), RANDOM.normal(1.2, 1.0, 50)
    clean = paired([(result(ours, 1.0), result(theirs, 1.0))], "gap", trained=False)
    assert clean.estimator == "regret"
    first, second = result(ours), result(theirs)
    rough = RANDOM.normal(0, 1.0, 50)
    first["regrets"] = (np.asarray(first["regrets"]) + rough).tolist()
    found = paired([(first, second)], "gap", trained=False)
    assert found.estimator == "returns"
    assert found.mean == pytest.approx((ours - theirs).mean())
    del first["regrets"]
    assert paired([(first, second)], "gap", trained=False).estimator == "returns"
    # A difference that does not vary at all is the narrowest.
    pair = result(ours, 1.0), result(ours, 1.0)
    assert paired([pair], "gap", trained=False).estimator == "regret"


def test_seeds_that_disagree_make_a_difference_of_trained_policies_uncertain():
    zero = np.linspace(-0.01, 0.01, 20)
    pairs = [(result(zero + m), result(zero * 2)) for m in (1.0, 2.0, 6.0)]
    found = paired(pairs, "gap", trained=True)
    test = stats.ttest_1samp([1.0, 2.0, 6.0], 0)
    assert found.p == pytest.approx(test.pvalue)
    half = T2 * np.std([1.0, 2.0, 6.0], ddof=1) / math.sqrt(3)
    assert found.high - found.mean == pytest.approx(half)
    assert paired(pairs, "gap", trained=False).p < 1e-10


def test_equal_policies_do_not_differ():
    one = result([1.0, 2.0, 3.0])
    found = paired([(one, one)], "gap", trained=False)
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_tasks_without_an_optimal_return_have_no_gap():
    one = result([1.0, 2.0, 3.0])
    one["optimal_returns"][1] = 0.0
    gaps = task_gaps(one, "gap", "returns")
    assert np.isnan(gaps[1]) and not np.isnan(gaps[[0, 2]]).any()


def test_tasks_without_a_gap_are_not_part_of_a_comparison():
    ours, theirs = RANDOM.normal(1.0, 1.0, 20), RANDOM.normal(1.2, 1.0, 20)
    pair = result(ours), result(theirs)
    for one in pair:
        one["optimal_values"][3] = one["optimal_returns"][3] = 0.0
    found = paired([pair], "gap", trained=False)
    kept = np.arange(20) != 3
    wanted = stats.ttest_rel(ours[kept], theirs[kept])
    assert found.tasks == 19
    assert found.mean == pytest.approx((ours - theirs)[kept].mean())
    assert found.p == pytest.approx(wanted.pvalue)


def test_measures_over_all_models_are_compared():
    ours = {"returns_by_model": [[1.0, 3.0], [2.0, 2.0]], "returns": [1.0, 2.0]}
    best = {"optimal_returns_by_model": [[2.0, 4.0], [4.0, 4.0]], "alpha": 0.25}
    one = {**ours, **best}
    assert task_gaps(one, "worst_model", "returns").tolist() == [50, 50]
    # 0.25 × 1 + 0.75 × 3 = 2.5 of 3.5.
    assert task_gaps(one, "alpha_meu", "returns") == pytest.approx([100 / 3.5, 50])
    assert task_gaps(one, "random_model", "returns") == pytest.approx([100 / 3, 50])
    assert task_gaps(one, "random_model", "regret") is None
    with pytest.raises(NotComparableError, match="of tasks with one model"):
        task_gaps(result([1.0, 2.0]), "worst_model", "returns")


def test_holm_corrects_for_the_number_of_comparisons():
    """An example worked by hand: p times 4, 3, 2 and 1, never decreasing."""
    found = holm([0.01, 0.04, 0.03, 0.005])
    assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []
    # Those that are not known count.
    assert holm([None, 0.01, None, 0.02]) == pytest.approx([None, 0.04, None, 0.06])


def rows_with_tasks(name, seeds=(0, 1, 2), policies=None):
    """A row for every cell; policies differ by 0.1 times the length of their names."""
    rows = fabricated(experiments()[name], "laptop")
    kept = []
    for row in rows:
        if row["seed"] in seeds and (policies is None or row["policy"] in policies):
            base = np.linspace(0, 1, 9) + 0.1 * row["seed"]
            row["result"] = result(base**2 + 0.1 * len(row["policy"]))
            kept.append(row)
    return kept


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("sdm.experiments.rows.PUBLISHED", tmp_path / "none")
    rows = rows_with_tasks("mdp-horizon")
    write_rows(rows_file(tmp_path, "mdp-horizon", "laptop"), rows)
    return tmp_path


def test_policies_are_compared_in_every_test_of_both(folder):
    chosen = [experiments()["mdp-horizon"], experiments()["dpt"]]
    found = [as_row(x) for x in compare("tiny", "ce", chosen, "laptop", folder)]
    assert [row["test"] for row in found] == ["T = 10", "T = 20", "T = 30"]
    for row in found:
        assert row["difference"] == pytest.approx(0.2)  # tiny has two more letters
        assert row["first"] - row["second"] == pytest.approx(0.2)
        assert (row["seeds"], row["tasks"], row["note"]) == ([0, 1, 2], 27, "")
        assert row["experiment"] == "mdp-horizon"


def test_values_select_the_cells_of_a_policy(tmp_path, monkeypatch):
    monkeypatch.setattr("sdm.experiments.rows.PUBLISHED", tmp_path / "none")
    rows = rows_with_tasks("loss", seeds=(0,), policies=["tiny"])
    for row in rows:
        if row["learn"]["loss"] == "actions":
            row["result"] = result(np.linspace(2, 3, 9) ** 2)
    write_rows(rows_file(tmp_path, "loss", "laptop"), rows)
    names = ("tiny,learn.loss=actions", "tiny,learn.loss=all")
    (found,) = compare(*names, [experiments()["loss"]], "laptop", tmp_path)
    assert found.difference.mean > 3 and found.p_corrected == found.difference.p
    assert found.condition == "T = 10, tokens in the loss: actions against all"
    assert "one training seed" in found.note
    with pytest.raises(ExperimentError, match="`loss` is not NAME=VALUE"):
        compare("tiny,loss", "ce", [experiments()["loss"]], "laptop", tmp_path)


def test_the_panel_of_a_test_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("sdm.experiments.rows.PUBLISHED", tmp_path / "none")
    rows = rows_with_tasks("support-quality", policies=["tiny", "ce"])
    write_rows(rows_file(tmp_path, "support-quality", "laptop"), rows)
    chosen = [experiments()["support-quality"]]
    found = compare("tiny", "ce", chosen, "laptop", tmp_path)
    assert sorted(x.condition for x in found) == [
        f"T = {t}, demonstrations: {how}"
        for t in (10, 20, 30)
        for how in ("optimal", "random")
    ]


def test_runs_of_one_policy_are_compared_once(tmp_path, monkeypatch):
    monkeypatch.setattr("sdm.experiments.rows.PUBLISHED", tmp_path / "none")
    rows = rows_with_tasks("loss", policies=["tiny"])
    write_rows(rows_file(tmp_path, "loss", "laptop"), rows)
    (found,) = compare("tiny", "tiny", [experiments()["loss"]], "laptop", tmp_path)
    assert found.condition == "T = 10, tokens in the loss: all against actions"


def test_policies_of_different_experiments_are_compared_in_the_same_test(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("sdm.experiments.rows.PUBLISHED", tmp_path / "none")
    for name, policy in (("mdp-horizon", "ce"), ("dpt", "dpt")):
        rows = rows_with_tasks(name, policies=[policy])
        write_rows(rows_file(tmp_path, name, "laptop"), rows)
    chosen = [experiments()[name] for name in ("mdp-horizon", "dpt")]
    found = compare("ce", "dpt", chosen, "laptop", tmp_path)
    assert {x.experiment for x in found} == {"mdp-horizon and dpt"}
    assert [x.condition for x in found] == [f"T = {t}" for t in (10, 20, 30)]


def test_tests_in_several_families_are_told_apart():
    experiment = experiments()["families"]
    tested = {about(experiment, cell) for cell in cells(experiment, "laptop")}
    assert tested == {
        f"horizon = 10, family and kind: {name} mdp"
        for name in ("inventory", "maintenance")
    }


def test_rows_of_an_older_version_do_not_hide_newer_ones(folder):
    """Another experiment has the same cells, without values of each task."""
    old = rows_with_tasks("pretraining", policies=["ce"])
    for row in old:
        row["result"].pop("returns")
        row["finished"] = "2000-01-01"
    write_rows(rows_file(folder, "pretraining", "laptop"), old)
    chosen = [experiments()[name] for name in ("pretraining", "mdp-horizon")]
    found = compare("tiny", "ce", chosen, "laptop", folder)
    assert len(found) == 3 and all(x.difference is not None for x in found)


def test_p_values_are_corrected_for_all_comparisons_shown(folder):
    found = compare("tiny", "ce", [experiments()["mdp-horizon"]], "laptop", folder)
    plain = [x.difference.p for x in found]
    assert [x.p_corrected for x in found] == pytest.approx(holm(plain))


def test_a_policy_is_not_compared_with_itself(folder):
    chosen = [experiments()["mdp-horizon"]]
    for other in ("ce", "ce,test.horizon=10"):
        with pytest.raises(ExperimentError, match=r"`ce`.* be compared with itself"):
            compare("ce", other, chosen, "laptop", folder)


@pytest.mark.parametrize(
    ("names", "searched", "profile", "message", "hint"),
    [
        (("tinyy", "ce"), "mdp-horizon", "laptop", "`tinyy`: no row", "mean `tiny`?"),
        (
            ("dpt", "ce"),
            "mdp-horizon dpt",
            "laptop",
            "`dpt`: no row",
            "sdm experiment run dpt --profile laptop --policy 'dpt'",
        ),
        (
            ("tiny", "ce"),
            "mdp-horizon",
            "paper",
            "profile `paper` has no rows",
            "sdm experiment run mdp-horizon --profile paper",
        ),
        (
            ("judge", "ce"),
            "ai-feedback",
            "laptop",
            "`ai-feedback` is a study",
            "verdicts",
        ),
        (
            ("judge", "ce"),
            "mdp-horizon ai-feedback",
            "laptop",
            "`judge` is part of the study `ai-feedback`",
            "verdicts",
        ),
        (
            ("tiny,learn.base=big", "ce"),
            "mdp-horizon",
            "laptop",
            "no row has this value of `learn.base`",
            "rows have tiny",
        ),
        (
            ("tiny,seed=9", "ce"),
            "mdp-horizon",
            "laptop",
            "no row has this value of `seed`",
            "rows have 0, 1, 2",
        ),
        (
            ("tiny,learn.bse=tiny", "ce"),
            "mdp-horizon",
            "laptop",
            "no row has a value `learn.bse`",
            "values are learn.base, ",
        ),
    ],
)
def test_policies_without_a_common_test_are_explained(
    folder, names, searched, profile, message, hint
):
    chosen = [experiments()[name] for name in searched.split()]
    with pytest.raises(ExperimentError, match=message) as caught:
        compare(*names, chosen, profile, folder)
    assert hint in caught.value.hint


def test_the_nearest_tests_are_named(folder):
    chosen = [experiments()["mdp-horizon"]]
    with pytest.raises(ExperimentError, match="tested on different tasks") as caught:
        compare("tiny", "smollm2", chosen, "laptop", folder)
    differ = "which differ in tasks (100 and 50), trajectories (30 and 10)"
    assert caught.value.hint.endswith(differ)  # not in the horizon, too


def test_seeds_that_differ_are_named(folder):
    rows = rows_with_tasks("mdp-horizon", policies=["tiny", "ce"])
    apart = [row for row in rows if (row["seed"] == 0) == (row["policy"] == "tiny")]
    write_rows(rows_file(folder, "mdp-horizon", "laptop"), apart)
    chosen = [experiments()["mdp-horizon"]]
    with pytest.raises(ExperimentError) as caught:
        compare("tiny", "ce", chosen, "laptop", folder)
    assert "differ in seed (0 and 1, 2)" in caught.value.hint


def test_what_cannot_be_compared_is_explained(folder, tmp_path):
    chosen = [experiments()["mdp-horizon"]]
    with pytest.raises(ExperimentError, match="policy `frog`: no row") as caught:
        compare("tiny", "frog", chosen, "laptop", folder)
    assert "smollm2" in caught.value.hint
    file = rows_file(folder, "mdp-horizon", "laptop")
    rows = rows_with_tasks("mdp-horizon")
    apart = [
        row
        for row in rows
        if (row["test"]["horizon"] == 10) == (row["policy"] == "tiny")
    ]
    write_rows(file, apart)
    with pytest.raises(ExperimentError, match="tested on different tasks") as caught:
        compare("tiny", "ce", chosen, "laptop", folder)
    assert "T = 10" in caught.value.hint and "T = 20" in caught.value.hint
    old = [row for row in rows if row["test"]["horizon"] == 10]
    for row in old:
        row["result"] = {k: x for k, x in row["result"].items() if k != "returns"}
    write_rows(file, old)
    (found,) = compare("tiny", "ce", chosen, "laptop", folder)
    assert found.difference is None and "hold no values of each task" in found.note
    assert found.first == pytest.approx(found.second + 0.2)


def test_the_command_prints_what_the_function_finds(folder):
    arguments = ["experiment", "compare", "tiny", "ce", "--experiment", "mdp-horizon"]
    arguments += ["--results", str(folder)]
    printed = CliRunner().invoke(app, [*arguments, "--json"])
    assert printed.exit_code == 0, printed.output
    report = json.loads(printed.stdout)
    found = compare("tiny", "ce", [experiments()["mdp-horizon"]], "laptop", folder)
    assert report["comparisons"] == [as_row(x) for x in found]
    table = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"}).stdout
    assert "tiny against ce, gap in %" in table and "+0.20" in table
    # Tasks with one model have no worst one: the values are missing, not NaN.
    single = CliRunner().invoke(app, [*arguments, "--json", "--measure", "worst_model"])
    assert single.exit_code == 0, single.output
    for row in json.loads(single.stdout)["comparisons"]:
        assert row["first"] is row["second"] is row["difference"] is None
        assert row["note"]
    assert "has no rows" not in single.stderr
    elsewhere = [*arguments[:-1], str(folder / "missing"), "--json"]
    assert "published rows are compared" in CliRunner().invoke(app, elsewhere).stderr
    wrong = CliRunner().invoke(app, [*arguments, "--measure", "median"])
    assert wrong.exit_code == 2 and "worst_model" in wrong.output


def test_columns_that_do_not_subtract_are_explained(folder):
    found = compare("tiny", "ce", [experiments()["mdp-horizon"]], "laptop", folder)
    rows = [as_row(x) for x in found]
    assert comparison_table("tiny", "ce", "gap", rows).caption is None
    rows[1]["difference"] += 0.006
    caption = comparison_table("tiny", "ce", "gap", rows).caption
    assert caption == f"1 of 3 tests: {OTHERWISE}"


def test_a_policy_is_compared_on_its_own_data_if_there_is_such_a_run():
    first = cells(experiments()["support-quality"], "laptop")[0]

    def run(q, **test):
        cell = dataclasses.replace(
            first, data={**first.data, "q": q}, test={**first.test, **test}
        )
        return experiments()["support-quality"], [(cell, {})]

    others = {"a": run(0.6), "b": run(1.0), "c": run(1.0, seed=99)}
    assert _same_test(run(1.0)[1], others) == ["b"]
    # Without such a run, all with the same test are compared; never one of another.
    assert _same_test(run(0.8)[1], others) == ["a", "b"]
