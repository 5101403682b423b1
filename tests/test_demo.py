"""The demo, quick, from end to end, as a user types it."""

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from terminal_support import SDM, run_on_terminal

from sdm.commands.demo import next_commands
from sdm.experiments.demo_steps import QUICK, DemoConfig, StepsLeft, expected_seconds


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


def test_the_time_left_follows_the_speed_of_the_machine():
    expected = expected_seconds(DemoConfig())
    left = StepsLeft(expected)
    # The published run took 19 minutes.
    assert 900 < left.from_step("oracle data") < 1300
    tiny = expected["fine-tuning tiny"]
    left.finish("oracle data", 2 * expected["oracle data"])
    # A minute at the published speed counts beside the first 15 seconds.
    assert left.seconds("fine-tuning tiny") == pytest.approx((30 + 60) / 75 * tiny)
    left.finish("fine-tuning tiny", 2 * tiny)
    whole = (2 * (15 + tiny) + 60) / (15 + tiny + 60)
    assert whole > 1.8
    found = left.from_step("evaluating oracle")
    assert found == pytest.approx(whole * expected["evaluating oracle"])
    quick = expected_seconds(QUICK)
    assert list(quick) == list(expected) and sum(quick.values()) < 400


def test_the_commands_that_follow_use_the_paths_of_the_run():
    commands = next_commands(Path("my demo"))
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command, comments=True)
        assert words[0] == "sdm" and any("my demo" in word for word in words)
    assert "--policy" in commands[0] and "'my demo/tiny'" in commands[0]


@pytest.mark.slow
def test_an_interrupted_demo_continues_where_it_was(tmp_path):
    """Ctrl-C in a training, then a kill in an evaluation, then to the end."""
    ask = [*SDM, "demo", "--quick", "--out", "d"]
    shown, code = run_on_terminal(
        ask, tmp_path, until="step 3 of 11", send=signal.SIGINT
    )
    assert code == 130 and "`--resume` continues" in shown
    assert "Steps, with their time" in shown and "step 2 of 11" in shown
    ask.append("--resume")
    shown, code = run_on_terminal(
        ask, tmp_path, until="step 6 of 11", send=signal.SIGKILL
    )
    assert code == -signal.SIGKILL
    assert "step 1 of 11" not in shown and "step 2 of 11" not in shown
    shown, code = run_on_terminal(ask, tmp_path)
    assert code == 0 and "step 5 of 11" not in shown and "step 6 of 11" in shown
    assert "sdm eval --policy d/tiny" in shown
    assert "sdm train dpt --data d/data" in shown
    report = json.loads((tmp_path / "d" / "results.json").read_text())
    assert report["policies"]["oracle"]["gap_percent"] == 0
    assert report["policies"]["tiny"]["gap_percent"] < 5
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert not (tmp_path / "d" / "finished-steps").exists()
