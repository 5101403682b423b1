"""Benchmark of off-policy intervals for a policy whose actions were logged seldom.

Prints a Markdown table. An episode is one decision after one of two observations. The
policy takes an action that was logged seldom after one of them, and that fails with
probability 0.1. A bootstrap of few decisions does not know of failures that they did
not have.

    python benchmarks/rare_actions.py
"""

import numpy as np

from sdm.data.logs import NOTHING, Logs
from sdm.data.off_policy.config import OffPolicyConfig
from sdm.data.off_policy.evaluate import evaluate_policy
from sdm.data.off_policy.logged_policy import TablePolicy

DATA_SETS, EPISODES, FAILS, LOSS = 400, 400, 0.1, -5.0
NUMBERS = (10, 20, 30, 50, 100)  # of expected decisions with the action
POLICY = np.array([[[0.0, 1.0], [1.0, 0.0]]])
VALUE = 0.5 * FAILS * LOSS
CONFIG = OffPolicyConfig(resamples=400)


def logged(number: int, seed: int) -> Logs:
    """Return a data set with an expected number of the action's decisions."""
    random = np.random.default_rng(seed)
    seen = np.arange(EPISODES) % 2
    rare = (random.random(EPISODES) < number / (EPISODES / 2)) & (seen == 0)
    rare[:2] = seen[:2] == 0  # at least one
    fails = rare & (random.random(EPISODES) < FAILS)
    return Logs(
        observation=np.stack([seen, np.full(EPISODES, NOTHING)], 1),
        action=rare[:, None].astype(int),
        reward=np.where(fails, LOSS, 0.0)[:, None],
        done=np.ones(EPISODES, bool),
        task=np.zeros(EPISODES, int),
        probability=None,
        observations=("ill", "well"),
        actions=("usual", "rare"),
        tasks=("0",),
    )


def main() -> None:
    """Print the table."""
    print("| decisions with the action | estimator | covered, % | effective |")
    print("|---:|---|---:|---:|")
    for number in NUMBERS:
        rows: dict[str, list[tuple[bool, float]]] = {}
        for seed in range(DATA_SETS):
            found = evaluate_policy(
                logged(number, seed),
                TablePolicy(POLICY),
                CONFIG,
                estimators=["wpdis", "fqe", "model"],
                seed=seed,
            )
            for name, each in found.items():
                low, high = each.interval()
                held = low <= VALUE <= high
                rows.setdefault(name, []).append((held, each.diagnosis.effective))
        for name, all_found in rows.items():
            covered, size = np.mean(all_found, axis=0)
            print(f"| {number} | {name} | {100 * covered:.1f} | {size:.0f} |")


if __name__ == "__main__":
    main()
