"""Benchmark of the POMDP and APOMDP solvers: time per task, and a comparison.

Prints two Markdown tables. Energy tasks are solved in one batch, in double precision,
after a run that compiles; every core is a JAX device. The arithmetic floor is the
multiply-adds of the two large products (beliefs with α-vectors, beliefs with sawtooth
points) at the rate of a single-precision matrix product on all cores. It excludes
selecting, gathering, sorting and the small products.

The comparison is with value iteration of pomdp-py (`pip install 'sdm-llm[bench]'`) on
its tiger problem. It takes minutes for more than three decisions.
"""

import argparse
import contextlib
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdm.solvers_jax import APOMDP, POMDP, EnergyFamily, solve
from sdm.tasks.rollout import task_keys

HORIZON = 10


def seconds(function: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return the seconds of a first and a second run, and the result of the second."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        found = jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return times[0], times[1], found


def product_rate() -> float:
    """Return multiply-adds per second of a single-precision matrix product."""
    n = 2000
    a = np.ones((n, n), np.float32)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return float(n**3 / min(times))


def products(model: POMDP | APOMDP, solution: Any) -> float:
    """Return the multiply-adds of the large products, over all tasks and rounds."""
    *_, actions, states, symbols = model.observation.shape
    actions -= 1  # the solver merges the two identical charge actions
    models = model.observation.shape[1] if isinstance(model, APOMDP) else 1
    kinds = 2 if isinstance(model, POMDP) else 1  # α-vectors, and sawtooth points
    kinds_of_plans = models if isinstance(model, APOMDP) else 1
    each = models * actions * symbols * states * kinds * kinds_of_plans
    total, before = 0.0, symbols
    for number, after in enumerate(solution.rounds.points):
        tasks = int(np.isfinite(solution.rounds.value[..., number]).sum())
        total += tasks * (HORIZON - 1) * each * (before**2 + after**2)
        before = after
    return total


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pomdps", type=int, default=64, help="Number of POMDPs.")
    parser.add_argument("--apomdps", type=int, default=64, help="Number of APOMDPs.")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    print(f"T = {HORIZON}, {platform.machine()}, {jax.local_device_count()} devices\n")
    print("| tasks | answer | ms per task | arithmetic floor, ms | compile, s |")
    print("|---|---|---|---|---|")
    rate = product_rate()
    for q in (0.9, 0.8, 0.7, 0.6):
        family = EnergyFamily(q=q)
        p = family.parameters(jax.random.key(0), options.pomdps, split="train")["p"]
        model = family.pomdp(p)
        first, then, found = seconds(lambda: solve(model, horizon=HORIZON))  # noqa: B023
        gap = ((found.upper - found.lower) / found.value).max()
        answer = f"largest certified gap {100 * float(gap):.2f} %"
        row(
            f"{options.pomdps} POMDPs, q = {q}", answer, model, found, first, then, rate
        )
    family = EnergyFamily(models=5)
    keys = task_keys(jax.random.key(1), options.apomdps)
    ambiguous, _ = family.apomdp(keys, p[: options.apomdps])
    first, then, found = seconds(lambda: solve(ambiguous, horizon=HORIZON))
    answer = f"largest estimated error {float(found.error.max()):.3f}"
    name = f"{options.apomdps} APOMDPs, K = 5, α = 0.5"
    row(name, answer, ambiguous, found, first, then, rate)
    print("\n| tiger | value | seconds |\n|---|---|---|")
    for horizon in (3, 10):
        for method in ("points", "exact"):
            _, then, found = seconds(
                lambda: solve(tiger(), horizon=horizon, method=method)  # noqa: B023
            )
            name = f"sdm, `{method}`, T = {horizon}"
            print(f"| {name} | {float(found.value):.6f} | {then:.4f} |")
    with contextlib.suppress(ImportError):
        tiger_by_pomdp_py()


def row(
    name: str,
    answer: str,
    model: POMDP | APOMDP,
    found: Any,
    first: float,
    then: float,
    rate: float,
) -> None:
    """Print one row of the first table."""
    tasks = len(found.value)
    floor = products(model, found) / rate / tasks
    print(
        f"| {name} | {answer} | {1e3 * then / tasks:.1f} | {1e3 * floor:.2f} "
        f"| {max(0.0, first - then):.0f} |",
        flush=True,
    )


def tiger() -> POMDP:
    """Return the tiger problem (Kaelbling, Littman, Cassandra, 1998)."""
    transition = np.full((2, 3, 2), 0.5)
    transition[:, 0] = np.eye(2)
    observation = np.full((3, 2, 2), 0.5)
    observation[0] = [[0.85, 0.15], [0.15, 0.85]]
    reward = np.array([[-1.0, -100.0, 10.0], [-1.0, 10.0, -100.0]])
    start = np.array([0.5, 0.5])
    return POMDP(
        jnp.asarray(transition),
        jnp.asarray(observation),
        jnp.asarray(reward),
        jnp.asarray(start),
        0.95,
    )


def tiger_by_pomdp_py() -> None:
    """Time one decision of pomdp-py, planned over three stages."""
    import pomdp_py
    from pomdp_py.problems.tiger.tiger_problem import TigerProblem, TigerState

    left, right = TigerState("tiger-left"), TigerState("tiger-right")
    belief = pomdp_py.Histogram({left: 0.5, right: 0.5})
    agent = TigerProblem(0.15, left, belief).agent
    planner = pomdp_py.ValueIteration(horizon=3, discount_factor=0.95)
    start = time.perf_counter()
    planner.plan(agent)
    took = time.perf_counter() - start
    print(f"| pomdp-py, value iteration, T = 3 | not reported | {took:.4f} |")


if __name__ == "__main__":
    main()
