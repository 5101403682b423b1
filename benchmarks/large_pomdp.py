"""Benchmark of the methods for one large or long POMDP: bounds within a time limit.

Prints a Markdown table: the bounds of depth-first search after each limit, and those of
the point-based method with its time, where there is a horizon. The models are
RockSample(4, 4) and Tiger-grid, which are made here, and the files that are given:

    python benchmarks/large_pomdp.py --seconds 10 --seconds 60 FILE FILE@60

`FILE@60` has 60 decisions, `FILE` no horizon. All runs use one CPU device and double
precision. The peak of the memory is that of the process so far.
"""

import argparse
import itertools
import resource
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sdm.solvers_jax import POMDP, DepthFirst, PointBased, load_pomdp, solve
from sdm.tasks.transition_lists import sparse_transition

ROCKS = ((3, 1), (2, 1), (1, 3), (1, 0))
SIDE, START, DISCOUNT, HALF = 4, (0, 2), 0.95, 20.0
MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))  # north, east, south, west

# Tiger-grid: a row of five cells, with a cell below each but the middle one, the goal.
CELLS = ((0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (0, 0), (1, 0), (3, 0), (4, 0))
GOAL, TIGERS, STARTS = 2, (0, 4), (6, 7)
TURNS = (
    (1.0, 0.0, 0.0, 0.0),  # stay
    (0.1, 0.7, 0.1, 0.1),  # right
    (0.1, 0.15, 0.6, 0.15),  # around
    (0.1, 0.1, 0.1, 0.7),  # left
)


def rock_sample() -> POMDP:
    """Return RockSample(4, 4) (Smith, Simmons, 2004), with rocks at `ROCKS`.

    Actions are the moves, to sample, and to check each rock. Leaving to the east ends
    the task and pays 10, and so does a good rock; a bad one costs 10. A check at
    distance d is right with probability (1 + 2^(-d / 20)) / 2.
    """
    cells = list(itertools.product(range(SIDE), repeat=2))
    goods = list(itertools.product((0, 1), repeat=len(ROCKS)))
    states, actions = len(cells) * len(goods) + 1, 5 + len(ROCKS)
    after = np.full((states, actions, 1), states - 1)
    reward = np.zeros((states, actions))
    shown = np.zeros((actions, states, 2))
    shown[:, :, 0] = 1
    for (i, cell), (j, good) in itertools.product(enumerate(cells), enumerate(goods)):
        s = i * len(goods) + j
        after[s] = s
        for a, (x, y) in enumerate(MOVES):
            x, y = cell[0] + x, cell[1] + y
            if x == SIDE:
                after[s, a], reward[s, a] = states - 1, 10
            elif x >= 0 and 0 <= y < SIDE:
                after[s, a] = cells.index((x, y)) * len(goods) + j
        if cell in ROCKS:
            rock = ROCKS.index(cell)
            reward[s, 4] = 10 if good[rock] else -10
            left = (*good[:rock], 0, *good[rock + 1 :])
            after[s, 4] = i * len(goods) + goods.index(left)
        for rock, place in enumerate(ROCKS):
            right = (1 + 2 ** (-np.hypot(*np.subtract(cell, place)) / HALF)) / 2
            shown[5 + rock, s] = (
                [1 - right, right] if good[rock] else [right, 1 - right]
            )
    initial = np.zeros(states)
    first = cells.index(START) * len(goods)
    initial[first : first + len(goods)] = 1 / len(goods)
    moves = sparse_transition(after, np.ones(after.shape))
    seen, paid, first_belief = map(jnp.asarray, (shown, reward, initial))
    return POMDP(moves, seen, paid, first_belief, DISCOUNT)


def tiger_grid() -> POMDP:
    """Return Tiger-grid (Littman, Cassandra, Kaelbling, 1995), 36 × 5 × 17.

    A state is a cell and a heading. Stepping forward succeeds with probability 0.8; it
    goes left, right or back with probability 0.05 each, and heads where it goes, or as
    often the other way after going back. Walls stop it. Noisy sensors show the walls in
    front, right, behind and left: a wall is seen with probability 0.9, and where there
    is none with probability 0.05. Reaching the goal pays 1 and is seen, reaching a
    tiger's cell costs 1. From the goal, the task starts again.
    """
    states = 4 * len(CELLS)
    moves = np.zeros((states, 5, states))
    shown = np.zeros((states, 17))
    paid = np.zeros(states)
    initial = np.zeros(states)
    initial[[4 * cell for cell in STARTS]] = 1 / len(STARTS)
    for (i, cell), heading in itertools.product(enumerate(CELLS), range(4)):
        s = 4 * i + heading
        ahead = [tuple(np.add(cell, MOVES[(heading + k) % 4])) for k in range(4)]
        open_ = [place in CELLS for place in ahead]
        paid[s] = float(i == GOAL) - float(i in TIGERS)
        if i == GOAL:
            moves[s, :], shown[s, 16] = initial, 1
            continue
        for symbol, seen in enumerate(itertools.product((0, 1), repeat=4)):
            right = zip(seen, open_, strict=True)
            shown[s, symbol] = np.prod(
                [abs(1 - x - (0.05 if o else 0.9)) for x, o in right]
            )
        for a, turn in zip((0, 2, 3, 4), TURNS, strict=True):
            for k, chance in enumerate(turn):
                moves[s, a, 4 * i + (heading + k) % 4] = chance
        for k, chance in enumerate((0.8, 0.05, 0.05, 0.05)):
            after = (heading + k) % 4
            ends = (after, heading) if k == 2 else (after,)
            for end in ends:
                to = 4 * CELLS.index(ahead[k]) + end if open_[k] else s
                moves[s, 1, to] += chance / len(ends)
        moves[s, 1, s] += 0.05
    reward = np.einsum("sat,t->sa", moves, paid)
    shown = np.broadcast_to(shown, (5, *shown.shape))
    arrays = [jnp.asarray(x) for x in (moves, shown, reward, initial)]
    return POMDP(arrays[0], arrays[1], arrays[2], arrays[3], DISCOUNT)


def line(name: str, method: str, found: object, seconds: float) -> None:
    """Print the bounds of a solution."""
    lower, upper = float(found.lower), float(found.upper)  # type: ignore[attr-defined]
    gap = (upper - lower) / max(abs(lower), abs(upper))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"| {name} | {method} | {lower:.5g} … {upper:.5g} | {100 * gap:.2f} % | "
        f"{seconds:.1f} | {peak:.1f} GB |",
        flush=True,
    )


def measure(name: str, model: POMDP, horizon: int | None, limits: list[float]) -> None:
    """Print the bounds of each method."""
    states, actions = model.reward.shape
    what = f"{name} ({states} × {actions} × {model.observation.shape[-1]})"
    what += f", T = {horizon}" if horizon else ", no horizon"
    for limit in limits:
        start = time.perf_counter()
        method = DepthFirst(gap=0.001, seconds=limit)
        found = solve(model, horizon=horizon, method=method)
        line(what, "search", found, time.perf_counter() - start)
    if horizon:
        start = time.perf_counter()
        points = solve(model, horizon=horizon, method=PointBased(gap=0.01))
        line(what, "points", points, time.perf_counter() - start)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, action="append")
    parser.add_argument("files", nargs="*")
    given = parser.parse_args()
    limits = given.seconds or [10.0]
    print("| model (S × A × O) | method | bounds | gap | seconds | peak memory |")
    print("|---|---|---|---|---|---|")
    measure("RockSample(4, 4)", rock_sample(), None, limits)
    measure("Tiger-grid", tiger_grid(), None, limits)
    for file in given.files:
        path, _, horizon = file.partition("@")
        model = load_pomdp(Path(path))
        if not isinstance(model, POMDP):
            parser.error(f"{path}: must be a POMDP, found a {type(model).__name__}")
        measure(Path(path).stem, model, int(horizon) if horizon else None, limits)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
