"""Every experiment in seconds, kills, two stages of training, and browsers: slow."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from experiment_support import Quiet, fabricated

from sdm.experiments import report, sections
from sdm.experiments.artifacts import Artifacts
from sdm.experiments.catalogue import experiments
from sdm.experiments.grid_cells import cells
from sdm.experiments.origin import origin_of
from sdm.experiments.origins.finetune import first_stage
from sdm.experiments.rows import read_rows, rows_file, write_rows
from sdm.experiments.runner import run_experiment
from sdm.experiments.study import studies

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of transformers, as it runs
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Where all experiments of this module leave their rows."""
    return tmp_path_factory.mktemp("results")


@pytest.mark.filterwarnings("ignore:.*trained with family = estimated; evaluated with")
@pytest.mark.filterwarnings("ignore:.*trained with mean_concentration = 0.1; eval")
@pytest.mark.parametrize("name", experiments())
def test_every_experiment_runs(name, results):
    outcome = run_experiment(experiments()[name], "smoke", results, Quiet())
    assert not outcome.failed
    found = cells(experiments()[name], "smoke")
    assert outcome.new == len({cell.key for cell in found})
    for row in outcome.rows:
        json.dumps(row, allow_nan=False)
        if row["learner"] in studies():
            assert studies()[row["learner"]].result(row)
            assert len(row.get("cells", range(90))) == 90  # of Proposition 1
            continue
        gap, policy = row["result"]["gap_percent"], row["policy"]
        if policy == "oracle" and row["learner"] == "untrained":
            assert gap == 0
        if policy == "random":
            assert gap > 10  # of returns of either sign, more than 100
        trained = row["learner"] not in ("untrained", "icl")
        assert (row["training"] is not None) == trained


def begin(*words, cwd):
    return subprocess.Popen(
        [sys.executable, "-m", "sdm.cli", "experiment", *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_run_continues_where_it_was(tmp_path):
    words = ("run", "support-count", "--profile", "smoke", "--json")
    first = begin(*words, cwd=tmp_path)
    file = tmp_path / "results/support-count/smoke.jsonl"
    deadline = time.monotonic() + 120
    while not file.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    done = len(read_rows(file))
    assert 1 <= done < 3, "killed in the middle"
    second = begin(*words, "--resume", cwd=tmp_path)
    out, said = second.communicate()
    assert second.returncode == 0, said
    assert f"{done} of 3 cells are already done" in said and "3 of 3: " in said
    assert "Traceback" not in said
    rows = json.loads(out)["rows"]
    assert rows == read_rows(file) and len(rows) == 3


def test_a_cell_may_be_trained_in_two_stages(tmp_path):
    from sdm.llm.recipes import recipe_of
    from sdm.llm.runs import load_run, read_run
    from sdm.llm.tiny import tiny_model

    (cell,) = [
        c for c in cells(experiments()["darkroom"], "smoke") if "base" in c.learn
    ]
    # Of a single step, the learning rate would be that of the warm-up's start: 0. At
    # the recipe's rate, the loss of so few texts rises, and the first weights are kept.
    slowly = {"epochs": 4, "learning_rate": 2e-4}
    cell = dataclasses.replace(cell, learn={**cell.learn, **slowly})
    stage, artifacts = first_stage(cell), Artifacts(tmp_path)
    made = origin_of(cell)
    policy = made.policy(cell, artifacts)
    short, long = made.folder(stage, artifacts), made.folder(cell, artifacts)
    assert short.is_dir() and Path(policy.name) == long
    header = read_run(long)
    assert header.config.base == str(short / "model") and header.horizon == 5
    # It starts from where the first stage ended, a step away, and not from random
    # weights.
    own, first = (load_run(folder).model.state_dict() for folder in (long, short))
    spread = recipe_of("tiny")["initializer_range"]
    fresh = tiny_model(0, initializer_range=spread).state_dict()
    name = "model.layers.0.mlp.up_proj.weight"
    near = (own[name] - first[name]).abs().mean()
    assert 0 < near < (first[name] - fresh[name]).abs().mean() * 3
    assert (own[name] - fresh[name]).abs().mean() > near
    parts = policy.training["first"]
    assert policy.training["tokens"] > parts["tokens"] > 0
    shorter = {**cell.learn["first"], "horizon": 3}
    other = dataclasses.replace(cell, learn={**cell.learn, "first": shorter})
    assert made.folder(other, artifacts) != long


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PAGES = ("mdp-horizon", "theory", "darkroom", "ceiling", "pretraining")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of some experiments."""
    folder = tmp_path_factory.mktemp("report")
    chosen = [experiments()[name] for name in PAGES]
    for experiment in chosen:
        rows = fabricated(experiment, "laptop")
        write_rows(rows_file(folder, experiment.name, "laptop"), rows)
    report.write_report(sections.sections(chosen, folder, "laptop"), folder)
    return folder


@pytest.fixture
def browser():
    """A real browser without a screen, and without a network."""
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=quiet)
        yield started
        started.close()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_browser_draws_every_figure_without_a_complaint(page, browser):
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    said, asked = [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto((page / "report.html").as_uri())
    opened.wait_for_function(
        "() => document.querySelectorAll('figure > img').length === 0", timeout=60_000
    )
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert opened.locator("#figure-summary svg").first.is_visible()
    figures = opened.locator("figure:not(#figure-summary)")
    assert figures.count() == len(PAGES)
    for i in range(figures.count()):
        drawn = figures.nth(i).locator("svg").first
        drawn.scroll_into_view_if_needed()
        assert drawn.is_visible()
        box = drawn.bounding_box()
        assert box["width"] > 200 and box["height"] > 150
        # Something is drawn in it: symbols of points.
        assert figures.nth(i).locator("svg path").count() > 10
    # A point's values are shown where the mouse is on it.
    opened.locator("#mdp-horizon-laptop svg path[aria-label*='tiny']").first.hover()
    assert opened.locator("#vg-tooltip-element").inner_text().count("tiny")
    # Wide tables scroll by themselves: the page does not.
    assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_without_scripts_the_pictures_are_shown(page, browser):
    opened = browser.new_context(java_script_enabled=False).new_page()
    opened.goto((page / "report.html").as_uri())
    pictures = opened.locator("figure > img")
    assert pictures.count() == len(PAGES) + 1
    for i in range(pictures.count()):
        assert pictures.nth(i).is_visible()
        assert pictures.nth(i).bounding_box()["width"] > 200
