"""Benchmark of off-policy estimates of fine-tuned models against their true values.

Prints a Markdown table. Each model acts in the test tasks of `energy` of a seed, shown
two episodes of random actions, and is estimated from logged episodes of random actions
in the same tasks, with each task's own estimates and with pooled ones.

    python benchmarks/language_model_off_policy.py RUN [RUN …]

The runs are language models of 10 decisions, trained with `--demonstrations random`;
the first is tested with seed 0, the second with seed 1, and so on.
"""

import sys
from dataclasses import dataclass

import jax
import numpy as np

from sdm.data.benchmark import Benchmark, EvaluationConfig, make_benchmark
from sdm.data.logs import Logs
from sdm.data.logs.simulate import simulate_logs
from sdm.data.off_policy.config import OffPolicyConfig
from sdm.data.off_policy.evaluate import chosen_estimators, evaluate_sample
from sdm.data.off_policy.logged_policy import PolicyOptions, parse_logged_policy
from sdm.data.off_policy.sample import sample_of
from sdm.evaluation.evaluate import evaluate
from sdm.tasks.policy import uniform_random
from sdm.tasks.registry import load_family

HORIZON, TASKS, EPISODES = 10, 100, 30
ESTIMATORS = ("fqe", "model", "dr", "wpdis")


def test_of(seed: int) -> EvaluationConfig:
    """Return the test of a seed."""
    return EvaluationConfig(
        load_family("energy", {}),
        horizon=HORIZON,
        tasks=TASKS,
        trajectories=EPISODES,
        demonstrations="random",
        seed=seed,
    )


def logs_of(bed: Benchmark, seed: int) -> Logs:
    """Return episodes of random actions in the tasks of a test."""
    behavior = uniform_random(bed.states, HORIZON)
    return simulate_logs(
        jax.random.key(seed), bed.states, behavior, horizon=HORIZON, episodes=EPISODES
    )


@dataclass(frozen=True)
class Known:
    """A policy with memory whose probabilities along the logs are known.

    Attributes:
        chances: the probabilities.

    """

    chances: np.ndarray
    table: None = None

    def probabilities_along(self, logs: Logs) -> np.ndarray:
        """Return the probabilities."""
        return self.chances


def main(runs: list[str]) -> None:
    """Print the table."""
    print("| seed | tasks | estimator | estimate | 95 % interval | true return |")
    print("|---:|---|---|---:|---|---:|")
    for seed, run in enumerate(runs):
        bed = make_benchmark(test_of(seed))
        (played,) = evaluate([run], bed)
        logs = logs_of(bed, seed)
        policy = parse_logged_policy(run, logs, PolicyOptions())
        known = Known(policy.probabilities_along(logs))
        for pool in (False, True):
            config = OffPolicyConfig(
                discount=float(bed.states.discount), pool_tasks=pool
            )
            sample = sample_of(logs, known, config)
            found = evaluate_sample(
                sample, config, chosen_estimators(ESTIMATORS), seed=seed
            )
            for name, each in found.items():
                low, high = each.interval()
                print(
                    f"| {seed} | {'pooled' if pool else 'own'} | {name} "
                    f"| {each.values.value[0]:.3f} | {low:.3f} … {high:.3f} "
                    f"| {played.returns.mean():.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main(sys.argv[1:])
