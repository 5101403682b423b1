"""The demo, quick, from end to end, as a user types it."""

import json
import subprocess
import sys

import pytest

from sdm.experiments.demo import QUICK, DemoConfig


@pytest.mark.slow
def test_the_quick_demo_runs_and_its_table_makes_sense(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sdm.cli", "demo", "--quick", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    gaps = {name: row["gap_percent"] for name, row in report["policies"].items()}
    assert list(gaps) == [
        "random",
        "always-work",
        "icl:smollm2",
        "smollm2 fine-tuned",
        "tiny",
        "mean-plan",
        "ce",
        "oracle",
    ]
    # 25 tasks of 4 episodes: bounds far outside the noise of what they must tell apart.
    assert gaps["oracle"] == 0 and 45 < gaps["random"] < 70
    assert gaps["tiny"] < 5 and gaps["ce"] < 4
    assert gaps["smollm2 fine-tuned"] < gaps["icl:smollm2"]
    assert "paper" not in report["policies"]["random"]
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert {"results.json", "gaps.csv", "gaps.png", "gaps.pdf", "tiny", "data"} <= names
    assert json.loads((tmp_path / "demo" / "results.json").read_text()) == report
    lines = (tmp_path / "demo" / "gaps.csv").read_text().splitlines()
    assert len(lines) == 9 and lines[1].startswith("random,")
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_the_quick_demo_is_a_smaller_demo():
    for name in ("tasks", "tiny_texts_per_task", "smollm2_tasks", "test_tasks"):
        assert getattr(QUICK, name) < getattr(DemoConfig(), name)
