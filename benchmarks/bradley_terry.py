"""Benchmark of Bradley–Terry fits: our sparse Newton method, and choix where it fits.

Prints a Markdown table. Each line draws comparisons of items with standard normal
scores, and fits them with a penalty. choix (`pip install choix`) keeps matrices of all
pairs of items, so it is only run with at most `DENSE` items; without it, its columns
are empty. Nothing is compiled, so there is no warm-up.

    python benchmarks/bradley_terry.py
"""

import importlib
import time
from collections.abc import Callable

import numpy as np
from scipy.special import expit

from sdm.feedback.bradley_terry import fit_scores, pair_design

SIZES = ((100, 10_000), (1_000, 100_000), (10_000, 1_000_000))  # items, comparisons
DENSE = 1_000
PENALTY = 1.0


def timed(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """Return the result of a call, and its seconds."""
    start = time.perf_counter()
    found = call()
    return found, time.perf_counter() - start


def main() -> None:
    """Print the table."""
    try:
        choix = importlib.import_module("choix")
    except ModuleNotFoundError:
        choix = None
    print("| items | comparisons | sdm, s | choix, s | choix / sdm | difference |")
    print("|---:|---:|---:|---:|---:|---:|")
    for items, count in SIZES:
        random = np.random.default_rng(0)
        truth = random.normal(size=items)
        pairs = random.integers(0, items, (count, 2))
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        won = random.random(len(pairs)) < expit(truth[pairs[:, 0]] - truth[pairs[:, 1]])

        def ours() -> np.ndarray:
            design = pair_design(pairs, items)  # noqa: B023
            return fit_scores(design, won.astype(float), penalty=PENALTY).scores  # noqa: B023

        scores, seconds = timed(ours)
        line = f"| {items:,} | {len(pairs):,} | {seconds:.2f} |"
        if choix is None or items > DENSE:
            print(f"{line} | | |")
            continue
        ordered = np.where(won[:, None], pairs, pairs[:, ::-1])
        # Its penalty is twice ours.
        theirs, peer = timed(
            lambda: choix.opt_pairwise(items, ordered, alpha=PENALTY / 2)  # noqa: B023
        )
        far = np.abs(theirs - theirs.mean() - scores + scores.mean()).max()
        print(f"{line} {peer:.2f} | {peer / seconds:.1f} | {far:.1e} |", flush=True)


if __name__ == "__main__":
    main()
