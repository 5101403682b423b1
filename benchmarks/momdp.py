"""Benchmark of models with mixed observability.

Prints Markdown tables. The first solves the treatment of sepsis with hidden diabetes
(Oberst and Sontag, 2019, *Counterfactual off-policy evaluation*): 720 visible values,
two hidden ones, eight actions, 20 decisions. The second solves random models as they
are and as flat POMDPs, with the same gap, in the same run. The third plans for the
candidates of the energy family's prior.
"""

import argparse
import itertools
import platform
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdm.solvers_jax import (
    MDP,
    MOMDP,
    MixedObservability,
    PointBased,
    flat_mdp,
    flat_pomdp,
    hidden_model,
    solve,
)
from sdm.tasks.families.energy import EnergyFamily

# Levels of heart rate, blood pressure, oxygen and glucose, and the normal level.
LEVELS, NORMAL = (3, 3, 2, 5), (1, 1, 1, 2)
STATES, ACTIONS, HORIZON = 720, 8, 20


def seconds(function: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return the seconds of a first and a second run, and the result of the second."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        found = jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return times[0], times[1], found


Row = dict[int, float]


def step(level: int, levels: int, up: float, down: float) -> Row:
    """Return the distribution after one step up or down, clipped."""
    row = {level: 1 - up - down}
    for to, chance in ((min(level + 1, levels - 1), up), (max(level - 1, 0), down)):
        row[to] = row.get(to, 0) + chance
    return row


def then(row: Row, rule: Callable[[int], Row]) -> Row:
    """Return the distribution after another step."""
    after: Row = {}
    for level, chance in row.items():
        for to, more in rule(level).items():
            after[to] = after.get(to, 0) + chance * more
    return after


def pressed(level: int, diabetic: int) -> Row:
    """Return blood pressure after a vasopressor."""
    if not diabetic:
        return step(level, 3, 0.7, 0)
    return ({0: 0.1, 1: 0.5, 2: 0.4}, {1: 0.1, 2: 0.9}, {2: 1.0})[level]


def vitals_after(vital: tuple[int, ...], now: Any, new: Any, diabetic: int) -> Any:
    """Return the distributions of the four vitals, which are independent."""
    (heart, blood, oxygen, glucose), rows = vital, []
    (anti, press, vent), (anti_1, press_1, vent_1) = now, new

    def antibiotics(level: int) -> Row:
        if anti_1:
            return {1: 0.5, 2: 0.5} if level == 2 else {level: 1.0}
        return {1: 0.9, 2: 0.1} if level == 1 else {level: 1.0}

    treated = anti_1 or anti
    rows.append(antibiotics(heart) if treated else step(heart, 3, 0.1, 0.1))
    row = antibiotics(blood) if treated else {blood: 1.0}
    if press_1:
        row = then(row, lambda level: pressed(level, diabetic))
    elif press:
        row = then(row, lambda level: step(level, 3, 0, 0.05 if diabetic else 0.1))
    elif not treated:
        row = step(blood, 3, 0.1, 0.1)
    rows.append(row)
    if vent_1 or vent:
        rows.append(step(oxygen, 2, 0.7, 0) if vent_1 else step(oxygen, 2, 0, 0.1))
    else:
        rows.append(step(oxygen, 2, 0.1, 0.1))
    if press_1:
        rows.append(step(glucose, 5, 0.5 if diabetic else 0, 0))
    elif diabetic:
        rows.append(step(glucose, 5, 0.3, 0.3))
    else:  # as in the published simulator: up leads to low at most
        row = {glucose: 0.8}
        for to in (min(1, glucose + 1), max(glucose - 1, 0)):
            row[to] = row.get(to, 0) + 0.1
        rows.append(row)
    return rows


def ends(vital: tuple[int, ...], treatment: tuple[int, ...]) -> int:
    """Return the reward on arrival: 1 for discharge, -1 for death, 0 to go on."""
    wrong = sum(x != normal for x, normal in zip(vital, NORMAL, strict=True))
    if wrong >= 3:
        return -1
    return int(wrong == 0 and not any(treatment))


def places() -> Iterator[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Yield the number, the vitals and the treatments of each visible value."""
    levels = itertools.product(*map(range, LEVELS), *[range(2)] * 3)
    for x, each in enumerate(levels):
        yield x, each[:4], each[4:]


def sepsis() -> MOMDP:
    """Return the published model, with diabetes hidden."""
    chance = np.zeros((STATES, 2, ACTIONS, STATES))
    reward = np.zeros((STATES, 2, ACTIONS))
    initial = np.zeros((STATES, 2))
    number = {(vital, treated): x for x, vital, treated in places()}
    first = [[0.25, 0.5, 0.25], [0.25, 0.5, 0.25], [0.2, 0.8]]
    sugar = [[0.05, 0.15, 0.6, 0.15, 0.05], [0.01, 0.05, 0.15, 0.6, 0.19]]
    for x, vital, treated in places():
        over = ends(vital, treated)
        for y, a in itertools.product(range(2), range(ACTIONS)):
            if over:
                chance[x, y, a, x] = 1
                continue
            new = (a // 4, a % 2, a // 2 % 2)
            rows = vitals_after(vital, treated, new, y)
            for outcome in itertools.product(*(row.items() for row in rows)):
                levels = tuple(level for level, _ in outcome)
                mass = np.prod([p for _, p in outcome])
                chance[x, y, a, number[levels, new]] += mass
                reward[x, y, a] += mass * ends(levels, new)
        if not over and not any(treated):
            for y in range(2):
                rows = [*first, sugar[y]]
                initial[x, y] = np.prod(
                    [row[v] for row, v in zip(rows, vital, strict=True)]
                )
    initial *= np.array([0.8, 0.2]) / initial.sum(0)
    possible = (chance > 0).any(1)  # [X, A, X']
    count = possible.sum(-1).max()
    index = np.sort(np.argsort(~possible, axis=-1, kind="stable")[..., :count], -1)
    every = np.broadcast_to(index[:, None], (STATES, 2, ACTIONS, count))
    listed = np.take_along_axis(chance, every, axis=-1)
    parts = [jnp.asarray(x) for x in (listed, reward, initial)]
    return MOMDP(parts[0], parts[1], parts[2], 1.0, jnp.asarray(index))


def random_model(visible: int, hidden: int, successors: int) -> MOMDP:
    """Return a random model with four actions and lists of successors."""
    random = np.random.default_rng(0)
    order = np.argsort(random.random((visible, 4, visible)), axis=-1)[..., :successors]
    shape = (visible, hidden, 4)
    start = random.dirichlet(np.ones(visible * hidden)).reshape(visible, hidden)
    return MOMDP(
        jnp.asarray(random.dirichlet(np.full(successors, 0.5), shape)),
        jnp.asarray(random.random(shape)),
        jnp.asarray(start),
        0.95,
        jnp.asarray(order),
        jnp.asarray(random.dirichlet(np.full(hidden, 0.3), (*shape, successors))),
    )


def gap_of(found: Any) -> str:
    """Return the largest certified gap in per cent."""
    width = np.asarray(found.upper - found.lower)
    return f"{100 * float((width / np.abs(np.asarray(found.upper))).max()):.3f} %"


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gap", type=float, default=0.01, help="Gap to reach.")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    print(f"{platform.machine()}, {jax.local_device_count()} device\n")
    model = sepsis()
    known = solve(flat_mdp(model), horizon=HORIZON)
    print(f"Sepsis with diabetes seen: {float(known.value):.6f}\n")
    print("| gap asked | lower | upper | gap | first run, s | second run, s |")
    print("|---|---|---|---|---|---|")
    for gap, points in ((options.gap, 64), (1e-3, 64), (1e-4, 64)):
        method = MixedObservability(gap=gap, points=points)
        run = lambda: solve(model, horizon=HORIZON, method=method)  # noqa: B023, E731
        first, second, found = seconds(run)
        bounds = f"{float(found.lower):.6f} | {float(found.upper):.6f}"
        print(f"| {gap} | {bounds} | {gap_of(found)} | {first:.1f} | {second:.1f} |")
    compare(options.gap)
    energy()


def compare(gap: float) -> None:
    """Print the table of random models, as they are and flat."""
    print(f"\nRandom models, four actions, T = 10, to a gap of {gap}:\n")
    print("| X | Y | successors | method | gap | first run, s | second run, s |")
    print("|---|---|---|---|---|---|---|")
    for visible, hidden, successors in ((5, 3, 3), (10, 3, 3), (20, 3, 3), (200, 3, 3)):
        model = random_model(visible, hidden, successors)
        methods: list[tuple[str, Any, Any]] = [
            ("mixed", model, MixedObservability(gap=gap))
        ]
        if visible <= 20:
            flat = flat_pomdp(model)
            methods.append(("flat", flat, PointBased(gap=gap, points=256)))
        for name, task, method in methods:
            run = lambda: solve(task, horizon=10, method=method)  # noqa: B023, E731
            first, second, found = seconds(run)
            print(
                f"| {visible} | {hidden} | {successors} | {name} | {gap_of(found)} | "
                f"{first:.1f} | {second:.2f} |",
                flush=True,
            )


def energy() -> None:
    """Print the table of energy tasks whose success probability is hidden."""
    family, tasks = EnergyFamily(), 100
    params, weight = family.prior()
    models = family.model(params, "mdp")
    assert isinstance(models, MDP)
    random = np.random.default_rng(0)
    p = np.asarray(params["p"])
    wins = random.integers(0, 11, tasks)[:, None]
    prior = np.asarray(weight) * p**wins * (1 - p) ** (10 - wins)
    prior /= prior.sum(-1, keepdims=True)
    print(f"\n{tasks} energy tasks, {len(p)} candidates, 32 points:\n")
    print("| T | largest gap | first run, s | second run, s |\n|---|---|---|---|")
    for horizon in (10, 20):
        method = MixedObservability(gap=1e-3, points=32)
        task = hidden_model(models, prior)
        run = lambda: solve(task, horizon=horizon, method=method)  # noqa: B023, E731
        first, second, found = seconds(run)
        print(f"| {horizon} | {gap_of(found)} | {first:.1f} | {second:.2f} |")


if __name__ == "__main__":
    main()
