"""Every option of every command with bad values: one line that says what is wrong.

The options come from the commands themselves, those of families and plugins included,
so that a new option is tested as soon as there is one.
"""

import dataclasses
import random

import numpy as np
import pytest
from bad_input import bad_values, commands, fault_of, is_argument, options, write_files
from logged_worlds import drawn_logs, random_world
from random_models import tiger
from typer.testing import CliRunner

from sdm.cli import app
from sdm.data.logs.write import write_logs
from sdm.solvers_jax import save_pomdp, solve
from sdm.solvers_jax.solution_files import save_solution

# A short valid call of each command; a bad value replaces or follows its own.
CALLS = {
    "solve": "solve --tasks 1 --horizon 2 --trajectories 1",
    "solve pomdp": "solve --setting pomdp --tasks 1 --horizon 1 --trajectories 1",
    "solve model": "solve --model tiger.POMDP --horizon 1",
    "estimate": "estimate logs.csv",
    "estimate l1": "estimate logs.csv --estimator l1",
    "estimate kl": "estimate logs.csv --estimator kl",
    "plan": "plan logs.csv --out new --overwrite",
    "demonstrate": "demonstrate wards.csv --family wards --out new --overwrite",
    "ope": "ope --logs logs.csv --policy policy.npz",
    "eval": "eval --policy random --tasks 1 --trajectories 1 --horizon 2",
    "export": "export solution --out new --overwrite",
    "experiment compare": "experiment compare ce mean-plan",
    "experiment report": "experiment report mdp-horizon --results rows --out new",
}
# Commands that train: a valid option would take minutes, and the base is damaged.
REFUSED = {
    "train dpt": "train dpt --data nothing --out new",
    "train cql": "train cql --data nothing --out new",
    "finetune": "finetune --data nothing --base tiny --out new",
    "selftrain": "selftrain --base nothing/at/all --out new",
    "feedback": "feedback --judge nothing",
    "novelty": "novelty --judge nothing",
    "forgetting": "forgetting --base nothing/at/all --out new",
    "merge": "merge nothing --out new",
}
ALONE = {"demo", "doctor", "experiment list", "experiment run"}  # no short call
ALONE |= {f"theory {x}" for x in ("regret", "validate", "flow", "sample-size")}
ALONE |= {"theory beyond"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad input")
    world = random_world(0, ends=True)
    write_logs(drawn_logs(world, 0, 30), folder / "logs.csv")
    logs = drawn_logs(world, 0, 30)
    wards = dataclasses.replace(logs, task=np.arange(30) % 2, tasks=("north", "south"))
    write_logs(wards, folder / "wards.csv")
    words = ["estimate", str(folder / "wards.csv"), "--out", str(folder / "wards")]
    made = CliRunner().invoke(app, words)
    assert made.exit_code == 0, made.output
    np.savez(folder / "policy.npz", probabilities=world.policy)
    save_pomdp(tiger(), folder / "tiger.POMDP")
    save_solution(solve(tiger(), horizon=1), folder / "solution")
    return folder


@pytest.fixture
def files(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return write_files(place / "bad files")


def bad_calls(text, files):
    """Return every call with one bad value, with its option and the value."""
    words, found = text.split(), []
    first = words.index("--") if "--" in words else 1 + (words[0] in GROUPS)
    for option in options(words):
        for value in bad_values(option, files):
            if is_argument(option):
                rest = words[first + 1 :] if words[first][:1] != "-" else words[first:]
                call = [*words[:first], *rest, "--", value]
            else:
                call = [*words, f"{option.opts[0]}={value}"]
            found.append((call, (option, value)))
    return found


GROUPS = {words[0] for words in commands() if len(words) > 1}


def check(text, files, count, seed):
    calls = bad_calls(text, files)
    random.Random(f"{text} {seed}").shuffle(calls)
    faults = {}
    for words, cause in calls[:count]:
        if fault := fault_of(words, cause if text in CALLS.values() else None):
            faults[" ".join(words)] = fault
    assert not faults, "\n".join(f"{k!r}: {v}" for k, v in faults.items())


def test_every_command_is_called():
    called = {text.split(" --")[0] for text in (*CALLS.values(), *REFUSED.values())}
    for words in commands():
        name = " ".join(words)
        assert name in ALONE or any(x.startswith(name) for x in called), name


@pytest.mark.parametrize("name", ["estimate", "train dpt", "novelty"])
def test_a_few_bad_values(name, files):
    check((CALLS | REFUSED)[name], files, 10, "fast")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CALLS, *REFUSED])
def test_many_bad_values(name, files):
    check((CALLS | REFUSED)[name], files, 100, "slow")
