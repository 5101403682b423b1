"""Load: time and memory of `sdm solve` against tasks, horizon, models, states, devices.

Every case is a process of its own, so that its peak of resident memory is its own.
`seconds` are those of solving and writing, without imports and compilation, as the
command reports them. A line after each series has the exponents of time and of memory
above that of the smallest case, fitted on a log–log scale.

`python benchmarks/load.py` takes about an hour on two cores; `--quick` is a tenth of
the tasks.
"""

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MIB = 1024  # kilobytes, the unit of ru_maxrss on Linux
SDM = (sys.executable, "-m", "sdm.cli")

# Reads a dataset a batch at a time, and prints episodes and the sum of rewards.
READ = """
import json, sys
import pyarrow.compute as pc
import pyarrow.dataset
from pathlib import Path
data = pyarrow.dataset.dataset([str(x) for x in Path(sys.argv[1]).glob("*.parquet")])
episodes, total = 0, 0.0
for batch in data.to_batches(columns=["reward"], batch_size=10_000):
    episodes += len(batch)
    total += pc.sum(pc.list_flatten(batch["reward"])).as_py() or 0.0
print(json.dumps({"episodes": episodes, "total": total}))
"""


def measured(command: Sequence[str], cores: int | None = None) -> dict[str, Any]:
    """Run a command that prints JSON, and add its seconds and its peak of memory.

    Args:
        command: the command.
        cores: number of cores that it may use; None for all.

    """

    def limit() -> None:
        if cores is not None:
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])

    start = time.monotonic()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, preexec_fn=limit)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
        out.seek(0)
        found: dict[str, Any] = json.loads(out.read())
    found["wall"] = time.monotonic() - start
    found["peak"] = usage.ru_maxrss / MIB
    return found


def solve(*options: object, cores: int | None = None) -> dict[str, Any]:
    """Run `sdm solve` with options."""
    return measured([*SDM, "solve", *map(str, options), "--json"], cores)


def line(name: str, found: dict[str, Any]) -> None:
    """Print a row of the table."""
    times = f"{found['seconds']:.1f} | {found['compile_seconds']:.0f}"
    whole = f"{found['wall']:.0f} | {found['peak']:,.0f}"
    print(f"| {name} | {found['tasks']:,} | {times} | {whole} |", flush=True)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of a least-squares line on a log–log scale."""
    x, y = np.log(sizes), np.log(np.maximum(values, 1e-3))
    return float(np.polyfit(x, y, 1)[0])


def series(name: str, cases: Sequence[tuple[float, list[object]]]) -> None:
    """Run a series of cases, and print a row for each and the exponents."""
    every = []
    for size, options in cases:
        every.append(solve(*options))
        line(f"{name} = {size:,}", every[-1])
    sizes = [size for size, _ in cases]
    time_of = exponent(sizes, [x["seconds"] for x in every])
    memory = exponent(sizes, [x["peak"] for x in every])
    print(f"| *exponents of {name}* | | {time_of:.2f} | | | {memory:.2f} |", flush=True)


def digest(folder: Path) -> str:
    """Return a digest of the shards of a dataset."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.parquet")):
        found.update(path.read_bytes())
    return found.hexdigest()


def together(folder: Path, options: list[object]) -> Iterator[tuple[str, Any]]:
    """Yield whether two processes write the same dataset as one, and their seconds."""
    one, two = folder / "one", folder / "two"
    alone = solve(*options, "--out", one)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    start = time.monotonic()
    command = [*SDM, "solve", *map(str, options), "--out", str(two), "--distributed"]
    processes = [
        subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            env={
                **os.environ,
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(number),
            },
        )
        for number in range(2)
    ]
    codes = [process.wait() for process in processes]
    yield "exit codes", codes
    yield "seconds of one process", round(alone["wall"])
    yield "seconds of two", round(time.monotonic() - start)
    yield "byte-identical", digest(one) == digest(two)


def main() -> None:
    """Run the cases and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="A tenth of the tasks.")
    share = 10 if parser.parse_args().quick else 1
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores; memory in MiB\n")
    print(
        "| case | tasks | seconds | compile | wall | peak |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        written = work / "written"
        sizes = [x // share for x in (1_000, 10_000, 100_000)]
        episodes: list[object] = ["--trajectories", 10, "--overwrite", "--out", written]
        series(
            "MDPs, 10 episodes each", [(n, ["--tasks", n, *episodes]) for n in sizes]
        )
        read = measured([sys.executable, "-c", READ, str(written)])
        pomdp: list[object] = ["--setting", "pomdp", "--q", 0.7]
        few: list[object] = ["--trajectories", 2, "--overwrite", "--out", work / "few"]
        sizes = [x // share for x in (100, 1_000, 10_000)]
        series("POMDPs", [(n, [*pomdp, "--tasks", n, *few]) for n in sizes])
        mdps: list[object] = ["--tasks", 10_000 // share]
        horizons = (10, 20, 40, 80)
        series("horizon, MDPs", [(t, [*mdps, "--horizon", t]) for t in horizons])
        some: list[object] = ["--tasks", 64]
        series(
            "horizon, POMDPs",
            [(t, [*pomdp, *some, "--horizon", t]) for t in (5, 10, 20)],
        )
        sets: list[object] = ["--setting", "apomdp", *some]
        series("models K, APOMDPs", [(k, [*sets, "--K", k]) for k in (2, 5, 10)])
        garnet: list[object] = ["--family", "garnet", "--tasks", 100]
        states = (10, 100, 1_000)
        series("states, MDPs", [(n, [*garnet, "--states", n]) for n in states])
        for count in (1, cores):
            found = solve(*pomdp, "--tasks", 256, cores=count)
            line(f"POMDPs, devices = {count}", found)
        print(
            f"\n{read['episodes']:,} episodes were read a batch at a time in "
            f"{read['wall']:.1f} s with {read['peak']:,.0f} MiB.\n"
        )
        for name, value in together(work, ["--tasks", 10_000 // share]):
            print(f"- two processes, one dataset: {name} {value}")


if __name__ == "__main__":
    main()
