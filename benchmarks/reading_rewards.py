"""How many texts `tiny` needs to learn what rewards say, by its initial weights.

Texts are episodes of uniformly random arms in bandits whose arms pay nearly always or
nearly never, Beta(0.1, 0.1). After an arm is taken, the next token tells whether it
paid. The loss of that token is compared with the smallest possible one, of the
posterior mean of the arm, and with ln 2, the loss of a model that reads nothing.

    python benchmarks/reading_rewards.py
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from sdm.llm.finetune import finetune
from sdm.llm.runs import LoadedRun, load_run
from sdm.llm.self_training.config import SelfTrainConfig
from sdm.llm.self_training.dataset import write_dataset
from sdm.llm.self_training.play import random_play
from sdm.tasks.families.bandit import BanditFamily

CLEAR = BanditFamily(separation=0.0, mean_concentration=0.1)
HORIZON, PER_TASK, TESTED = 25, 3, 400
RANGES = (0.02, 0.088)
TASKS = (2000, 6000)


def main() -> None:
    """Print a table in Markdown, a line for each deviation and number of texts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| deviation of initial weights | texts | loss, nats | smallest possible |")
    print("|---:|---:|---:|---:|")
    for spread in RANGES:
        for tasks in TASKS:
            found = np.array([losses(s, spread, tasks) for s in range(asked.seeds)])
            own, least = found[:, 0], found[:, 1].mean()
            print(
                f"| {spread:g} | {tasks * PER_TASK} | {own.mean():.3f} "
                f"({own.min():.3f} … {own.max():.3f}) | {least:.3f} |",
                flush=True,
            )


def losses(seed: int, spread: float, tasks: int) -> tuple[float, float]:
    """Train a model, and return its loss of rewards and the smallest possible one."""
    config = SelfTrainConfig(
        CLEAR,
        HORIZON,
        support=0,
        keep=PER_TASK,
        start_scenarios=tasks,
        seed=seed,
        training={"initializer_range": spread},
    )
    play = random_play(config)
    with tempfile.TemporaryDirectory() as name:
        data, run = Path(name) / "data", Path(name) / "run"
        every = np.ones(play.played.action.shape[:2], bool)
        write_dataset(data, config, play, every, {})
        finetune(config.finetuning(str(data), "tiny"), run)
        model = load_run(run)
    arms, paid = unseen(np.random.default_rng([seed, 1]))
    shown = zip(arms, paid, strict=True)
    own = np.mean([loss_of(model, a.tolist(), r.tolist()) for a, r in shown])
    return float(own), float(np.mean([*smallest(arms, paid)]))


def unseen(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the arms and rewards of unseen episodes, [TESTED, HORIZON] each."""
    c = CLEAR.mean_concentration
    means = random.beta(c, c, (TESTED, CLEAR.arms))
    arms = random.integers(CLEAR.arms, size=(TESTED, HORIZON))
    chance = np.take_along_axis(means, arms, 1)
    return arms, random.random(arms.shape) < chance


@torch.no_grad()
def loss_of(run: LoadedRun, arms: list[int], paid: list[bool]) -> float:
    """Return a model's mean loss of the rewards of an episode."""
    text, places = "", []
    for arm, won in zip(arms, paid, strict=True):
        text += f"0{'abcdefghij'[arm]}"
        places.append(len(text) - 1)
        text += "." if won else ""
    ids = run.tokenizer(text, return_tensors="pt").input_ids
    logits = run.model.eval()(ids).logits[0].double().log_softmax(-1)
    mark = run.tokenizer.convert_tokens_to_ids(".")
    log = logits[places, mark].numpy()
    return -float(np.where(paid, log, np.log1p(-np.exp(log))).mean())


def smallest(arms: np.ndarray, paid: np.ndarray) -> Iterator[float]:
    """Yield the loss of each reward by the posterior mean of its arm."""
    for row, won in zip(arms, paid, strict=True):
        count = np.full((CLEAR.arms, 2), CLEAR.mean_concentration)
        for arm, reward in zip(row, won.astype(int), strict=True):
            yield -np.log(count[arm, reward] / count[arm].sum())
            count[arm, reward] += 1


if __name__ == "__main__":
    main()
