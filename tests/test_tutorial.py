"""The tutorial runs, and says what is true."""

import sys
from pathlib import Path

import pytest
from docs_support import blocks, report, run_command, run_python, save_files

PAGE = "docs/tutorial.md"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    save_files(PAGE)
    yield tmp_path
    sys.modules.pop("workshop", None)


def commands():
    return [
        line
        for _, _, text in blocks(PAGE, "console")
        for line in text.strip().splitlines()
    ]


def shown(name):
    """Value of a line that the page shows of a report."""
    lines = (line for _, _, text in blocks(PAGE, "text") for line in text.splitlines())
    cells = [[c.strip() for c in line.split("│")[1:3]] for line in lines if "│" in line]
    return float(dict(cells)[name])


def untitled():
    return [text for _, title, text in blocks(PAGE, "python") if not title]


@pytest.mark.slow
def test_the_arrays_are_solved_as_the_page_says(folder, capsys):
    names = {}
    _, exact, robust = untitled()
    run_python(exact, names)
    run_python(robust, names)
    assert float(names["solution"].value) == pytest.approx(10.70, abs=0.005)
    assert names["solution"].policy[:, 1].tolist() == [1] * 18 + [0, 0]
    certain = float(names["robust"].value)
    assert certain == pytest.approx(6.03, abs=0.005)
    assert capsys.readouterr().out.count(f"{certain:.6f}"[:6]) == 2, (
        "the plan is robust"
    )


def test_the_first_command_reports_what_the_table_says(folder):
    found = report(commands()[0])
    assert found["value_mean"] == pytest.approx(2.961, abs=5e-4)
    assert found["lower_mean"] == found["upper_mean"] and found["gap_max"] == 0
    assert found["random_gap_percent"] == pytest.approx(58.01, abs=5e-3)


@pytest.mark.slow
def test_the_machine_is_solved_played_and_acted_on(folder, capsys):
    found = report(commands()[1])
    for name in ("value", "lower", "upper", "simulated_mean"):
        assert found[name] == pytest.approx(shown(name), rel=1e-5), name
    assert found["action_name"] == "run" and Path("machine.png").is_file()
    run_python(untitled()[0], {})
    printed = capsys.readouterr().out
    assert "repair" in printed and printed in [text for _, _, text in blocks(PAGE)]


@pytest.mark.slow
def test_a_fine_tuned_model_learns_the_family(folder):
    *before, evaluation = commands()[2:]
    for command in before:
        run_command(command)
    gaps = {
        name: found["gap_percent"]
        for name, found in report(evaluation)["policies"].items()
    }
    assert gaps["run"] < gaps["mean-plan"] < gaps["random"]
