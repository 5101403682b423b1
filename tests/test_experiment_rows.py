"""Rows on disk: written, found, refused; those published with the code."""

import json
import multiprocessing
import re

import pytest
from experiment_support import fabricated

from sdm.experiments import sections, time_left
from sdm.experiments.catalogue import PUBLISHED, experiments
from sdm.experiments.grid_cells import cells
from sdm.experiments.rows import (
    add_row,
    found_rows,
    known_rows,
    read_rows,
    rows_file,
    seconds_spent,
    write_rows,
)
from sdm.experiments.spec import UNSPELLED, ExperimentError
from sdm.experiments.time_left import TimeLeft


@pytest.mark.slow
def test_every_published_row_has_its_cell_and_missing_ones_are_counted(
    tmp_path, monkeypatch
):
    """No row is orphaned; what was not run is said to be."""
    monkeypatch.setattr("sdm.experiments.sections.png", lambda chart: b"")
    for name, experiment in experiments().items():
        found = cells(experiment, "laptop")
        by_name = {(cell.key, cell.policy): cell for cell in found}
        by_key = set(by_name)
        for row in read_rows(rows_file(PUBLISHED, name, "laptop")):
            cell = by_name.pop((row["key"], row["policy"]))
            spec = {part: row[part] for part in cell.spec}
            test = {**UNSPELLED, **spec["test"]}  # a row may omit a test's defaults
            assert {**spec, "test": test} == {
                **cell.spec,
                "test": {**UNSPELLED, **cell.test},
            }
            assert re.fullmatch(r"[0-9a-f]{12}", row["commit"]), "uncommitted code"
        shown = found_rows(experiment, "laptop", tmp_path)
        done = [row for _, row in shown if row is not None]
        assert all(row["published"] for row in done)
        # An equal cell of another experiment fills a gap.
        assert {key for key, _ in by_key - by_name.keys()} <= {x["key"] for x in done}
        section = sections.section_of(experiment, "laptop", tmp_path)
        assert (section.done, section.wanted) == (len(done), len(shown))
        assert section.where.startswith(f"{len(done)} of {len(shown)} cells run")


def test_no_cell_is_published_with_two_results():
    gaps: dict[str, list[float]] = {}
    for row in known_rows(PUBLISHED):
        if row["profile"] == "laptop" and "result" in row:
            gaps.setdefault(row["key"], []).append(row["result"]["gap_percent"])
    assert len(gaps) > 1000 and max(map(len, gaps.values())) > 2
    # Sums in another order differ in the last digits.
    assert all(max(x) - min(x) < 1e-6 for x in gaps.values())


def test_the_newest_of_several_rows_of_a_cell_is_shown_everywhere(
    tmp_path, monkeypatch
):
    """Seeds of two recipes are not averaged, in whichever experiment they are."""
    monkeypatch.setattr("sdm.experiments.rows.PUBLISHED", tmp_path / "none")
    for name, finished in (("dpt", "2026-11-02"), ("mdp-horizon", "2026-11-01")):
        rows = fabricated(experiments()[name], "laptop")
        for row in rows:
            row["finished"] = finished
        write_rows(rows_file(tmp_path, name, "laptop"), rows)
    for name in ("dpt", "mdp-horizon"):
        found = found_rows(experiments()[name], "laptop", tmp_path)
        shared = [row for cell, row in found if cell.policy == "tiny" and row]
        shared = [row for row in shared if row["test"]["kind"] == "mdp"]
        assert len(shared) == 9
        assert {row["finished"] for row in shared} == {"2026-11-02"}


def test_a_row_of_the_same_cell_is_found_in_any_experiment(tmp_path, monkeypatch):
    """Cells of `dpt` that `mdp-horizon` has run are not shown as not run."""
    monkeypatch.setattr("sdm.experiments.rows.PUBLISHED", tmp_path)
    rows = fabricated(experiments()["mdp-horizon"], "laptop")
    write_rows(rows_file(tmp_path, "mdp-horizon", "laptop"), rows)
    found = found_rows(experiments()["dpt"], "laptop", tmp_path / "mine")
    done = [(cell.policy, cell.value("test.horizon")) for cell, row in found if row]
    assert done == [("tiny", horizon) for horizon in (10, 20, 30) for _ in range(3)]
    # Policies without training have the same cells in every profile: one profile's rows
    # are not shown as half of another's.
    found = found_rows(experiments()["mdp-horizon"], "paper", tmp_path / "mine")
    assert not any(row for _, row in found)


def test_a_damaged_row_is_named_and_an_old_one_refused(tmp_path):
    file = rows_file(tmp_path, "loss", "smoke")
    whole = fabricated(experiments()["loss"], "smoke")[0]
    write_rows(file, [whole, {k: whole[k] for k in whole.keys() - {"seconds"}}])
    with pytest.raises(ExperimentError, match="line 2: invalid row: no seconds"):
        read_rows(file)
    for line in ("[1]", "{"):
        file.write_text(f"{line}\n")
        with pytest.raises(ExperimentError, match="line 1: invalid row: no JSON"):
            read_rows(file)
    del whole["version"]
    file.write_text(json.dumps(whole) + "\n")
    with pytest.raises(ExperimentError, match="must be 2, found 1") as caught:
        read_rows(file)
    assert "move the results folder away" in caught.value.hint


@pytest.mark.slow
def test_processes_that_run_at_the_same_time_keep_each_others_rows(tmp_path):
    rows = fabricated(experiments()["loss"], "laptop")
    order = [row["key"] for row in rows]
    file = rows_file(tmp_path, "loss", "laptop")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        jobs = [pool.apply_async(add_row, (file, row, order)) for row in rows * 10]
        for job in jobs:
            job.get(60)
    assert read_rows(file) == rows


def test_rows_are_written_in_the_order_of_their_cells(tmp_path):
    rows = fabricated(experiments()["loss"], "laptop")
    order = [row["key"] for row in rows]
    file = rows_file(tmp_path, "loss", "laptop")
    for row in reversed(rows):
        add_row(file, row, order)
    assert read_rows(file) == rows
    assert add_row(file, rows[0], order[:2]) == rows[:2], "of these keys"
    assert read_rows(file) == rows


def test_a_training_that_cells_share_is_counted_once():
    one, other = fabricated(experiments()["loss"], "laptop")[:2]
    assert seconds_spent([one, other]) == pytest.approx(1.5 + 2 * 0.5)
    alone = {**other, "training": None}
    assert seconds_spent([one, alone]) == pytest.approx(2.0 + 2.0)


def test_the_iterations_of_a_training_are_counted_once():
    one = fabricated(experiments()["loss"], "laptop")[0]
    played = one["seconds"] - one["training"]["seconds"]
    rows = []
    for until in (3.0, 7.0, 5.0):
        training = {**one["training"], "seconds": until, "selection": {"kept": until}}
        rows.append({**one, "seconds": played + until, "training": training})
    assert seconds_spent(rows) == pytest.approx(3 * played + 7.0)


def test_the_time_left_learns_from_rows_and_from_the_pace():
    everything = cells(experiments()["mdp-horizon"], "laptop")
    todo = [cell for cell in everything if cell.learner == "finetune"][:4]
    unknown = time_left.UNKNOWN
    row = {"key": todo[0].key, "profile": "laptop", "policy": "x", "seconds": 600.0}
    trained = TimeLeft(todo, [{**row, "training": {"seconds": 450.0}}], lambda _: True)
    assert trained() == pytest.approx(150 + 3 * unknown)
    left = TimeLeft(todo, [row])
    before = left(todo[0], 1e-9, 5.0)
    assert before == pytest.approx(600 + 3 * unknown)
    assert left(todo[0], 0.5, 305.0) == pytest.approx(before - 300)
    # Twice as slow as expected, which shows before the cell is done.
    slower = (before - 300) * (600 + unknown) / (300 + unknown)
    assert left(todo[0], 0.5, 605.0) == pytest.approx(slower)
    left.done(todo[0], 1205.0)
    assert left() == pytest.approx(3 * unknown * (1200 + 60) / (600 + 60))
    for at, cell in enumerate(todo[1:]):
        left(cell, 0.0, 2000.0 + at)
        left.done(cell, 2001.0 + at)
    assert left() == 0


def test_the_time_of_a_cell_is_that_of_its_other_seeds():
    found = cells(experiments()["from-logs"], "laptop")
    everything = [c for c in found if c.learn["episodes"] == 300]
    naive = [c for c in everything if c.learn["planner"] == "naive"]
    assert [c.seed for c in naive] == list(range(20)), "one condition"
    (slow,) = [c for c in everything if c.learn["planner"] == "robust"][:1]
    rows = [
        {**c.spec, "key": c.key, "profile": "laptop", "policy": c.policy, "seconds": s}
        for c, s in ((naive[0], 3.0), (naive[1], 5.0), (slow, 70.0))
    ]
    assert TimeLeft([naive[2]], rows)() == 4.0
    other = next(c for c in everything if c.learn["planner"] == "pooled")
    assert TimeLeft([other], rows)() == 5.0, "the median of all"
    assert TimeLeft([slow, naive[0]], rows)() == 73.0, "their own"


def test_what_was_done_before_or_takes_no_time_shows_no_pace():
    everything = cells(experiments()["mdp-horizon"], "laptop")
    (learned, *_) = [cell for cell in everything if cell.learner == "finetune"]
    (plain, other, *_) = [cell for cell in everything if cell.learner == "untrained"]
    unknown, at_once = time_left.UNKNOWN, time_left.AT_ONCE
    left = TimeLeft([learned, plain, other], [])
    assert left() == unknown + 2 * at_once
    left(plain, 0.0, 0.0)
    left.done(plain, 30.0)  # everything was compiled
    assert left() == unknown + at_once
    left(learned, 0.0, 30.0)  # makes its data until 90, and resumes where it was
    assert left(learned, 0.6, 90.0) == pytest.approx(0.4 * unknown + at_once)
    assert left(learned, 0.8, 102.0) == pytest.approx(0.2 * unknown + at_once)
    left.skip(learned)
    assert left() == pytest.approx(at_once)
