"""Backward induction on 100,000 energy MDPs, T = 20: ours, numpy, and the floor.

Prints a Markdown table. Compilation is timed apart; every run is waited for. The
arithmetic floor is the multiply-adds at the rate of a matrix product on this machine,
the memory floor the bytes that must be read and written at the rate of a large copy;
both are measured in the same process.
"""

import argparse
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdm.solvers_jax import EnergyFamily, backward_induction

HORIZON, REPEATS = 20, 5


def seconds(function: Callable[[], Any]) -> float:
    """Median of several runs, after one that is not counted."""
    jax.block_until_ready(function())
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def numpy_baseline(
    transition: np.ndarray, reward: np.ndarray, discount: float, chunk: int
) -> None:
    """The same recursion and outputs, batched in numpy, `chunk` tasks at a time."""
    tasks, states, actions = reward.shape
    q = np.empty((tasks, HORIZON, states, actions), reward.dtype)
    policy = np.empty((tasks, HORIZON, states), np.int32)
    for first in range(0, tasks, chunk):
        part = slice(first, first + chunk)
        p, r = transition[part], reward[part]
        value = np.zeros((len(r), states), r.dtype)
        for t in reversed(range(HORIZON)):
            flat = p.reshape(len(r), states * actions, states)
            q_t = r + discount * (flat @ value[..., None]).reshape(r.shape)
            value = q_t.max(-1)
            q[part, t], policy[part, t] = q_t, q_t.argmax(-1)


def floors(tasks: int, dtype: Any) -> tuple[float, float]:
    """Seconds that the arithmetic and the memory traffic alone would take."""
    n = 1500
    a = jnp.ones((n, n), dtype)
    flops = 2 * n**3 / seconds(jax.jit(lambda: a @ a))
    big = np.ones(30_000_000, dtype)
    bandwidth = 2 * big.nbytes / seconds(lambda: big.copy())
    states, actions = 10, 3
    size = np.dtype(dtype).itemsize
    read = states * actions * (states + 1) * size
    written = HORIZON * states * (actions * size + size + 4)
    work = 2 * HORIZON * states * actions * states
    return tasks * work / flops, tasks * (read + written) / bandwidth


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    tasks = parser.parse_args().tasks
    device = jax.devices()[0].device_kind
    print(f"{tasks} tasks, T = {HORIZON}, {platform.machine()}, JAX on {device}\n")
    print("| what | µs per task | × ours | compile, s |")
    print("|---|---|---|---|")
    for wide in (True, False):
        with jax.enable_x64(wide):
            measure(tasks, jnp.float64 if wide else jnp.float32)


def measure(tasks: int, dtype: Any) -> None:
    """Print the rows of one precision."""
    name = np.dtype(dtype).name
    mdp = EnergyFamily().sample(jax.random.key(0), tasks)
    solve = jax.jit(lambda m: backward_induction(m, horizon=HORIZON))
    start = time.perf_counter()
    compiled = solve.lower(mdp).compile()
    compile_seconds = time.perf_counter() - start
    ours = seconds(lambda: compiled(mdp))

    def unchunked(m: Any) -> Any:
        import sys

        module = sys.modules["sdm.solvers_jax.backward_induction"]
        return module._solve_chunks(
            m.transition, m.reward, m.discount, horizon=HORIZON, chunk=tasks
        )

    rows = [(f"ours, {name}", ours, f"{compile_seconds:.2f}")]
    rows.append((f"ours in one chunk, {name}", seconds(lambda: unchunked(mdp)), ""))
    p, r = np.asarray(mdp.transition), np.asarray(mdp.reward)
    for chunk in (200, tasks):
        label = f"numpy, chunks of {chunk}, {name}"
        took = seconds(lambda: numpy_baseline(p, r, 0.95, chunk))  # noqa: B023
        rows.append((label, took, ""))
    arithmetic, memory = floors(tasks, dtype)
    rows.append((f"arithmetic floor, {name}", arithmetic, ""))
    rows.append((f"memory floor, {name}", memory, ""))
    for label, took, compiling in rows:
        micro = 1e6 * took / tasks
        print(f"| {label} | {micro:.2f} | {took / ours:.2f} | {compiling} |")


if __name__ == "__main__":
    main()
