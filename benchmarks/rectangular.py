"""Benchmark of the robust solvers: certified gaps, and times apart from compilation.

Prints a Markdown table: the smallest lower and the largest upper bound, the largest gap
of a task, the time of a second solve, and by how much the first took longer. Tiger and
crying baby have horizons after which little is left: γ^T R_max/(1 - γ) is 0.005 and
0.00002. The energy tasks are solved in one batch. All runs use one CPU device and
double precision.
"""

import platform
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdm.solvers_jax import POMDP, EnergyFamily, IntervalPOMDP, solve


def tiger() -> POMDP:
    """Return the tiger problem (Kaelbling, Littman, Cassandra, 1998)."""
    moved = np.full((2, 3, 2), 0.5)
    moved[:, 0] = np.eye(2)
    seen = np.full((3, 2, 2), 0.5)
    seen[0] = [[0.85, 0.15], [0.15, 0.85]]
    paid = np.array([[-1.0, -100, 10], [-1, 10, -100]])
    transition, observation, reward = map(jnp.asarray, (moved, seen, paid))
    return POMDP(transition, observation, reward, jnp.asarray([0.5, 0.5]), 0.95)


def crying_baby() -> POMDP:
    """Return the crying baby with three symbols of RPOMDPModels.jl."""
    moved = np.zeros((2, 2, 2))
    moved[:, 0, 1] = moved[0, 1, 0] = 1  # states hungry and full, actions feed and wait
    moved[1, 1] = [0.1, 0.9]
    seen = np.array([[[0.3, 0.6, 0.1], [0.8, 0.1, 0.1]]] * 2)
    paid = np.array([[-15.0, -10], [-5, 0]])
    transition, observation, reward = map(jnp.asarray, (moved, seen, paid))
    return POMDP(transition, observation, reward, jnp.asarray([0.0, 1.0]), 0.9)


def row(
    name: str,
    model: IntervalPOMDP,
    horizon: int,
    warm_up: IntervalPOMDP | None = None,
    **options: Any,
) -> None:
    """Solve twice and print the bounds, the first and the second time.

    `warm_up` is solved the first time instead, to compile.
    """
    times = []
    for task in (warm_up or model, model):
        start = time.perf_counter()
        found = jax.block_until_ready(solve(task, horizon=horizon, **options))
        times.append(time.perf_counter() - start)
    lower, upper = np.asarray(found.lower), np.asarray(found.upper)
    gap = (upper - lower) / np.maximum(np.abs(lower), np.abs(upper))
    bounds = f"{lower.min():.4f} … {upper.max():.4f}"
    print(
        f"| {name} | {horizon} | {bounds} | {100 * gap.max():.3f} % "
        f"| {times[1]:.1f} | {'' if warm_up else f'{times[0] - times[1]:.1f}'} |",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    jax.config.update("jax_enable_x64", True)
    print(f"{platform.processor() or platform.machine()}, JAX {jax.__version__}\n")
    print("| task | T | bounds | largest gap | seconds | compilation |")
    print("|---|---|---|---|---|---|")
    for width in (0.0, 0.001, 0.1):
        model = IntervalPOMDP.around(tiger(), width)
        row(f"tiger, half-width {width}", model, 250, gap=0.005)
    for width in (0.0, 0.001, 0.1):
        model = IntervalPOMDP.around(crying_baby(), width)
        row(f"crying baby, half-width {width}", model, 150, gap=0.005)
    # A few tasks compile what all need.
    energy = [EnergyFamily().pomdp(jnp.linspace(0.2, 0.9, n)) for n in (4, 64)]
    for joint in (True, False):
        few, many = (IntervalPOMDP.around(x, 0.05, joint=joint) for x in energy)
        name = f"64 energy tasks, half-width 0.05, {'joint' if joint else 'separate'}"
        row(name, many, 10, few, gap=0.01)


if __name__ == "__main__":
    main()
