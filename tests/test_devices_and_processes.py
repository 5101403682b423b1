"""One device or several, one process or several: the same answers, byte for byte."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ON_DEVICES = """
import sys
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
import numpy as np
from random_models import random_mdp, random_pomdp
from sdm.solvers_jax import solve
assert jax.local_device_count() == int(sys.argv[1])
shape = {"states": 3, "actions": 2, "symbols": 2, "batch": (8,)}
hidden = solve(random_pomdp(2, **shape), horizon=4, points=32)
np.savez(
    sys.argv[2],
    mdp=solve(random_mdp(1, 8), horizon=4).state_value,
    pomdp=hidden.value,
    plans=hidden.plans.vector,
)
"""


def run(arguments, folder, **environment):
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def finished(process):
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


@pytest.mark.slow
def test_tasks_are_spread_over_all_local_devices(tmp_path):
    reference = str(Path(__file__).parent / "reference")
    found = []
    for devices in ("1", "4"):
        process = run(
            ["-c", ON_DEVICES, devices, f"{devices}.npz"],
            tmp_path,
            PYTHONPATH=reference,
        )
        code, _, err = finished(process)
        assert code == 0, err
        found.append(dict(np.load(tmp_path / f"{devices}.npz")))
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name], err_msg=name)


def solve_together(folder, *options, count=2):
    """The same command in `count` processes on the loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        run(
            ["-m", "sdm.cli", "solve", *options, "--distributed"],
            folder,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES=str(count),
            JAX_PROCESS_ID=str(index),
        )
        for index in range(count)
    ]


@pytest.mark.parametrize(
    "setting", ["mdp", pytest.param("pomdp", marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_two_processes_write_what_one_writes(setting, tmp_path):
    options = ["--setting", setting, "--tasks", "7", "--batch-size", "2"]
    options += ["--horizon", "3", "--trajectories", "2", "--json", "--out"]
    together = [finished(p) for p in solve_together(tmp_path, *options, "two")]
    assert [code for code, _, _ in together] == [0, 0], together
    assert '"processes": 2' in together[0][1] and together[1][1] == ""
    code, _, err = finished(run(["-m", "sdm.cli", "solve", *options, "one"], tmp_path))
    assert code == 0, err
    names, others = (
        sorted(
            path.relative_to(tmp_path / folder)
            for path in (tmp_path / folder).rglob("*")
            if path.is_file()
        )
        for folder in ("one", "two")
    )
    assert names == others and len(names) == 5  # four shards and the manifest
    for name in names:
        one, two = (
            (tmp_path / folder / name).read_bytes() for folder in ("one", "two")
        )
        assert one == two, name


def test_where_the_first_cannot_begin_nobody_does(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("keep")
    processes = solve_together(tmp_path, "--tasks", "4", "--out", "taken")
    (first, _, said), (second, _, also_said) = map(finished, processes)
    assert first == 2 and "`taken` exists already" in said
    assert second == 1 and "the first process failed" in also_said
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "set JAX_COORDINATOR_ADDRESS"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES = 'two'"),
        ({"JAX_COORDINATOR_ADDRESS": "nonsense"}, "'nonsense': must be host:port"),
    ],
)
def test_who_takes_part_must_be_said(environment, message, tmp_path):
    command = ["-m", "sdm.cli", "solve", "--distributed", "--tasks", "2", "--out", "x"]
    code, _, err = finished(run(command, tmp_path, **environment))
    assert code == 2 and message in err and not list(tmp_path.iterdir())
