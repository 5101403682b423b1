"""Imports point downwards, and only a family's own file asks which family it is."""

import ast
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From top to bottom: a package may import those below it. `theory` stands alone.
PACKAGES = (
    *("cli", "commands", "experiments", "feedback", "llm", "evaluation", "policies"),
    *("data", "environments", "solvers_jax", "tasks", "storage"),
)
ALONE = "theory"
ABOVE_THEORY = ("cli", "commands", "experiments")
TORCH = {"torch", "transformers", "peft", "bitsandbytes", "datasets", "accelerate"}
FAMILIES = ROOT / "tasks" / "families"
# What may name families: it is no code of a family, and decides nothing by the name.
EXPORTS = {"solvers_jax/__init__.py"}


def package_files(package):
    single = ROOT / f"{package}.py"
    found = [single] if single.is_file() else sorted((ROOT / package).rglob("*.py"))
    assert found, package
    return found


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path):
    """Every module that a file imports: lazily, and for type checkers, too."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("sdm", *(p for p in parts if p != "__init__")))


def modules():
    packages = (*PACKAGES, ALONE)
    return {module_of(path): path for p in packages for path in package_files(p)}


def test_the_packages_are_all_there_are(capsys):
    with_code = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert with_code == {*PACKAGES, ALONE} - {"cli"}
    with capsys.disabled():
        print(f"\n{' > '.join(PACKAGES)}; {ALONE} stands alone")


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_downwards(package):
    below = set(PACKAGES[PACKAGES.index(package) :])
    below |= {ALONE} if package in ABOVE_THEORY else set()
    for path in package_files(package):
        for name in imports(path):
            first, _, rest = name.partition(".")
            if first == "sdm" and rest and rest != "__version__":
                target = rest.split(".")[0]
                assert target in below, f"{module_of(path)} imports {name}"


def test_theory_stands_alone():
    for path in package_files(ALONE):
        ours = {name.split(".")[1] for name in imports(path) if name.startswith("sdm.")}
        assert ours <= {ALONE, "__version__"}, path


def test_no_module_imports_itself_through_others():
    """Depth-first search for a cycle of imports, lazy ones included."""
    known = modules()
    graph = {
        module: {name for name in imports(path) if name in known and name != module}
        for module, path in known.items()
    }
    # A package's `__init__` re-exports: importing one of its modules runs it, but takes
    # nothing from it.
    finished, path_now = set(), []

    def visit(module):
        if module in path_now:
            cycle = [*path_now[path_now.index(module) :], module]
            raise AssertionError(" -> ".join(cycle))
        if module in finished:
            return
        path_now.append(module)
        for following in sorted(graph[module]):
            visit(following)
        finished.add(path_now.pop())

    for module in graph:
        visit(module)


def family_names_and_classes():
    names, classes = set(), set()
    for path in FAMILIES.glob("[!_]*.py"):
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and node.decorator_list:
                for item in node.body:
                    target = getattr(item, "target", None)
                    if isinstance(target, ast.Name) and target.id == "name":
                        names.add(item.value.value)
                        classes.add(node.name)
    return names, classes


def asks_for_a_family(tree, names, classes):
    """Expressions that depend on which family it is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "isinstance",
            "issubclass",
        ):
            kinds = {getattr(n, "id", getattr(n, "attr", "")) for n in ast.walk(node)}
            if kinds & classes:
                yield node
        if isinstance(node, ast.Compare | ast.MatchValue):
            values = {
                n.value
                for n in ast.walk(node)
                if isinstance(n, ast.Constant) and isinstance(n.value, str)
            }
            if values & names:
                yield node


def test_nothing_outside_of_a_family_asks_which_family_it_is():
    names, classes = family_names_and_classes()
    assert {"energy", "darkroom"} <= names and "EnergyFamily" in classes
    for module, path in modules().items():
        if path.parent == FAMILIES:
            continue
        for node in asks_for_a_family(tree_of(path), names, classes):
            raise AssertionError(f"{module}:{node.lineno}: {ast.unparse(node)}")


def test_the_search_for_such_questions_finds_them():
    names, classes = family_names_and_classes()
    for code in (
        "isinstance(x, EnergyFamily)",
        "isinstance(x, (A, families.DarkroomFamily))",
        "family.name == 'energy'",
        "x if kind in ('mdp', 'darkroom') else y",
    ):
        assert list(asks_for_a_family(ast.parse(code), names, classes)), code


def test_no_family_imports_another():
    for path in FAMILIES.glob("[!_]*.py"):
        others = [n for n in imports(path) if n.startswith("sdm.tasks.families.")]
        assert not others, path


@pytest.mark.parametrize(
    "package", ["solvers_jax", "theory", "tasks", "data", "policies", "evaluation"]
)
def test_packages_without_language_models_never_import_torch(package):
    for path in package_files(package):
        if path.name != "cql_training.py":  # trained by d3rlpy, which is made of torch
            assert not {name.split(".")[0] for name in imports(path)} & TORCH, path


def test_datasets_on_disk_need_no_jax():
    for name in ("data/shards.py", "storage/files.py", "storage/checks.py"):
        assert not [n for n in imports(ROOT / name) if n.startswith("jax")]


def test_the_layers_are_in_the_order_that_the_docs_say():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    places = [text.index(f"`{package}") for package in PACKAGES]
    assert all(a < b for a, b in pairwise(places))


def test_solving_and_evaluating_work_without_torch():
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
