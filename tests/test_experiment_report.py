"""Points beside the paper's, tables, figures and the report."""

import dataclasses
import json
import re

import pytest
from experiment_support import fabricated, made_of

from sdm.experiments import report, sections, tables
from sdm.experiments.catalogue import PUBLISHED, experiments
from sdm.experiments.figures import gap_figure
from sdm.experiments.grid_cells import cells
from sdm.experiments.rows import rows_file, write_rows
from sdm.experiments.section_tables import gap_table
from sdm.experiments.spec import ExperimentError, Grid


def points_of(name, profile="laptop"):
    found = [(cell, None) for cell in cells(experiments()[name], profile)]
    return tables.points(experiments()[name], found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "policy", "value", "wanted"),
    [
        ("mdp-horizon", "random", 10, 57.6),
        ("mdp-horizon", "random", 20, 49.6),
        ("mdp-horizon", "random", 30, 46.4),
        ("mdp-horizon", "tiny", 10, 3),
        ("mdp-horizon", "smollm2", 20, 15),
        ("mdp-horizon", "icl-smollm2", 10, 15.9),
        ("mdp-horizon", "icl-smollm2", 20, 31.1),
        ("mdp-horizon", "icl-smollm2", 30, 43.2),
        ("mdp-horizon", "ce", 10, None),
        ("mdp-horizon", "mean-plan", 10, None),
        # Trained on fewer tasks than the paper's, along that axis.
        ("mdp-tasks", "tiny", 1600, None),
        ("mdp-tasks", "tiny", 3200, 15),
        ("ood", "tiny", "T = 20", 6),
        ("ood", "smollm2", "T = 30", 7),
        ("ood", "tiny", "T = 10", 0),
        ("ood", "tiny", "q = 0.7, trained at q = 0.6", 10),
        # Trained otherwise than the paper's.
        ("ood", "tiny-wide", "T = 20", None),
        ("dpt", "dpt-transitions", "T = 10", None),
        ("dpt", "dpt", "T = 10", 7),
        ("dpt", "dpt", "T = 20", 26),
        ("dpt", "dpt", "T = 30", 43),
        ("dpt", "dpt", "q = 0.6", 22),
        ("dpt", "dpt", "q = 0.8", 25),
        ("dpt", "dpt", "q = 1", 26),
        ("dpt", "dpt", "K = 2, α = 1", 26),
        ("dpt", "dpt", "K = 10, α = 1", 37),
        ("dpt", "tiny", "K = 2, α = 1", 15),
        ("dpt", "tiny", "K = 10, α = 1", 22),
        ("pomdp-observation", "tiny", 0.6, 16),
        ("pomdp-observation", "tiny", 0.8, 10),
        ("pomdp-observation", "tiny", 1.0, 9),
        ("darkroom", "tiny", "stay", 5),
    ],
)
def test_the_papers_values(name, policy, value, wanted):
    (point,) = [p for p in points_of(name) if (p.policy, p.x) == (policy, value)]
    assert point.paper == wanted and point.gap is None


def test_the_papers_values_with_random_demonstrations():
    values = {(p.policy, p.facet, p.x): p.paper for p in points_of("support-quality")}
    assert values["tiny", "random", 10] == 20 and values["tiny", "optimal", 10] == 3
    assert values["tiny-mixed", "random", 10] is None


def test_seeds_make_one_point_with_an_interval_over_them():
    experiment = experiments()["mdp-horizon"]
    rows = fabricated(experiment, "paper", gap=lambda cell: 1.0 + cell.seed)
    by_key = {row["key"]: row for row in rows}
    found = [(cell, by_key[cell.key]) for cell in cells(experiment, "paper")]
    points = tables.points(experiment, found)
    assert len(points) == len(found) / 3
    (point,) = [p for p in points if (p.policy, p.x) == ("tiny", 10)]
    assert (point.gap, point.seeds, point.wanted) == (2.0, 3, 3)
    # Student's t with 2 degrees of freedom: 4.3027 times 1/√3.
    assert point.high - point.gap == pytest.approx(4.30265 / 3**0.5, abs=1e-4)
    some = [(cell, row if cell.seed == 1 else None) for cell, row in found]
    (point,) = [
        p for p in tables.points(experiment, some) if (p.policy, p.x) == ("tiny", 10)
    ]
    assert (point.gap, point.low, point.seeds, point.wanted) == (2.0, 1.5, 1, 3)


def test_policies_under_one_label_are_told_apart():
    grid = Grid(policies={"ce": "x", "bc": "x", "random": "y"}, test={"kind": "mdp"})
    found = [(cell, None) for cell in cells(made_of(grid), "laptop")]
    points = tables.points(made_of(grid), found)
    assert [point.policy for point in points] == ["x (ce)", "x (bc)", "y"]


def point_at(policy, x, gap, seeds=1):
    """A point with only what a goal is about."""
    others = {f.name: None for f in dataclasses.fields(tables.Point)}
    seen = {"policy": policy, "x": x, "gap": gap, "condition": "T = 10"}
    test = {"tested": "100 × 30", "seeds": seeds, "wanted": 3, "published": False}
    known = () if gap is None else (gap,)
    test |= {"test_tasks": 100, "noted": False}
    test |= {"by_seed": known, "measures": dict(zip(["gap"], known, strict=False))}
    return tables.Point(**{**others, **seen, **test})


GAPS = {
    "mean-plan": {None: 0.5},
    "tiny": {5: 4.0, 20: 2.5, 1600: 0.41},
    "smollm2": {5: 0.9, 80: 2.6, 1600: 0.93},
    "scratch": {5: 0.5, 1600: 3.0, 3200: None},
    "longer": {80: 2.4},
}


def test_the_number_that_a_goal_takes():
    """The least from which on every gap is within it: no lucky one before a worse."""
    experiment = dataclasses.replace(
        experiments()["pretraining"], goal=2.5, x_title="lessons"
    )
    shown = [
        point_at(p, x, gap, seeds=1 if p == "longer" else 3)
        for p, along in GAPS.items()
        for x, gap in along.items()
    ]
    assert tables.reached(experiment, shown) == (
        "Number of lessons from which every estimated gap is at most 2.5 %, among "
        "those run and without a test: `tiny` 20; `smollm2` 1,600; `scratch` more than "
        "1,600; `longer` 80 or fewer (one seed)."
    )
    assert tables.reached(experiment, shown[:1]) == ""
    assert tables.reached(dataclasses.replace(experiment, goal=None), shown) == ""
    strict = dataclasses.replace(experiment, goal=0.0)
    assert "`longer` more than 80" in tables.reached(strict, shown)


SHOWN = ("mdp-horizon", "theory", "schema", "loss", "pretraining", "ceiling")
REMARK = "this row has a remark"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A folder with a report; `loss` is not run, `schema` only in half."""
    folder = tmp_path_factory.mktemp("report")
    for name in SHOWN:
        rows = fabricated(experiments()[name], "laptop")
        if name == "mdp-horizon":
            rows[0]["remark"] = REMARK
        if name == "schema":  # half of the tests, with one of three seeds
            rows = [row for row in rows if row["seed"] == 0]
            rows = rows[: len(rows) // 2]
        kept = rows
        write_rows(rows_file(folder, name, "laptop"), [] if name == "loss" else kept)
    return folder


@pytest.fixture(scope="module")
def shown(page):
    """The sections of the report, by experiment, after it was written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdm.experiments.rows.PUBLISHED", page / "no published rows")
        chosen = [experiments()[name] for name in SHOWN]
        found = sections.sections(chosen, page, "laptop")
    report.write_report(found, page)
    return {section.name: section for section in found}


def records(section):
    """The lines of a section's table, by title."""
    table = section.table
    return [dict(zip(table.head, line.texts, strict=True)) for line in table.lines]


def test_the_report_shows_what_was_run_and_what_was_not(shown):
    missing, half, whole = shown["loss"], shown["schema"], shown["mdp-horizon"]
    assert missing.done == 0 and missing.figure is None and not missing.picture
    lines = missing.table.lines
    assert all("not run" in line.texts and not line.done for line in lines)
    assert [line.done for line in half.table.lines].count(True) == half.done == 3
    assert whole.done == whole.wanted and all(line.done for line in whole.table.lines)
    (tiny,) = [
        r for r in records(whole) if r["policy"] == "tiny" and r["horizon T"] == "20"
    ]
    assert (tiny["paper"], tiny["ours"], tiny["difference"]) == ("15", "1.00", "-14.00")
    # Half a point from each of three seeds' tasks: 0.5 √3 / 3.
    assert tiny["95 % interval"] == "0.71 … 1.29" and tiny["exact gap"] == "1.25"
    assert (tiny["trained on"], tiny["seconds"]) == ("3,200 tasks", "2")
    assert tiny["tested on"] == "100 × 30"
    assert (tiny["seeds"], tiny["seeds, from … to"]) == ("3 of 3", "1.00 … 1.00")
    assert "another machine" in whole.devices and "0" * 12 in whole.commits
    trained = [row for row in records(half) if row["policy"] == "tiny"]
    assert {row["training seconds"] for row in trained} == {"2"}  # 1.5, rounded to even
    assert {row["training tokens"] for row in trained} == {"4,321"}
    at_ten = records(shown["theory"])[1]
    assert at_ten["ours"] == "2 of 3 below it"
    assert (at_ten["bound / gap, least"], at_ten["most"]) == ("0.5", "9")
    tasks = [row["tasks"] for row in records(shown["ceiling"])]
    assert {"energy mdp", "energy pomdp", "darkroom mdp"} < set(tasks)


def values_of(description):
    """The records of a figure in Vega-Lite, wherever they stand in it."""
    (values,) = [
        found["values"]
        for found in (
            description.get("data"),
            *description.get("datasets", {}).values(),
        )
        if isinstance(found, dict) and "values" in found
    ]
    return values


def test_a_figure_shows_the_numbers_of_the_table(shown):
    found = [
        (r["source"], r["gap"], r["low"], r["high"])
        for r in values_of(shown["mdp-horizon"].figure)
        if (r["policy"], r["x"]) == ("tiny", 20)
    ]
    half = 0.5 / 3**0.5
    ours = ("ours", 1.0, pytest.approx(1 - half), pytest.approx(1 + half))
    assert found == [ours, ("paper", 15.0, None, None)]


def test_a_goal_is_marked_in_the_figure_and_stated_below_it(shown):
    marked, unmarked = shown["pretraining"], shown["mdp-horizon"]
    rules = [
        layer["data"]["values"]
        for layer in marked.figure["layer"]
        if "values" in layer.get("data", {})
    ]
    assert rules == [[{"gap": 1.0}]] and not unmarked.reached
    text, html = report.markdown([marked]), report.html_page([marked])
    assert marked.reached.startswith("Number of training tasks from which")
    assert text.index("laptop.png") < text.index(marked.reached) < text.index("| ---")
    assert "<code>smollm2-scratch-4x</code>" in html


@pytest.mark.slow
def test_the_remark_of_a_row_stands_below_the_table(shown):
    section = shown["mdp-horizon"]
    assert section.notes == [f"`random` at T = 10: {REMARK}"]
    text = report.markdown([section, shown["loss"]])
    assert text.count(REMARK) == 1 and text.index("| 30 |") < text.index(REMARK)
    assert f"<code>random</code> at T = 10: {REMARK}" in report.html_page([section])


def test_the_report_is_one_file_that_needs_no_network(page, shown):
    text = (page / "report.html").read_text()
    markup = "".join(re.split(r"<script>.*?</script>", text, flags=re.DOTALL))
    assert len(text) - len(markup) > 800_000, "the code that draws is in it"
    assert not re.search(r"""(src|href)=["'](?!data:|#)|@import|url\(""", markup)
    assert len(text) < 6_000_000
    for name in ("mdp-horizon", "theory", "ceiling"):
        picture = (page / name / "laptop.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 5_000


def test_writing_the_report_again_changes_what_is_between_the_marks(shown, tmp_path):
    section = shown["theory"]
    changed = tmp_path / "README.md"
    changed.write_text(f"before\n{report.BEGIN} old {report.END}\nafter\n")
    report.write_report([section], tmp_path)
    again = changed.read_text()
    assert again.startswith("before\n") and again.endswith("after\n")
    assert " old " not in again and "Proposition 1" in again
    changed.write_text("something else\n")
    with pytest.raises(ExperimentError, match=r"the marks .* are missing"):
        report.write_report([section], tmp_path)
    assert changed.read_text() == "something else\n"
    changed.unlink()
    (tmp_path / "report.html").write_text("<html>mine</html>")
    with pytest.raises(ExperimentError, match="is not a report of sdm"):
        report.write_report([section], tmp_path)
    assert (tmp_path / "report.html").read_text() == "<html>mine</html>"
    assert not changed.exists()


@pytest.mark.slow
def test_the_published_report_is_that_of_the_published_rows(monkeypatch):
    """`sdm experiment report --results experiments/published` changes nothing in it."""
    monkeypatch.setattr("sdm.experiments.sections.png", lambda chart: b"")
    found = sections.sections(list(experiments().values()), PUBLISHED)
    found = [
        dataclasses.replace(s, picture="x" * (s.figure is not None)) for s in found
    ]
    text = (PUBLISHED / "README.md").read_text(encoding="utf-8")
    assert text.partition(report.BEGIN)[2].strip().partition(report.END)[0].strip() == (
        report.markdown(found, PUBLISHED).strip()
    )
    for section in found:
        assert (PUBLISHED / section.name / "laptop.png").is_file() or not section.done


def test_files_of_rows_that_experiments_share_are_linked(tmp_path, monkeypatch):
    monkeypatch.setattr("sdm.experiments.rows.PUBLISHED", tmp_path / "none")
    monkeypatch.setattr("sdm.experiments.sections.png", lambda chart: b"")
    rows = fabricated(experiments()["mdp-horizon"], "laptop")
    write_rows(rows_file(tmp_path, "mdp-horizon", "laptop"), rows)
    (found,) = sections.sections([experiments()["pretraining"]], tmp_path)
    text = report.markdown([found], tmp_path)
    assert "rows of cells shared with [mdp-horizon](mdp-horizon/laptop.jsonl)" in text


def test_the_users_own_rows_come_before_the_published(tmp_path, monkeypatch):
    experiment = experiments()["loss"]
    monkeypatch.setattr("sdm.experiments.rows.PUBLISHED", tmp_path / "published")
    rows = fabricated(experiment, "laptop")
    write_rows(rows_file(tmp_path / "published", "loss", "laptop"), rows)
    mine = [{**rows[0], "seconds": 99.0}]
    write_rows(rows_file(tmp_path / "mine", "loss", "laptop"), mine)
    (own,) = sections.sections([experiment], tmp_path / "mine")
    assert (own.done, own.published) == (len(rows), len(rows) - 1)
    # A line is a mean over five seeds, or three, one of which is the user's own.
    assert [row["seconds"] for row in records(own)] == ["21"] + ["2"] * 3
    assert [line["from"] for line in records(own)] == ["published"] * 4
    assert f"{len(rows) - 1} of them published" in report.markdown([own])
    # Of the published rows themselves that need not be said.
    (alone,) = sections.sections([experiment], tmp_path / "published")
    assert alone.published == 0 and "from" not in alone.table.head


@pytest.mark.slow
def test_smoke_is_shown_only_where_there_is_nothing_larger(tmp_path, monkeypatch):
    monkeypatch.setattr("sdm.experiments.rows.PUBLISHED", tmp_path / "none")
    experiment, shown = experiments()["loss"], []
    for profile in ("smoke", "laptop", "paper"):
        rows = fabricated(experiment, profile)
        write_rows(rows_file(tmp_path, "loss", profile), rows)
        found = sections.sections([experiment], tmp_path)
        shown.append([section.profile for section in found])
    assert shown == [["smoke"], ["laptop"], ["laptop", "paper"]]
    page = report.html_page(found)
    assert page.count('id="figure-loss-laptop"') == 1
    assert page.count('id="figure-loss-paper"') == 1
    (alone,) = sections.sections([experiment], tmp_path / "nothing", "smoke")
    assert f"paper: none of {len(cells(experiment, 'paper'))} cells" in alone.elsewhere


def test_own_rows_of_smoke_are_shown_beside_published_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("sdm.experiments.rows.PUBLISHED", tmp_path / "published")
    experiment, mine = experiments()["loss"], tmp_path / "mine"
    for folder, profile in (("published", "smoke"), ("published", "laptop")):
        rows = fabricated(experiment, profile)
        write_rows(rows_file(tmp_path / folder, "loss", profile), rows)
    assert [x.profile for x in sections.sections([experiment], mine)] == ["laptop"]
    write_rows(rows_file(mine, "loss", "smoke"), fabricated(experiment, "smoke"))
    shown = [x.profile for x in sections.sections([experiment], mine)]
    assert shown == ["smoke", "laptop"]


def test_numbers_ascend_along_the_axis_whatever_the_order_of_cells():
    experiment = experiments()["self-training"]
    todo = cells(experiment, "laptop")
    rows = fabricated(experiment, "laptop")
    shown = tables.points(experiment, list(zip(todo, rows, strict=True)))
    figure = json.dumps(gap_figure(experiment, shown).to_dict())
    assert '"sort": [0, 1, 2, 4, 8]' in figure


def test_the_measures_of_a_family_are_columns_with_means_over_seeds():
    experiment = experiments()["bandits"]
    todo = cells(experiment, "laptop")
    rows = fabricated(experiment, "laptop")
    bare = gap_table(
        experiment, tables.points(experiment, list(zip(todo, rows, strict=True)))
    )
    assert not {"exponent", "SuffFail"} & set(bare.head)
    for cell, row in zip(todo, rows, strict=True):
        if cell.policy == "ucb":
            row["result"]["regret_exponent"] = 0.5 + 0.1 * cell.seed
    made = tables.points(experiment, list(zip(todo, rows, strict=True)))
    table = gap_table(experiment, made)
    at = table.head.index("exponent")
    shown = {line.texts[at] for line in table.lines if "ucb" in line.texts}
    others = {line.texts[at] for line in table.lines if "ucb" not in line.texts}
    # Of the seeds 0, 1 and 2, with three significant digits.
    assert shown == {"0.600"} and others == {""} and "SuffFail" not in table.head


def test_a_panel_has_more_than_one_gap_if_any_has():
    experiment = experiments()["bandits"]
    every = list(
        zip(cells(experiment, "laptop"), fabricated(experiment, "laptop"), strict=True)
    )
    alone = [each for each in every if each[0].policy == "selftrain-warm"]

    def panels(found):
        figure = gap_figure(experiment, tables.points(experiment, found))
        return figure.to_dict()["facet"]["sort"]

    assert "Δ = 0.2, T = 100" in panels(every)
    assert not any("temperature" in name for name in panels(every))
    assert len(panels(alone)) == 6 and "temperature = 1.3" in panels(alone)[0]
