"""The tutorial on logs runs, and says what is true."""

import pytest
from docs_support import blocks, report, run_command, run_python

PAGE = "docs/tutorial_logs.md"


def console():
    return [text.strip().splitlines() for _, _, text in blocks(PAGE, "console")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ((_, _, script),) = blocks(PAGE, "python")
    run_python(script, {})
    return tmp_path


def test_a_table_becomes_a_plan_with_bounds(folder):
    (describe,), (made, valued), models, _ = console()
    run_command(describe)
    found = report(made)
    assert found["behavior"] < found["lower"] <= found["estimate"]
    assert found["lower_confounded"] < found["behavior"]
    values = report(valued)["estimators"]
    assert abs(values["fqe"]["value"] - found["estimate"]) < 2 * found["error"]
    assert values["wpdis"]["effective_sample_size"] < 1
    for command in models:
        run_command(command)
    assert len(list((folder / "sites").glob("*.npz"))) == 12


@pytest.mark.slow
def test_a_language_model_acts_on_estimated_sites(folder):
    for block in console():
        for command in block:
            run_command(command)
    assert (folder / "run").is_dir()
