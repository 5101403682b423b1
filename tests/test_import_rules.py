"""Data flow one way: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TORCH = {"torch", "transformers", "peft", "bitsandbytes", "datasets", "accelerate"}


def imports(path, *, top_level_only=False):
    """Modules that a file names in its import statements."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module


def files(package):
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("package", ["solvers_jax", "theory", "baselines"])
def test_the_halves_without_language_models_never_import_torch(package):
    for path in files(package):
        if path.name != "cql.py":  # trained by d3rlpy, which is made of torch
            assert not {name.split(".")[0] for name in imports(path)} & TORCH, path


def test_theory_stands_alone_and_solvers_know_no_language_model():
    for path in files("theory"):
        assert not [
            n for n in imports(path) if n.startswith(("sdm.solvers", "sdm.llm"))
        ]
    for path in files("solvers_jax"):
        above = ("sdm.llm", "sdm.policies", "sdm.theory", "sdm.cli")
        assert not [n for n in imports(path) if n.startswith(above)], path


def test_datasets_on_disk_need_no_jax():
    for name in ("shards", "storage"):
        found = imports(ROOT / f"solvers_jax/{name}.py")
        assert not [n for n in found if n.startswith("jax")]
        assert {n for n in found if n.startswith("sdm")} <= {"sdm.storage.files"}


def test_nothing_imports_the_experiments():
    for package in ("solvers_jax", "theory", "baselines", "llm"):
        for path in files(package):
            assert not [n for n in imports(path) if n.startswith("sdm.experiments")]


def test_solving_and_evaluating_baselines_work_without_torch():
    code = (
        "import sys\n"
        "class NotInstalled:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {sorted(TORCH)}:\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, NotInstalled())\n"
        "from typer.testing import CliRunner; from sdm.cli import app\n"
        "for words in ('solve --tasks 2 --json', 'eval --policy ce --tasks 2'):\n"
        "    result = CliRunner().invoke(app, words.split())\n"
        "    assert result.exit_code == 0, result.output\n"
        "missing = CliRunner().invoke(app, ['eval', '--policy', 'icl:smollm2'])\n"
        "assert missing.exit_code == 1 and 'pip install' in missing.stderr\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
