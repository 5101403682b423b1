"""Benchmark of off-policy intervals: how often they cover the true value.

Prints Markdown tables. Each data set has episodes of a random MDP with known behavior
policy; every estimator gives its estimate and 95 % interval of another policy. With 200
data sets, the share of a true 95 % interval lies between 92 % and 98 % in 95 of 100
such benchmarks. `estimated` ignores the probabilities in the logs.

    python benchmarks/off_policy.py
"""

import dataclasses
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from sdm.data.logs import Logs
from sdm.data.logs.simulate import simulate_logs
from sdm.data.off_policy.config import OffPolicyConfig
from sdm.data.off_policy.confounding import Confounding
from sdm.data.off_policy.evaluate import chosen_estimators, evaluate_sample
from sdm.data.off_policy.logged_policy import TablePolicy
from sdm.data.off_policy.sample import sample_of
from sdm.solvers_jax import evaluate_policy
from sdm.tasks.models import MDP
from sdm.tasks.policy import TabularPolicy

DATA_SETS, STATES, ACTIONS, DISCOUNT = 200, 5, 3, 0.95
CASES = ((5, 100), (5, 1000), (20, 300))  # decisions, episodes
CONFIG = OffPolicyConfig(discount=DISCOUNT, resamples=400)


def world(stages: int) -> tuple[MDP, np.ndarray, np.ndarray]:
    """Return a random MDP, its behavior policy and the policy to evaluate."""
    random = np.random.default_rng(0)
    model = MDP(
        jnp.asarray(random.dirichlet(np.ones(STATES), (1, STATES, ACTIONS))),
        jnp.asarray(random.normal(size=(1, STATES, ACTIONS))),
        jnp.full((1, STATES), 1 / STATES),
        DISCOUNT,
    )
    behavior = random.dirichlet(np.full(ACTIONS, 4.0), STATES)
    # Between the behavior policy and another one: closer for long episodes.
    share = min(1.0, 5 / stages)
    other = random.dirichlet(np.ones(ACTIONS), STATES)
    return model, behavior, share * other + (1 - share) * behavior


def table(policy: np.ndarray, stages: int) -> jax.Array:
    """Return a policy for every stage of one task."""
    return jnp.broadcast_to(jnp.asarray(policy), (1, stages, STATES, ACTIONS))


def measured(logs: Logs, policy: TablePolicy, seed: int) -> dict[str, np.ndarray]:
    """Return estimate, ends of the interval and effective episodes by estimator."""
    sample = sample_of(logs, policy, CONFIG)
    results = evaluate_sample(sample, CONFIG, chosen_estimators([]), seed=seed)
    found = {
        name: np.array(
            [each.values.value[0], *each.interval(), each.diagnosis.effective]
        )
        for name, each in results.items()
    }
    bounds = Confounding(sample, CONFIG)
    row = bounds.row(1.0, seed=seed)
    numbers = [row["low"], row["ci_low"], row["ci_high"], bounds.stage.effective]
    found["Λ = 1"] = np.array(numbers)
    return found


def main() -> None:
    """Print the tables."""
    jax.config.update("jax_enable_x64", True)
    for stages, episodes in CASES:
        model, behavior, target = world(stages)
        value = float(evaluate_policy(model, table(target, stages))[0])
        rows: dict[tuple[str, str], list[np.ndarray]] = {}
        start = time.perf_counter()
        for seed in range(DATA_SETS):
            logs = simulate_logs(
                jax.random.key(seed),
                model,
                TabularPolicy(table(behavior, stages)),
                horizon=stages,
                episodes=episodes,
            )
            for known in (True, False):
                each = logs if known else dataclasses.replace(logs, probability=None)
                for name, found in measured(
                    each, TablePolicy(target[None]), seed
                ).items():
                    key = (name, "logged" if known else "estimated")
                    rows.setdefault(key, []).append(found)
            if (seed + 1) % 20 == 0:
                print(f"{seed + 1} of {DATA_SETS} data sets", file=sys.stderr)
        seconds = time.perf_counter() - start
        print(
            f"\n{stages} decisions, {episodes} episodes, {DATA_SETS} data sets; true "
        )
        print(f"value {value:.4f}; {seconds:.0f} s.\n")
        print("| estimator | behavior | bias | RMSE | covered, % | width | effective |")
        print("|---|---|---:|---:|---:|---:|---:|")
        for (name, source), found_all in rows.items():
            estimate, low, high, size = np.array(found_all).T
            covered = 100 * ((low <= value) & (value <= high)).mean()
            rmse = ((estimate - value) ** 2).mean() ** 0.5
            print(
                f"| {name} | {source} | {(estimate - value).mean():.4f} | {rmse:.4f} | "
                f"{covered:.1f} | {(high - low).mean():.3f} | {size.mean():.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
