"""Commands that are killed again and again end as if they were not.

`test_kills` covers `storage` at every file operation; here whole commands are killed.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from bad_input import call
from file_events import killed_at

from sdm.cli import __file__ as cli

KILLS = 20  # of each command, four times five in a row
# What differs from run to run.
VOLATILE = {"seconds", "per_second", "runtime", "provenance", "environment", "versions"}
VOLATILE |= {"device", "commit", "sha256", "time", "finished"}
VOLATILE |= {"out", "path", "logs", "data", "run"}
TINY = "--base tiny --texts-per-task 1 --epochs 1"
LOGS = "episode,step,observation,action,reward,done\n" + "".join(
    f"{e},{t},{'ab'[(e + t) % 2]},{'xy'[e % 3 == 0]},{(e * t) % 3},{t == 2}\n".lower()
    for e in range(20)
    for t in range(3)
)
# Command -> its words, and whether it can be resumed. OUT is its output.
COMMANDS = {
    "solve": (
        "solve --tasks 6 --horizon 3 --trajectories 2 --batch-size 2 --out OUT",
        True,
    ),
    "eval": (
        "eval --policy random --policy icl:tiny --tasks 2 --trajectories 1 --horizon 2 "
        "--out OUT.json",
        True,
    ),
    "estimate": ("estimate LOGS --out OUT", False),
    "plan": ("plan LOGS --out OUT", False),
    "train dpt": (
        "train dpt --data DATA --support 1 --steps 20 --width 8 --layers 1 --out OUT",
        True,
    ),
    "finetune": (f"finetune --data DATA {TINY} --out OUT", True),
    "selftrain": (
        f"selftrain {TINY} --iterations 1 --scenarios 6 --episodes 3 --keep 1 "
        "--horizon 3 --start-scenarios 8 --random-trajectories 2 --support 1 "
        "--test-tasks 2 --test-trajectories 1 --invalid-limit 1 --out OUT",
        True,
    ),
    "experiment run": (
        "experiment run SPEC --profile smoke --results OUT",
        True,
    ),
}
SPEC = """
title = "Killed"
question = "?"
x = "test.horizon"
x_title = "T"
[[cells]]
policies = { random = "random", ce = "ce" }
test = { kind = "mdp", horizon = [2, 3] }
seeds = [0]
"""
# Commands whose file operations, all of them, take minutes.
LONG = ("finetune", "selftrain")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "logs.csv").write_text(LOGS)
    (folder / "killed.toml").write_text(SPEC)
    words = ["solve", "--tasks", "6", "--horizon", "3", "--trajectories", "3"]
    code, _, err = call([*words, "--out", str(folder / "data")])
    assert code == 0, err
    return folder


@pytest.fixture(scope="module")
def uninterrupted(inputs, tmp_path_factory):
    """Return a command's output and seconds without a kill; each runs once."""
    known = {}

    def of(name):
        if name not in known:
            folder, start = tmp_path_factory.mktemp("whole"), time.monotonic()
            done = subprocess.run(
                process(name, inputs, folder / "out"), capture_output=True, check=False
            )
            assert done.returncode == 0, done.stderr
            known[name] = found(folder), time.monotonic() - start
        return known[name]

    return of


def words_of(name, inputs, out, *, again=False):
    words, resumable = COMMANDS[name]
    places = {"OUT": out, "OUT.json": f"{out}.json", "LOGS": inputs / "logs.csv"}
    places |= {"DATA": inputs / "data", "SPEC": inputs / "killed.toml"}
    resume = ["--resume"] if again and resumable else []
    return [*(str(places.get(word, word)) for word in words.split()), *resume]


def process(name, inputs, out, **how):
    return [sys.executable, cli, *words_of(name, inputs, out, **how)]


def found(folder):
    """Return what a command wrote, without what differs from run to run."""
    contents = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix in (".lock", ".holder"):
            continue
        name = str(path.relative_to(folder))
        if path.suffix == ".json":
            contents[name] = plain(json.loads(path.read_text()), folder)
        elif path.suffix == ".jsonl":
            rows = map(json.loads, path.read_text().splitlines())
            contents[name] = [plain(row, folder) for row in rows]
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                contents[name] = {k: x.tolist() for k, x in arrays.items()}
        elif path.suffix in (".parquet", ".safetensors", ".csv"):
            if "__sdm__" not in name:
                contents[name] = path.read_bytes()
        else:
            contents[name] = "there"
    return contents


def plain(value, folder):
    if isinstance(value, dict):
        return {
            k: plain(x, folder)
            for k, x in value.items()
            if not any(part in k for part in VOLATILE)
        }
    if isinstance(value, str):
        return value.replace(str(folder), "FOLDER")
    return [plain(x, folder) for x in value] if isinstance(value, list) else value


def check_state(folder, name, whole):
    """Check that what has its final name is complete, and what has not is refused."""
    if name == "experiment run":  # its rows are complete, one by one
        for path in folder.glob("out/killed/*.jsonl"):
            rows = whole["out/killed/smoke.jsonl"]
            assert all(
                row in rows for row in found(folder)[str(path.relative_to(folder))]
            )
        return
    for path in folder.iterdir():
        if path.name in ("out", "out.json"):
            mine = {n: x for n, x in found(folder).items() if n.startswith(path.name)}
            assert {n: mine.get(n) for n in whole} == whole
        elif path.name == "out.partial" and name in ("solve", "finetune", "train dpt"):
            check_refused(name, path)


def check_refused(name, partial):
    """Check that the unfinished folder of a command is no input of another one."""
    if not (partial / "plan.json").is_file():  # killed before there was anything
        return
    words = {
        "solve": ["finetune", "--base", "tiny", "--out", "x", "--data", str(partial)],
        "train dpt": ["eval", "--policy", f"dpt:{partial}"],
        "finetune": ["eval", "--policy", str(partial)],
    }[name]
    code, _, err = call(words)
    assert code == 2 and "is the unfinished output of a command" in err, err
    assert "hint: repeat that command, with `--resume`" in err


def to_the_end(name, inputs, folder, whole):
    """Run a killed command to its end, and compare with the uninterrupted run."""
    code, _, err = call(words_of(name, inputs, folder / "out", again=True))
    if code:  # the kill came after it was complete
        assert "complete" in err or "exists already" in err, err
    mine = found(folder)
    assert {n: mine.get(n) for n in whole} == whole
    assert {n for n in mine if "/work/" not in n} <= {n for n in whole}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in LONG])
def test_a_kill_at_any_file_operation(name, inputs, uninterrupted, tmp_path):
    whole, _ = uninterrupted(name)
    base, kills, killed = tmp_path / "base", 0, True
    while killed:
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir()
        killed = True
        with killed_at(base, kills):
            code, _, err = call(words_of(name, inputs, base / "out"))
            assert code == 0, err
            killed = False
        check_state(base, name, whole)
        if killed:
            to_the_end(name, inputs, base, whole)
        kills += 1
    assert kills > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_kills_at_random_moments(name, inputs, uninterrupted, tmp_path):
    whole, seconds = uninterrupted(name)
    chance = random.Random(f"kill {name}")
    for turn in range(KILLS // 5):
        folder = tmp_path / str(turn)
        folder.mkdir()
        for kill in range(5):
            started = subprocess.Popen(
                process(name, inputs, folder / "out", again=kill > 0),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            with started:
                try:
                    started.wait(chance.uniform(0, seconds))
                except subprocess.TimeoutExpired:
                    os.killpg(started.pid, signal.SIGKILL)
                err = started.stderr.read().decode()
            assert "Traceback" not in err, err
            check_state(folder, name, whole)
        to_the_end(name, inputs, folder, whole)
