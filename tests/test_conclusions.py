"""Sentences of the report, and the answer on its first screen, follow from rows."""

import dataclasses
import re

import numpy as np
import pytest
from experiment_support import fabricated
from test_comparison import result

from sdm.experiments import report, sections
from sdm.experiments.catalogue import experiments
from sdm.experiments.claims import RULE
from sdm.experiments.comparison import as_row, compare
from sdm.experiments.conclusions import _gaps
from sdm.experiments.grid_claims import _unit
from sdm.experiments.rows import read_rows, rows_file, write_rows
from sdm.experiments.spec import Claim, ExperimentError
from sdm.experiments.summary import answers, table_of
from sdm.experiments.tables import Point
from sdm.llm.recipes import recipe_of

HORIZON = experiments()["mdp-horizon"]
SPREAD = np.linspace(-0.1, 0.1, 9)


def section_of(folder, gaps, experiment=HORIZON, without=()):
    """The section of rows in which a policy's gap is `gaps(row)`, in per cent."""
    rows = fabricated(experiment, "laptop")
    for row in rows:
        row["result"] = result(gaps(row) + SPREAD * (1 + len(row["policy"]) / 10))
        for name in without:
            row["result"].pop(name, None)
    write_rows(rows_file(folder, experiment.name, "laptop"), rows)
    return sections.section_of(experiment, "laptop", folder)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("sdm.experiments.rows.PUBLISHED", tmp_path / "none")
    monkeypatch.setattr("sdm.experiments.sections.png", lambda chart: b"x")
    return tmp_path


def better_at_ten(row):
    """`tiny` is better than the others at T = 10, equal at 20, and worse at 30."""
    if row["policy"] != "tiny":
        return 1.0
    return 1.0 + {10: -0.75, 20: 0.0, 30: 0.5}[row["test"]["horizon"]]


def test_the_conclusion_states_the_gaps_and_what_the_tests_decide(folder):
    found = section_of(folder, better_at_ten)
    assert found.conclusion[0] == (
        "The gap of `tiny` is 0.25 % (seeds 0.25 … 0.25) at T = 10, 1.00 % (seeds "
        "1.00 … 1.00) at T = 20, 1.50 % (seeds 1.50 … 1.50) at T = 30 (mean of 3 "
        "seeds); the paper's, 3 to 15 %."
    )
    assert found.conclusion[1].startswith(
        "By paired tests (corrected p < 0.05), the gap of `tiny` against that of `ce` "
        "is smaller in 1, larger in 1, undecided in 1 of 3 tests (-0.75 to +0.50 "
        "points); the gap of `tiny` against that of `bayes-imitation` is "
    )
    assert len(found.conclusion) == 2


def test_claims_are_judged_over_seeds(folder):
    claims = (
        Claim("It wins", "tiny", "ce"),
        Claim("It is small", "tiny", 1.2),
        Claim("It is quick", "tiny,test.horizon=10", 3.0, "regret"),
        Claim("It is not run", "tiny,test.horizon=11", 3.0),
    )
    experiment = dataclasses.replace(HORIZON, claims=claims, compare=())

    def gaps(row):
        return better_at_ten(row) + 0.01 * row["seed"] * (row["policy"] == "tiny")

    section_of(folder, gaps, experiment)
    file = rows_file(folder, experiment.name, "laptop")
    rows = list(read_rows(file))
    for row in rows:
        if row["policy"] == "tiny" and row["seed"] < 2:
            row["result"]["regret"] = 2.0 + row["seed"]
    write_rows(file, rows)
    conclusion = sections.section_of(experiment, "laptop", folder).conclusion
    wins, small, quick, unknown, rule = conclusion[-5:]
    assert rule == RULE
    assert unknown == (
        "It is not run: not known, since `tiny,test.horizon=11` has no row."
    )
    # Seeds add 0, 0.01 and 0.02 to the gaps of `tiny`.
    half = 4.30265 * 0.01 / 3**0.5
    assert wins == (
        "It wins: in energy, confirmed in 1 of 3 cases (T = 10: +0.74 points, "
        f"+{0.74 - half:.2f} to +{0.74 + half:.2f}), refuted in 1 of 3 cases (T = 30: "
        f"-0.51 points, {-0.51 - half:.2f} to {-0.51 + half:.2f}), undecided in 1 of 3 "
        f"cases (T = 20: -0.01 points, {-0.01 - half:.2f} to +{half - 0.01:.2f})."
    )
    assert "confirmed in 2 of 3 cases (T = 10: +0.94 points" in small
    # Two seeds have it: 3 - 2 and 3 - 3, whose mean has an interval of ± 12.7 / 2.
    assert quick == (
        "It is quick: in energy, undecided (T = 10: +0.50 in regret, -5.85 to +6.85)."
    )


def test_a_claim_across_tests_compares_each_with_another(folder):
    short, long = "tiny,test.horizon=10", "tiny,test.horizon=30"
    claims = (
        Claim("It gains", short, long, across="test.horizon"),
        Claim("It differs", short, "ce", across="test.horizon"),
        Claim("It has no such test", short, long),
    )
    experiment = dataclasses.replace(HORIZON, claims=claims, compare=())

    def gaps(row):
        return better_at_ten(row) + 0.01 * row["seed"] * (row["policy"] == "tiny")

    gains, differs, none, _ = section_of(folder, gaps, experiment).conclusion[-4:]
    # The seeds agree: each adds as much at both horizons.
    assert gains == (
        "It gains: in energy, confirmed (T = 10 against T = 30: +1.25 points, +1.25 to "
        "+1.25)."
    )
    half = 4.30265 * 0.01 / 3**0.5
    ends = f"+0.74 points, +{0.74 - half:.2f} to +{0.74 + half:.2f}"
    cases = ("T = 10", "T = 10 against T = 20", "T = 10 against T = 30")
    assert differs == (
        "It differs: in energy, confirmed in 3 of 3 cases ("
        + "; ".join(f"{case}: {ends}" for case in cases)
        + ")."
    )
    assert none.startswith("It has no such test: not known, since no test has")


def test_differences_of_a_measure_in_per_cent_are_in_points():
    assert _unit("gap_percent") == "points"
    assert _unit("worst_model_gap_percent") == "points of worst model gap"
    assert _unit("regret_exponent") == "in regret exponent"


def test_what_rows_lack_and_what_limits_them_is_said(folder):
    section_of(folder, better_at_ten)
    file = rows_file(folder, HORIZON.name, "laptop")
    rows = list(read_rows(file))
    for row in rows:
        if row["policy"] == "tiny" and row["test"]["horizon"] == 10:
            del row["result"]["returns"]
            row["remark"] = "it rained"
    write_rows(file, rows)
    found = sections.section_of(HORIZON, "laptop", folder)
    assert "of 2 tests (" in found.conclusion[1]
    assert found.conclusion[1].count(", and not known in 1") == 2
    assert {point.noted for point in found.points if point.policy == "tiny"} == {
        True,
        False,
    }
    assert found.notes == ["`tiny` at T = 10: it rained"]
    (texts,) = table_of(answers([(HORIZON, found.points)]))[1]
    assert any(text.endswith("*") for text in texts)
    worst = dataclasses.replace(HORIZON, measure="worst_model", compare=())
    found = sections.section_of(worst, "laptop", folder)
    ours = found.table.head.index("ours")
    assert {line.texts[ours] for line in found.table.lines if line.done} == set()
    assert "not known" in {line.texts[ours] for line in found.table.lines}
    assert any("rows without `worst_model_gap_percent`" in x for x in found.notes)


def test_claims_pair_the_seeds_that_both_policies_have(folder):
    claim = Claim("It wins", "tiny,test.horizon=10", "ce")
    experiment = dataclasses.replace(HORIZON, claims=(claim,), compare=())
    section_of(folder, lambda row: 1.0, experiment)
    file = rows_file(folder, experiment.name, "laptop")
    rows = [
        row
        for row in read_rows(file)
        if (row["policy"], row["seed"]) not in (("ce", 0), ("tiny", 2))
    ]
    for row in rows:
        row["result"]["gap_percent"] = row["seed"] + 2.0 * (row["policy"] == "ce")
    write_rows(file, rows)
    found = sections.section_of(experiment, "laptop", folder).conclusion[-2]
    assert found == "It wins: in energy, undecided (T = 10: +2.00 points, one seed)."
    for claim, message in (
        (Claim("It wins", "tiny", "ce", "spread"), "not known, since no test has `spr"),
        (Claim("It wins", "tiny", 1.0, "spread"), "not known"),
    ):
        asked = dataclasses.replace(experiment, claims=(claim,))
        assert message in sections.section_of(asked, "laptop", folder).conclusion[-2]
    wrong = dataclasses.replace(
        experiment, claims=(Claim("It wins", "tiny", "ce", "returns"),)
    )
    with pytest.raises(ExperimentError, match=r"`returns`: must be a number .* list"):
        sections.section_of(wrong, "laptop", folder)


def test_the_numbers_behind_it_are_those_of_the_comparison(folder):
    found = section_of(folder, better_at_ten)
    rows = [as_row(x) for x in compare("tiny", "ce", [HORIZON], "laptop", folder)]
    lines = [
        dict(zip(found.compared.head, x.texts, strict=True))
        for x in found.compared.lines
    ]
    mine = [line for line in lines if line["policies"] == "tiny against ce"]
    assert [line["test"] for line in mine] == [row["test"] for row in rows]
    for line, row in zip(mine, rows, strict=True):
        assert line["difference"] == f"{row['difference']:+.2f}"
        assert line["p"] == f"{row['p']:.2g}"
        # Corrected for two pairs of policies instead of one.
        assert float(line["p corrected"]) >= float(f"{row['p_corrected']:.2g}")
    assert len(lines) == 6


def test_what_only_uncorrected_tests_decide_is_undecided(folder):
    """Differences with p = 0.03 alone are undecided among six comparisons."""
    found = section_of(folder, lambda row: 1.0 - 0.006 * (row["policy"] == "tiny"))
    lines = [
        dict(zip(found.compared.head, x.texts, strict=True))
        for x in found.compared.lines
    ]
    assert len(lines) == 6
    for line in lines:
        if line["policies"] == "tiny against ce":
            assert float(line["p"]) < 0.05 <= float(line["p corrected"])
    assert "against that of `ce` is undecided in 3 of 3 tests" in found.conclusion[1]


def test_rows_without_values_of_each_task_decide_nothing(folder):
    found = section_of(folder, better_at_ten, without=("returns",))
    assert found.conclusion[1] == (
        "Not compared: `tiny` and `ce`; `tiny` and `bayes-imitation` (rows of an older "
        "version hold no values of each task; run their cells again)."
    )
    assert len(found.conclusion) == 2


def test_one_training_seed_is_said_to_be_one(folder):
    rows = [
        {**row, "result": result(better_at_ten(row) + SPREAD)}
        for row in fabricated(HORIZON, "laptop")
        if row["seed"] == 0
    ]
    write_rows(rows_file(folder, "mdp-horizon", "laptop"), rows)
    found = sections.section_of(HORIZON, "laptop", folder)
    assert "(one seed)" in found.conclusion[0]
    assert found.conclusion[1].endswith(
        " (6 of 6 from one training seed: another may differ)."
    )


def test_no_failure_is_not_the_proof_of_none(folder):
    """(1 - 0.14)^20 is 0.05."""
    experiment = experiments()["darkroom"]
    rows = [row for row in fabricated(experiment, "laptop") if row["seed"] == 0]
    for row in rows:
        row["result"] = {"gap_percent": 0.0, "ci_low": 0.0, "ci_high": 0.0}
        row["result"]["exact_gap_percent"] = None
    write_rows(rows_file(folder, experiment.name, "laptop"), rows)
    found = sections.section_of(experiment, "laptop", folder)
    assert (
        "0.00 % at stay, demonstrations: optimal, where none of 20 tasks has one, and "
        "up to 14 % of all can, with 95 % confidence (one seed)"
    ) in found.conclusion[0]


@pytest.mark.slow
def test_many_tests_are_summed_up_by_their_range(folder):
    experiment = experiments()["apomdp-ambiguity"]
    rows = fabricated(experiment, "laptop")
    for row in rows:
        row["result"] = result(row["test"]["models"] + SPREAD)
        for name, key in (("worst_model_gap_percent", "gap_percent"),):
            row["result"][name] = row["result"][key]
        row["result"] |= {
            f"worst_model_{end}": row["result"][end] for end in ("ci_low", "ci_high")
        }
        for name in ("returns", "optimal_returns"):
            both = [[x, x] for x in row["result"][name]]
            row["result"][f"{name}_by_model"] = both
        row["result"]["alpha"] = 1.0
    write_rows(rows_file(folder, experiment.name, "laptop"), rows)
    found = sections.section_of(experiment, "laptop", folder)
    assert found.conclusion[0] == (
        "The worst-model gap of `tiny` is between 2.00 % (seeds 2.00 … 2.00) at K = 2, "
        "α = 1 and 10.00 % (seeds 10.00 … 10.00) at K = 10, α = 1, in 9 tests (mean of "
        "3 seeds)."
    )
    title = found.figure["spec"]["layer"][0]["encoding"]["y"]["title"]
    assert title == "optimality gap in worst model, %"
    assert "in nominal model" in found.table.head


def test_the_first_screen_has_the_paper_beside_ours(folder):
    found = section_of(folder, better_at_ten)
    lines = answers([(found.experiment, found.points)])
    head, (texts,) = table_of(lines)
    assert dict(zip(head, texts, strict=True)) == {
        "paper": "Fig. 2 left",
        "experiment": "Gap by horizon, MDP",
        "paper's Llama-2-7B": "3 … 15",
        "tiny": "0.25 … 1.50",
        "SmolLM2": "1.00",
        "fewest seeds": "3",
    }
    page = report.html_page([found])
    before = page[: page.index("<section")]
    assert "0.25 … 1.50" in before and 'id="figure-summary"' in before
    assert before.count("<details>") == 0 and page.count("<details>") == 2
    text = report.markdown([found])
    assert text.index("0.25 … 1.50") < text.index("## Gap by horizon, MDP")
    beyond = dataclasses.replace(HORIZON, paper="")
    assert answers([(beyond, section_of(folder, better_at_ten, beyond).points)]) == []


@pytest.mark.slow
def test_tables_are_folded_below_the_conclusion(folder):
    found = section_of(folder, better_at_ten)
    page = report.html_page([found])
    section = page[page.index("<section") :]
    order = [
        section.index(part)
        for part in (
            "figure-mdp-horizon-laptop",
            "The gap of <code>tiny</code>",
            "Comparisons behind the conclusion (6 lines)",
            'data-file="mdp-horizon.csv"',
        )
    ]
    assert order == sorted(order)
    assert not re.search(r"\bNone\b", section.partition("<script>")[0])


def test_a_row_of_an_earlier_recipe_says_what_was_different(folder):
    rows = fabricated(HORIZON, "laptop")
    for row in rows:
        row["result"] = result(1.0 + SPREAD)
        if row["policy"] == "smollm2":
            config = recipe_of("smollm2") | {"batch_size": 64}
            row["training"] = {**(row.get("training") or {}), "config": config}
    write_rows(rows_file(folder, HORIZON.name, "laptop"), rows)
    (note,) = sections.section_of(HORIZON, "laptop", folder).notes
    assert note == (
        "`smollm2` at T = 10, T = 20, T = 30: trained with an earlier recipe: "
        "batch_size 64 (now 2)"
    )
    found = sections.section_of(HORIZON, "laptop", folder)
    head, (texts,) = table_of(answers([(found.experiment, found.points)]))
    first_screen = dict(zip(head, texts, strict=True))
    assert first_screen["SmolLM2"] == "1.00*" and first_screen["tiny"] == "1.00"


def test_a_row_that_is_older_than_an_option_was_trained_without_it(folder):
    rows = fabricated(HORIZON, "laptop")
    for row in rows:
        row["result"] = result(1.0 + SPREAD)
        if row["policy"] == "tiny":
            config = recipe_of("tiny")
            if row["seed"]:
                config = {k: x for k, x in config.items() if k != "initializer_range"}
            row["training"] = {**(row.get("training") or {}), "config": config}
    write_rows(rows_file(folder, HORIZON.name, "laptop"), rows)
    (note,) = sections.section_of(HORIZON, "laptop", folder).notes
    assert note.endswith("an earlier recipe: initializer_range not given (now 0.088)")


def test_a_row_that_does_not_record_its_recipe_is_not_called_older(folder):
    rows = fabricated(HORIZON, "laptop")
    for row in rows:
        row["result"] = result(1.0 + SPREAD)
        if row["policy"] == "smollm2":
            config = {"base": "smollm2", "support": 0, "training": {"epochs": 4}}
            row["training"] = {**(row.get("training") or {}), "config": config}
    write_rows(rows_file(folder, HORIZON.name, "laptop"), rows)
    assert sections.section_of(HORIZON, "laptop", folder).notes == []


@pytest.mark.slow
def test_tests_that_the_paper_lacks_are_on_the_first_screen_too(folder):
    experiment = experiments()["apomdp-ambiguity"]
    rows = fabricated(experiment, "laptop")
    for row in rows:
        row["result"] = result(3.0 + SPREAD)
        gap = {"gap_percent": 3.0, "ci_low": 2.0, "ci_high": 4.0}
        row["result"] |= {f"worst_model_{name}": x for name, x in gap.items()}
        del row["result"]["returns"]  # without values of each task
    write_rows(rows_file(folder, experiment.name, "laptop"), rows)
    found = sections.section_of(experiment, "laptop", folder)
    head, (texts,) = table_of(answers([(experiment, found.points)]))
    assert head == ["paper", "experiment", "tiny", "fewest seeds"]
    assert texts[0] == "Fig. 3" and texts[2:] == ("3.00", "3")


def point(x, condition, seeds):
    gaps = tuple(1.0 + i for i in range(seeds))
    empty = dict.fromkeys(Point.__dataclass_fields__)
    values = {**empty, "policy": "tiny", "x": x, "condition": condition}
    values |= {"gap": 2.0, "by_seed": gaps, "measures": {}, "seeds": seeds, "wanted": 3}
    values |= {"tested": "", "test_tasks": 9, "published": True, "noted": False}
    return Point(**values)


def test_a_sentence_says_how_many_seeds_each_gap_has():
    lead = [point(0.6, "q = 0.6", 3), point(0.8, "q = 0.8", 1)]
    assert "(1 or 3 seeds)" in _gaps(HORIZON, lead)
    assert "(mean of 3 seeds)" in _gaps(HORIZON, lead[:1])
    assert "(one seed)" in _gaps(HORIZON, lead[1:])


def test_a_value_on_the_axis_is_added_unless_the_test_says_it():
    # The demonstrations of "T = 10" are not 0, and 1.0 is the q of "q = 1".
    found = _gaps(HORIZON, [point(0, "T = 10", 1), point(1.0, "q = 1", 1)])
    assert "at T = 10, horizon T: 0," in found and "at q = 1 (" in found
    # Ten episodes are not the horizon of "T = 10", which the test does say.
    free = experiments()["oracle-free"]
    found = _gaps(free, [point(10.0, "T = 10", 1), point(30.0, "T = 10", 1)])
    for number in (10, 30):
        assert f"at T = 10, logged episodes of each training task: {number}" in found
