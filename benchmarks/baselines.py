"""Benchmark of all policies without training: 100 tasks x 30 episodes x T = 20.

`python benchmarks/baselines.py [--setting mdp] [--horizon 20]` runs every policy that
fits twice in one process: first with compilation, then without. It times the shared
benchmark (tasks, oracle, demonstrations), preparing a policy, its episodes, and the
comparison of each decision to that of the oracle.
"""

import argparse
import itertools
import time

import jax

from sdm.commands.console import start_jax
from sdm.data.agreement import agreement
from sdm.data.benchmark import Benchmark, EvaluationConfig, make_benchmark
from sdm.policies.registry import names, prepare
from sdm.tasks.families.energy import EnergyFamily
from sdm.tasks.rollout import rollout, task_keys
from sdm.tasks.streams import Stream, stream_key


def seconds_of(name: str, bed: Benchmark) -> tuple[float, float, float]:
    """Return the seconds to prepare a policy, play it, and compare it to the oracle."""
    config, times = bed.config, [time.perf_counter()]
    made = prepare(name, bed)
    jax.block_until_ready((jax.tree.leaves(made.policy), made.value))
    times.append(time.perf_counter())
    keys = task_keys(stream_key(config.seed, Stream.TEST_EPISODES), config.tasks)
    played = rollout(
        keys,
        bed.tasks.world,
        made.policy,
        horizon=config.horizon,
        episodes=config.trajectories,
    )
    jax.block_until_ready(played)
    times.append(time.perf_counter())
    agreement(bed, played)
    times.append(time.perf_counter())
    making, playing, comparing = (b - a for a, b in itertools.pairwise(times))
    return making, playing, comparing


def main() -> None:
    """Print the table of one kind of model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setting", default="mdp", choices=("mdp", "pomdp", "apomdp"))
    parser.add_argument(
        "--horizon", type=int, default=20, help="Decisions per episode."
    )
    parser.add_argument("--tasks", type=int, default=100, help="Number of tasks.")
    options = parser.parse_args()
    start_jax(every_core=True)
    config = EvaluationConfig(
        EnergyFamily(), options.horizon, options.tasks, 30, kind=options.setting
    )
    start = time.perf_counter()
    bed = make_benchmark(config)
    print(f"{config.kind}, T = {config.horizon}, {config.tasks} x 30 episodes")
    print(f"benchmark, with compilation: {time.perf_counter() - start:.1f} s\n")
    print("| policy | first run, s | prepare, s | play, s | compare, s |")
    print("|---|---|---|---|---|")
    total = [0.0] * 4
    for name in names(config.family, config.kind):
        first, row = sum(seconds_of(name, bed)), seconds_of(name, bed)
        total = [a + b for a, b in zip(total, (first, *row), strict=True)]
        print(f"| {name} | {first:.2f} | " + " | ".join(f"{x:.2f}" for x in row) + " |")
    print("| **all** | " + " | ".join(f"{x:.2f}" for x in total) + " |")


if __name__ == "__main__":
    main()
