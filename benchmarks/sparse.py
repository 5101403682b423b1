"""Benchmark of MDPs with sparse transitions: one large model, and many middling ones.

Prints a Markdown table of sdm, the same recursion in SciPy, and quantecon's sparse
solver if it is installed (`pip install 'sdm-llm[bench]'`). All solve the same arrays to
the same values, which are checked. The others solve one task at a time, so they get
fewer tasks. mdpsolver and pymdptoolbox have no finite horizon with sparse transitions.
Times are medians of several runs after a warm-up run; the time to compile, or to build
the other solver's input, has a column of its own. The peak memory is that of a process
that only builds and solves the model with sdm.
"""

import argparse
import contextlib
import multiprocessing
import platform
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.sparse

from sdm.solvers_jax import MDP, solve

DISCOUNT, REPEATS = 0.95, 3
LOOPED = 20  # tasks for the solvers of one task at a time
# Values of about 20 from float32 rewards and probabilities, after 100 sums.
ROUNDING = 1e-3


class Work(NamedTuple):
    """Tasks with random next states, which all tasks share."""

    title: str
    tasks: int
    states: int
    actions: int
    successors: int
    horizon: int


WORKS = (
    Work("one MDP, 100,000 states, 10⁶ nonzeros, T = 100", 1, 100_000, 2, 5, 100),
    Work("1,000 MDPs, 1,440 states, 8 actions, T = 20", 1000, 1440, 8, 16, 20),
)


class Arrays(NamedTuple):
    """Arrays of a `Work`: lists [S, A, N], probabilities and rewards of each task."""

    successors: np.ndarray
    probabilities: np.ndarray
    reward: np.ndarray


def arrays_of(work: Work) -> Arrays:
    """Draw random arrays."""
    rng = np.random.default_rng(0)
    lists = (work.states, work.actions, work.successors)
    index = rng.integers(0, work.states, lists, np.int32)
    chance = rng.random((work.tasks, *lists), np.float32)
    chance /= chance.sum(-1, keepdims=True)
    reward = rng.random((work.tasks, *lists[:2]), np.float32)
    return Arrays(index, chance, reward)


def model_of(arrays: Arrays) -> MDP:
    """Return the tasks as sparse MDPs; one task has no batch axis."""
    index, chance, reward = arrays
    if len(reward) == 1:
        chance, reward = chance[0], reward[0]
    initial = np.full(reward.shape[:-1], 1 / reward.shape[-2], np.float32)
    return MDP.sparse(index, chance, reward, initial, DISCOUNT)


def seconds(function: Callable[[], Any]) -> tuple[float, float]:
    """Return the median time of several runs, and the extra time of the first."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    median = float(np.median(times[1:]))
    return median, times[0] - median


# Name; seconds to build the input; a function that returns the values [N, S].
Peer = tuple[str, float, Callable[[], np.ndarray]]


def peers(arrays: Arrays, horizon: int) -> Iterator[Peer]:
    """Yield the other solvers of the first tasks."""
    index, chance, reward = arrays
    _, states, actions = reward.shape
    start = time.perf_counter()
    first = np.arange(0, index.size + 1, index.shape[-1])
    shape = (states * actions, states)
    matrices = [
        scipy.sparse.csr_matrix((p.ravel(), index.ravel(), first), shape=shape)
        for p in chance
    ]

    def by_scipy() -> np.ndarray:
        values = []
        for matrix, paid in zip(matrices, reward, strict=True):
            value = np.zeros(states, paid.dtype)
            for _ in range(horizon):
                q = paid + DISCOUNT * (matrix @ value).reshape(states, actions)
                value, _ = q.max(-1), q.argmax(-1)
            values.append(value)
        return np.array(values)

    yield "NumPy and SciPy, a loop", time.perf_counter() - start, by_scipy
    with contextlib.suppress(ImportError):
        from quantecon.markov import DiscreteDP
        from quantecon.markov import backward_induction as by_quantecon

        start = time.perf_counter()
        pairs = np.repeat(np.arange(states), actions), np.tile(range(actions), states)
        single = [
            DiscreteDP(
                paid.ravel().astype(float), matrix.astype(float), DISCOUNT, *pairs
            )
            for matrix, paid in zip(matrices, reward, strict=True)
        ]
        yield (
            "quantecon, sparse, a loop",
            time.perf_counter() - start,
            lambda: np.array([by_quantecon(x, horizon)[0][0] for x in single]),
        )


def peak(work: Work) -> float:
    """Return the peak memory of a process that solves the work with sdm, in GB."""
    jax.block_until_ready(solve(model_of(arrays_of(work)), horizon=work.horizon))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure(work: Work) -> None:
    """Print the rows of one work."""
    arrays = arrays_of(work)
    model = model_of(arrays)

    def by_sdm() -> Any:
        return solve(model, horizon=work.horizon)

    took, compiled = seconds(by_sdm)
    own = took / work.tasks
    few = min(LOOPED, work.tasks)
    value = np.asarray(by_sdm().state_value)[..., 0, :].reshape(-1, work.states)[:few]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        memory = pool.apply(peak, (work,))
    print(
        f"| {work.title} | sdm | {own:.4g} | 1 | {compiled:.2g} | {memory:.2g} |",
        flush=True,
    )
    some = Arrays(arrays[0], arrays[1][:few], arrays[2][:few])
    for name, built, function in peers(some, work.horizon):
        np.testing.assert_allclose(function(), value, atol=ROUNDING)
        took, _ = seconds(function)
        ratio = took / few / own
        print(
            f"| | {name} | {took / few:.4g} | {ratio:.2g} | {built:.2g} | |", flush=True
        )


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000, help="Middling MDPs.")
    tasks = parser.parse_args().tasks
    print(f"{platform.machine()}, JAX on {jax.devices()[0].device_kind}, float32\n")
    print("| work | solver | s per task | × sdm | build or compile, s | peak, GB |")
    print("|---|---|---|---|---|---|")
    for work in WORKS:
        several = work.tasks > 1
        title = work.title.replace("1,000 MDPs", f"{tasks:,} MDPs")
        measure(work._replace(tasks=tasks, title=title) if several else work)


if __name__ == "__main__":
    main()
