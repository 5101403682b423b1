"""A package that registers a family through an entry point, from tasks to a gap."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from own_module import how_to_family, installed, working_folder
from typer.testing import CliRunner

from sdm.cli import app
from sdm.data.shards import read_manifest

ROOT = Path(__file__).parents[1]
PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "clinic"
version = "1.0"

[project.entry-points."sdm.families"]
clinic-treatment = "clinic.treatment:Treatment"
"""
SOLVE = "solve --family clinic-treatment --tasks 20 --levels 4 --horizon 5 --json"
EVAL = (
    "eval --family clinic-treatment --tasks 5 --levels 4 --horizon 5 --policy ce "
    "--policy random --json"
)


def test_a_registered_family_works_by_its_name(tmp_path):
    with (
        working_folder(tmp_path, own=how_to_family()),
        installed(tmp_path, {"clinic-treatment": "own:Treatment"}),
    ):
        solved = CliRunner().invoke(app, [*SOLVE.split(), "--out", "data"])
        shown = CliRunner().invoke(
            app, "solve --family clinic-treatment --help".split()
        )
    assert solved.exit_code == 0, solved.output
    assert "--a-min" in shown.output and "treatment A helps" in shown.output
    header = read_manifest(tmp_path / "data")
    assert header["family"] == "clinic-treatment"
    assert header["family_config"]["levels"] == 4


@pytest.mark.slow
def test_an_installed_package_works_in_a_fresh_environment(tmp_path):
    package = tmp_path / "source" / "clinic"
    package.mkdir(parents=True)
    (package.parent / "pyproject.toml").write_text(PYPROJECT)
    (package / "__init__.py").write_text("")
    (package / "treatment.py").write_text(how_to_family())
    python, empty = environment(tmp_path / "venv"), tmp_path / "empty"
    empty.mkdir()
    # A copy, since building leaves files beside the sources.
    for source in (copy_of_this_repository(tmp_path / "copy"), package.parent):
        install = "install --quiet --no-deps --no-build-isolation --no-index"
        pip = [sys.executable, "-m", "pip", "--python", str(python), *install.split()]
        run([*pip, str(source)], empty)
    where = run([python, "-c", "import sdm; print(sdm.__file__)"], empty)
    assert Path(where.strip()).is_relative_to(tmp_path / "venv")
    command = python.with_name("sdm")
    solved, evaluated = (
        json.loads(run([command, *words.split()], empty)) for words in (SOLVE, EVAL)
    )
    assert solved["family"] == "treatment" and solved["tasks"] == 20
    assert evaluated["config"]["family"] == "clinic-treatment"
    gaps = {name: each["gap_percent"] for name, each in evaluated["policies"].items()}
    assert gaps["ce"] < gaps["random"] < 100 and gaps["random"] > 10


def environment(folder):
    """Make a virtual environment that borrows the packages of this one."""
    run([sys.executable, "-m", "venv", "--without-pip", folder], folder.parent)
    python = folder / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = run([python, "-c", code], folder).strip()
    # Paths in a .pth file are searched, but .pth files in them, such as that of an
    # editable installation of this package, are not read.
    borrowed = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (Path(packages) / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    return python


def copy_of_this_repository(folder):
    """Copy the files that git does not ignore."""
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in run(git, ROOT).splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def run(words, folder):
    """Run a program; return what it printed."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, words)),
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
