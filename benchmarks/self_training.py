"""How far self-training gets in bandits, with a learner that wastes nothing.

The policy is a softmax of five statistics of each arm's history in the episode. In each
iteration it plays 16 episodes of 25 rounds in each of 400 bandits, the three with the
highest return are kept, and the policy of maximum likelihood replaces it: iterative
regret-minimising fine-tuning (Park, Chen, Ozdaglar, Zhang, 2025) without the errors of
a neural network. It starts from random arms.

    python benchmarks/self_training.py
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from sdm.evaluation.exploration import k_min_fraction, suffix_failure_frequency
from sdm.evaluation.regret_curve import regret_exponent

Means = Callable[[np.random.Generator, int], np.ndarray]  # of so many bandits [S, K]
BANDITS, EPISODES, KEPT, HORIZON = 400, 16, 3, 25
REPLICATES = 4000
HEAD = (
    "| trained on | iteration | regret there, T = 25 | regret, hard, T = 25 "
    "| regret, hard, T = 100 | exponent | SuffFail | K·MinFrac |"
)


def separated(arms: int, separation: float) -> Means:
    """Return bandits in which a random arm is better than all others."""

    def means(random: np.random.Generator, count: int) -> np.ndarray:
        best = random.integers(0, arms, (count, 1)) == np.arange(arms)
        return 0.5 + separation * (best - 0.5)

    return means


def uniform(random: np.random.Generator, count: int) -> np.ndarray:
    """Return bandits of five arms with independent, uniform means."""
    return random.random((count, 5))


HARD = separated(5, 0.2)
INSTANCES = {"hard": HARD, "easy": separated(4, 0.5), "uniform means": uniform}


def main() -> None:
    """Print a table in Markdown, of means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=48)
    asked = parser.parse_args()
    print(f"{HEAD}\n|---|{'---:|' * (HEAD.count('|') - 2)}")
    for name, means in INSTANCES.items():
        runs = [
            list(learn(np.random.default_rng(seed), means, asked.iterations))
            for seed in range(asked.seeds)
        ]
        for iteration in range(0, asked.iterations + 1, 8):
            lines = np.array([run[iteration // 8] for run in runs])
            low, high = lines.min(0), lines.max(0)
            texts = [
                f"{m:.2f} ({a:.2f} … {b:.2f})"
                for m, a, b in zip(lines.mean(0), low, high, strict=True)
            ]
            print(f"| {name} | {iteration} | {' | '.join(texts)} |", flush=True)


def learn(
    random: np.random.Generator, means: Means, iterations: int
) -> Iterator[list[float]]:
    """Yield the measures at the start and after every eighth iteration."""
    weights = np.zeros(5)
    for iteration in range(iterations + 1):
        if iteration:
            weights = refit(random, weights, means(random, BANDITS))
        if iteration % 8 == 0:
            yield measures(random, weights, means)


def refit(
    random: np.random.Generator, weights: np.ndarray, mean: np.ndarray
) -> np.ndarray:
    """Return the weights of maximum likelihood for the best of a policy's episodes."""
    known, arm, reward = play(random, weights, mean, EPISODES, HORIZON)
    best = np.argsort(-reward.sum(-1), axis=1, kind="stable")[:, :KEPT]
    shape = mean.shape[-1], len(weights)
    x = np.take_along_axis(known, best[..., None, None, None], 1).reshape(-1, *shape)
    taken = np.take_along_axis(arm, best[..., None], 1).reshape(-1)
    own = x[np.arange(len(taken)), taken]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        score = x @ weights
        log_p = log_softmax(score, axis=-1)[np.arange(len(taken)), taken]
        expected = np.einsum("nk,nkd->nd", softmax(score, axis=-1), x)
        return -log_p.mean(), (expected - own).mean(0)

    return minimize(loss, weights, jac=True, method="L-BFGS-B").x


def play(
    random: np.random.Generator,
    weights: np.ndarray,
    mean: np.ndarray,
    episodes: int,
    horizon: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return statistics [S, L, T, K, D], arms and rewards [S, L, T] of episodes."""
    won = np.zeros((len(mean), episodes, mean.shape[-1]))
    lost, parts = np.zeros_like(won), []
    for _ in range(horizon):
        n = won + lost
        known = np.stack([won, lost, n == 0, (won + 1) / (n + 2), np.sqrt(n)], -1)
        reached = softmax(known @ weights, axis=-1).cumsum(-1)
        arm = (reached[..., :-1] < random.random((*n.shape[:2], 1))).sum(-1)
        taken = arm[..., None] == np.arange(n.shape[-1])
        paid = random.random(arm.shape) < (taken * mean[:, None]).sum(-1)
        won, lost = won + (taken & paid[..., None]), lost + (taken & ~paid[..., None])
        parts.append((known, arm, paid.astype(float)))
    known, arm, reward = (np.stack(part, 2) for part in zip(*parts, strict=True))
    return known, arm, reward


def measures(
    random: np.random.Generator, weights: np.ndarray, means: Means
) -> list[float]:
    """Return what a line of the table has."""
    found = []
    for of, horizon in ((means, HORIZON), (HARD, HORIZON), (HARD, 100)):
        mean = of(random, REPLICATES)
        _, arm, _ = play(random, weights, mean, 1, horizon)
        arm = arm[:, 0]
        regret = mean.max(-1, keepdims=True) - np.take_along_axis(mean, arm, -1)
        found.append(regret.sum(-1).mean())
    growth = regret_exponent(regret)
    assert growth is not None
    return [
        *found,
        growth.slope,
        suffix_failure_frequency(regret == 0, 50),
        k_min_fraction(arm, 5),
    ]


if __name__ == "__main__":
    main()
