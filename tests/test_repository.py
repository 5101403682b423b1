"""Files for contributors name commands, versions and files that exist."""

import re
from pathlib import Path

import pytest
import yaml

from sdm import __version__

ROOT = Path(__file__).parents[1]


def read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def targets():
    return set(
        re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    )


def test_the_workflow_runs_the_same_commands_as_ci_and_contributors():
    jobs = read(".github/workflows/checks.yml")["jobs"]
    ran = {
        step["run"] for job in jobs.values() for step in job["steps"] if "run" in step
    }
    assert ".ci/run" in ran
    made = {word for line in ran for word in line.removeprefix("make").split()}
    assert {"check", "docs", "test-all"} <= made
    assert made - {".ci/run"} <= targets()
    assert jobs["test"]["strategy"]["matrix"]["python"][0] == "3.11"
    assert "make test" in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_pages_for_contributors_name_targets_that_exist():
    for page in ("CONTRIBUTING.md", "README.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        calls = re.findall(r"(?:^|`)make ([a-z -]+)", text, re.MULTILINE)
        named = {word for call in calls for word in call.split()}
        assert named and named <= targets(), page


def test_the_citation_has_the_version():
    cited = read("CITATION.cff")
    assert cited["version"] == __version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {__version__} ({cited['date-released']})" in changes


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))
)
def test_issue_templates_have_what_a_form_needs(path):
    form = read(path.relative_to(ROOT))
    assert form["name"] and form["description"]
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids)) and all(
        f["attributes"]["label"] for f in form["body"]
    )
