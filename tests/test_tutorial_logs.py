"""The tutorial on logs runs, and says what is true."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdm.cli import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tutorial_logs.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), re.S)


def run(command):
    program, *arguments = shlex.split(command)
    assert program == "sdm"
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, f"{command}\n{found.output}"
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (script,) = blocks("python")
    exec(compile(script, "tutorial", "exec"), {})
    return tmp_path


def test_a_table_becomes_a_plan_with_bounds(folder):
    describe, plan, models, _ = blocks("console")
    run(describe.strip())
    made, valued = plan.strip().splitlines()
    found = json.loads(run(f"{made} --json").stdout)
    assert found["behavior"] < found["lower"] <= found["estimate"]
    assert found["lower_confounded"] < found["behavior"]
    values = json.loads(run(f"{valued} --json").stdout)["estimators"]
    assert abs(values["fqe"]["value"] - found["estimate"]) < 2 * found["error"]
    assert values["wpdis"]["effective_sample_size"] < 1
    for command in models.strip().splitlines():
        run(command)
    assert len(list((folder / "sites").glob("*.npz"))) == 12


@pytest.mark.slow
def test_a_language_model_acts_on_estimated_sites(folder):
    for block in blocks("console"):
        for command in block.strip().splitlines():
            run(command)
    assert (folder / "run").is_dir()


def test_links_of_the_page_exist():
    for target in re.findall(r"\]\((\w+\.md)\)", PAGE.read_text("utf-8")):
        assert (PAGE.parent / target).is_file(), target


def test_the_examples_of_the_format_run(folder):
    page = PAGE.with_name("logs.md").read_text("utf-8")
    for code in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(compile(code, "logs.md", "exec"), {})
    assert (folder / "energy.csv").is_file()
