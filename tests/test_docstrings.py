"""The examples in docstrings are true."""

import ast
import doctest
import importlib

import pytest
from docs_support import ROOT, settings_of_users

# The main entry points, each of which has an example.
ENTRIES = (
    "solvers_jax.solve.solve",
    "solvers_jax.policy_evaluation.evaluate_policy",
    "tasks.models.MDP",
    "tasks.models.POMDP",
    "tasks.rectangular.IntervalMDP",
    "tasks.hidden_mdp.hidden_model",
    "tasks.cassandra.load_pomdp",
    "tasks.families.energy.EnergyFamily",
    "tasks.rollout.rollout",
    "tasks.belief.belief_filter",
    "tasks.registry.load_family",
    "data.logs.registry.read_logs",
)
MARK = ">>> "


def examples():
    """Examples of all modules whose source has one."""
    packages = (path.parent for path in ROOT.glob("*/__init__.py"))
    for path in sorted(each for p in packages for each in p.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if MARK in text:
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ClassDef | ast.FunctionDef):
                    if MARK in (ast.get_docstring(node) or ""):
                        yield f"{name}.{node.name}"


FOUND = sorted(set(examples()))


def test_the_main_entry_points_have_examples():
    assert set(ENTRIES) <= set(FOUND)


@pytest.mark.parametrize("path", FOUND)
def test_an_example_is_true(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module_name, _, name = path.rpartition(".")
    module = importlib.import_module(f"sdm.{module_name}")
    found = doctest.DocTestFinder(recurse=False).find(
        getattr(module, name), name, module=module, globs={}
    )
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    with settings_of_users():
        for each in found:
            runner.run(each)
    assert runner.tries and not runner.failures
