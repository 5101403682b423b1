"""The site of the documentation: complete, without a broken link, and readable."""

import ast
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib

import pytest
import typer.main
from docs_support import ROOT

from sdm.cli import app

REFERENCE = ROOT / "docs" / "reference" / "python"
LOADED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?([^\" >]+)")
PHONE = 390  # px
# Every page would build the index of the search again.
NO_INDEX = "window.Worker = class extends EventTarget { postMessage() {} }"
PATIENCE = 300_000  # ms, for machines that do much else
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    # A warning, such as a broken link or anchor, is an error.
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_pages_load_nothing_from_other_servers(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 100
    for page in pages:
        for target in LOADED.findall(page.read_text(encoding="utf-8")):
            assert "//" not in target, f"{page}: {target}"


def leaves(command, path=""):
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, f"{path}-{name}".lstrip("-"))
    if not hasattr(command, "commands"):
        yield path, command


@pytest.mark.slow
def test_every_command_has_a_page_with_its_options(site):
    found = dict(leaves(typer.main.get_command(app)))
    assert {"solve", "theory-flow", "train-dpt"} <= found.keys()
    for name, command in found.items():
        page = (site / "reference/commands" / f"{name}.html").read_text("utf-8")
        for option in (o for p in command.params if not p.hidden for o in p.opts):
            assert option.upper() in page.upper(), f"{name}: {option}"
    solve = (site / "reference/commands/solve.html").read_text("utf-8")
    assert "--horizon" in solve, "an option of a config dataclass"
    family = (site / "reference/family/inventory.html").read_text("utf-8")
    assert "--penalty" in family, "an option of a family"
    feedback = (site / "reference/commands/feedback.html").read_text("utf-8")
    assert "--family-penalty" in feedback, "an option with another name here"


def origins(package):
    """Where the names that a package exports are defined, from its source."""
    path = ROOT / package.removeprefix("sdm.").replace(".", "/") / "__init__.py"
    found, public = {}, []
    if not path.is_file():
        return found, public
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            public = ast.literal_eval(node.value)
    return found, public


def origin(path):
    package, _, name = path.rpartition(".")
    return origins(package)[0].get(name, path)


def test_every_public_name_is_in_the_reference():
    text = "".join(page.read_text("utf-8") for page in REFERENCE.glob("*.md"))
    named = re.findall(r"^::: (\S+)$", text, re.M)
    known = {origin(path) for path in named}
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    for package in setup["setuptools"]["packages"]:
        for name in origins(package)[1]:
            assert origin(f"{package}.{name}") in known, f"{package}.{name}"
    assert {"sdm.solvers_jax.solve.solve", "sdm.tasks.models.MDP"} <= known
    for path in named:  # a module hides a function of its package with its name
        package, _, name = path.rpartition(".")
        module = path.removeprefix("sdm.").replace(".", "/")
        hidden = name in origins(package)[1] and (ROOT / f"{module}.py").is_file()
        assert not hidden, f"{path}: name the function, {origin(path)}"


@pytest.mark.slow
def test_files_outside_of_the_folder_become_pages(site):
    home = (site / "index.html").read_text("utf-8")
    assert 'href="tutorial.html"' in home and 'src="demo.png"' in home
    assert (site / "experiments/published/demo").is_dir(), "a folder"
    code = (site / "source/tasks/families/maintenance.py.html").read_text("utf-8")
    assert "MaintenanceFamily" in code
    results = (site / "experiments/published/index.html").read_text("utf-8")
    assert "<table>" in results.partition("<details>")[2], "a table that folds"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that does not log."""

    def log_message(self, format, *args):
        """Say nothing."""


@pytest.fixture
def address(site):
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_a_browser_shows_every_page_without_errors_or_overflow(site, address):
    from playwright.sync_api import sync_playwright

    problems = []

    def watched(browser):
        page = browser.new_page(viewport={"width": PHONE, "height": 844})
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda m: problems.append((page.url, m.type, m.text)))
        page.on("pageerror", lambda e: problems.append((page.url, "error", str(e))))
        return page

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        page = watched(browser)
        page.add_init_script(NO_INDEX)
        for each in sorted(site.rglob("*.html")):
            page.goto(f"{address}/{each.relative_to(site)}")
            found = page.evaluate("document.documentElement.scrollWidth")
            if found > PHONE:
                problems.append((page.url, f"{found} px wide"))
        page = watched(browser)
        page.goto(f"{address}/index.html")
        page.evaluate("document.querySelector('[for=__search]').click()")
        page.fill("input[name=query]", "sawtooth")
        page.wait_for_selector(".md-search-result__item")
        browser.close()
    assert not problems
