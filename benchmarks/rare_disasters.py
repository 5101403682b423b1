"""Benchmark of the bounds of a plan where a disaster happens to one in a hundred.

Prints a Markdown table. An episode is one decision with one action, so that every plan
is what was done. In small data sets, the disaster has often happened to nobody.

    python benchmarks/rare_disasters.py
"""

import numpy as np

from sdm.data.logs import NOTHING, Logs
from sdm.data.planning import cross_fitted_bounds
from sdm.data.planning.planner import planners

DATA_SETS, SIZES = 100, (60, 300, 3000)
CHANCE, GOOD, DISASTER = 0.01, 1.0, -5.0
VALUE = GOOD + CHANCE * (DISASTER - GOOD)


def logged(episodes: int, seed: int) -> Logs:
    """Return a data set."""
    happens = np.random.default_rng(seed).random((episodes, 1)) < CHANCE
    nothing = np.zeros((episodes, 1), int)
    return Logs(
        observation=np.concatenate([nothing, nothing + NOTHING], 1),
        action=nothing,
        reward=np.where(happens, DISASTER, GOOD),
        done=np.ones(episodes, bool),
        task=nothing[:, 0],
        probability=None,
        observations=("ill",),
        actions=("treat",),
        tasks=("0",),
    )


def main() -> None:
    """Print the table."""
    print(
        "| episodes | without a disaster | `lower` ≤ truth "
        "| `lower_confounded` ≤ truth | with `--worst` | mean with `--worst` |"
    )
    print("|---:|---:|---:|---:|---:|---:|")
    for episodes in SIZES:
        rows = []
        for seed in range(DATA_SETS):
            logs, planner = logged(episodes, seed), planners()["behavior"]()
            plain = cross_fitted_bounds(logs, planner, horizon=1)
            stated = cross_fitted_bounds(logs, planner, horizon=1, worst=DISASTER)
            rows.append(
                (
                    (logs.reward > DISASTER).all(),
                    plain.lower <= VALUE,
                    plain.lower_confounded <= VALUE,
                    stated.lower_confounded <= VALUE,
                    stated.lower_confounded,
                )
            )
        *counts, mean = np.array(rows, float).sum(0)
        cells = [f"{episodes}", *(f"{count:.0f}" for count in counts)]
        print(f"| {' | '.join(cells)} | {mean / DATA_SETS:.2f} |")


if __name__ == "__main__":
    main()
