"""Benchmark of backward induction on 100,000 energy MDPs, T = 20.

Prints a Markdown table of sdm, other packages and two lower bounds. Other packages are
timed if they are installed (`pip install 'sdm-llm[bench]'`). They solve one task at a
time, so they get fewer tasks, and their values are checked against those of sdm. The
last column is the time to compile, or to build the input of the other package; the
other columns exclude it. The arithmetic floor is the multiply-adds at the rate of a
matrix product. The memory floor is the bytes to read and write at the rate of a large
copy. Both rates are measured in the same process.
"""

import argparse
import contextlib
import platform
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdm.solvers_jax import EnergyFamily, backward_induction

HORIZON, REPEATS, DISCOUNT = 20, 5, 0.95
RAISED = 0.05  # largest cost of an energy task; Storm refuses negative rewards
LOOPED = 500  # tasks for packages that solve one task at a time


def seconds(function: Callable[[], Any]) -> float:
    """Return the median time of several runs, after a warm-up run."""
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
    """Run the same recursion in NumPy, on `chunk` tasks at once."""
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


# Name; seconds to build the input; a function that returns the values [N, S].
Peer = tuple[str, float, Callable[[], np.ndarray]]


def peers(p: np.ndarray, r: np.ndarray) -> Iterator[Peer]:
    """Yield the installed packages that solve tasks p [N, S, A, S] and r [N, S, A]."""
    tasks, states, actions = r.shape
    with contextlib.suppress(ImportError):
        import scipy.sparse
        from quantecon.markov import DiscreteDP
        from quantecon.markov import backward_induction as by_quantecon

        start = time.perf_counter()
        single = [DiscreteDP(*task, DISCOUNT) for task in zip(r, p, strict=True)]
        yield (
            "quantecon, a loop",
            time.perf_counter() - start,
            lambda: np.array([by_quantecon(x, HORIZON)[0][0] for x in single]),
        )
        start = time.perf_counter()
        rows = p.reshape(tasks, states * actions, states)
        block = DiscreteDP(
            r.reshape(-1),
            scipy.sparse.block_diag(list(rows), format="csr"),
            DISCOUNT,
            np.repeat(np.arange(tasks * states), actions),
            np.tile(np.arange(actions), tasks * states),
        )
        yield (
            "quantecon, one block-diagonal task",
            time.perf_counter() - start,
            lambda: by_quantecon(block, HORIZON)[0][0].reshape(tasks, states),
        )
    with contextlib.suppress(ImportError):
        from mdptoolbox.mdp import FiniteHorizon

        def by_toolbox() -> np.ndarray:
            values = []
            for task in zip(p.transpose(0, 2, 1, 3), r, strict=True):
                found = FiniteHorizon(*task, DISCOUNT, HORIZON)
                found.run()
                values.append(found.V[:, 0])
            return np.array(values)

        yield "pymdptoolbox, a loop", 0.0, by_toolbox
    with contextlib.suppress(ImportError):
        import mdpsolver

        start = time.perf_counter()
        inputs = [expanded(*task) for task in zip(p, r, strict=True)]
        prepared = time.perf_counter() - start

        def by_mdpsolver() -> np.ndarray:
            values = []
            for task in inputs:
                model = mdpsolver.model()
                model.mdp(discount=DISCOUNT, **task)
                model.solve(algorithm="vi", tolerance=1e-9)
                values.append(model.getValueVector()[:states])
            return np.array(values)

        name = "mdpsolver, a loop over time-expanded tasks"
        yield name, prepared, by_mdpsolver
    with contextlib.suppress(ImportError):
        import stormpy  # noqa: F401

        for label, groups in (
            ("stormpy, a loop", np.arange(tasks)[:, None]),
            ("stormpy, one block-diagonal task", np.arange(tasks)[None]),
        ):
            start = time.perf_counter()
            built = [storm_model(p[group], r[group]) for group in groups]
            yield label, time.perf_counter() - start, lambda built=built: storm(built)  # type: ignore[misc]


def storm_model(p: np.ndarray, r: np.ndarray) -> Any:
    """Build one Storm model of several tasks, p [N, S, A, S] and r [N, S, A].

    Storm has no discount, so every move ends in a sink with probability 1 - γ. Storm
    refuses negative rewards, so all rewards are raised by the largest cost; `storm`
    subtracts its discounted sum.
    """
    from stormpy import datastructures, models

    tasks, states, actions = r.shape
    matrix = datastructures.SparseMatrixBuilder[float](0, 0, 0, False, True, 0)
    sink, row = tasks * states, 0
    for n in range(tasks):
        for s in range(states):
            matrix.new_row_group(row)
            for a in range(actions):
                for m in np.flatnonzero(p[n, s, a]):
                    chance = DISCOUNT * float(p[n, s, a, m])
                    matrix.add_next_value(row, n * states + int(m), chance)
                matrix.add_next_value(row, sink, 1 - DISCOUNT)
                row += 1
    matrix.new_row_group(row)
    matrix.add_next_value(row, sink, 1.0)
    labels = models.StateLabeling(sink + 1)
    labels.add_label("init")
    labels.add_label_to_state("init", 0)
    paid = [*(r + RAISED).reshape(-1).tolist(), 0.0]
    rewards = models.SparseRewardModel[float](optional_state_action_reward_vector=paid)
    parts = models.SparseModelComponents[float](
        transition_matrix=matrix.build(),
        state_labeling=labels,
        reward_models={"r": rewards},
    )
    return models.SparseMdp[float](parts), states


def storm(models: list[Any]) -> np.ndarray:
    """Return the values of all states of all tasks, [N, S]."""
    import stormpy

    (asked,) = stormpy.parse_properties(f'R{{"r"}}max=? [C<={HORIZON}]')
    annuity = sum(DISCOUNT**t for t in range(HORIZON))
    values = []
    for model, states in models:
        found = stormpy.model_checking(model, asked, only_initial_states=False)
        values.append(np.array(found.get_value_vector())[:-1].reshape(-1, states))
    return np.concatenate(values) - RAISED * annuity


def expanded(p: np.ndarray, r: np.ndarray) -> dict[str, list[Any]]:
    """Return a task over (stage, state) pairs, as mdpsolver has no finite horizon."""
    states, actions = r.shape
    end = HORIZON * states
    chances, columns = [], []
    for t in range(HORIZON):
        for s in range(states):
            to = [np.flatnonzero(p[s, a]) for a in range(actions)]
            chances.append([p[s, a, n].tolist() for a, n in enumerate(to)])
            first = (t + 1) * states
            columns.append(
                [(n + first if t + 1 < HORIZON else n * 0 + end).tolist() for n in to]
            )
    return {
        "rewards": [*r.tolist()] * HORIZON + [[0.0]],
        "tranMatProbs": [*chances, [[1.0]]],
        "tranMatColumns": [*columns, [[end]]],
    }


def floors(tasks: int, dtype: Any) -> tuple[float, float]:
    """Return the seconds of the arithmetic alone and of the memory traffic alone."""
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
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000, help="Number of tasks.")
    tasks = parser.parse_args().tasks
    device = jax.devices()[0].device_kind
    print(f"{tasks} tasks, T = {HORIZON}, {platform.machine()}, JAX on {device}\n")
    print("| solver | µs per task | × sdm | building or compiling |")
    print("|---|---|---|---|")
    for wide in (True, False):
        with jax.enable_x64(wide):
            measure(tasks, jnp.float64 if wide else jnp.float32)


def measure(tasks: int, dtype: Any) -> None:
    """Print the rows of one floating-point precision."""
    name = np.dtype(dtype).name
    mdp = EnergyFamily().sample(jax.random.key(0), tasks)
    solve = jax.jit(lambda m: backward_induction(m, horizon=HORIZON))
    start = time.perf_counter()
    compiled = solve.lower(mdp).compile()
    compile_seconds = time.perf_counter() - start
    ours = seconds(lambda: compiled(mdp))

    @jax.jit
    def without_q(m: Any) -> Any:
        found = backward_induction(m, horizon=HORIZON)
        return found.policy, found.state_value

    rows = [(f"sdm, {name}", ours / tasks, f"{compile_seconds:.2f} s")]
    took = seconds(lambda: without_q(mdp))
    rows.append((f"sdm, policy and values only, {name}", took / tasks, ""))
    p, r = np.asarray(mdp.transition), np.asarray(mdp.reward)
    took = seconds(lambda: numpy_baseline(p, r, DISCOUNT, 200))
    rows.append((f"numpy, chunks of 200, {name}", took / tasks, ""))
    if dtype == jnp.float64:
        right = np.asarray(solve(mdp).state_value[:LOOPED, 0])
        for label, prepared, run in peers(p[:LOOPED], r[:LOOPED]):
            # mdpsolver iterates to a tolerance of 1e-9; the others only round.
            np.testing.assert_allclose(run(), right, atol=1e-7, err_msg=label)
            making = f"{1e6 * prepared / LOOPED:.0f} µs per task"
            rows.append((label, seconds(run) / LOOPED, making))
    arithmetic, memory = floors(tasks, dtype)
    rows.append((f"arithmetic floor, {name}", arithmetic / tasks, ""))
    rows.append((f"memory floor, {name}", memory / tasks, ""))
    for label, each, first in rows:
        ratio = each * tasks / ours
        print(f"| {label} | {1e6 * each:.2f} | {ratio:.2f} | {first} |")


if __name__ == "__main__":
    main()
