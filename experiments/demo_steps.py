"""Steps of the demo, and how long they take: by a published run, refined as it goes."""

import json
from dataclasses import dataclass
from pathlib import Path

PUBLISHED = Path(__file__).parent / "published" / "demo" / "results-seed-0.json"
DATA_SECONDS = 15.0  # to generate the data, which the published run did not record
# Seconds at the published speed that count beside what was measured, so that a short
# first step says little of the long ones.
AT_FIRST = 60.0
DATA = "oracle data"


@dataclass(frozen=True)
class DemoConfig:
    """Sizes of the demo.

    Attributes:
        tasks: number of training tasks.
        tiny_texts_per_task: training texts per task for `tiny`.
        smollm2_tasks: number of training tasks for `smollm2`, with one text each.
        test_tasks: number of unseen test tasks.
        test_trajectories: episodes per test task.
        seed: random seed.

    """

    tasks: int = 3200
    tiny_texts_per_task: int = 15
    smollm2_tasks: int = 800
    test_tasks: int = 100
    test_trajectories: int = 10
    seed: int = 0


QUICK = DemoConfig(
    tasks=1600,
    tiny_texts_per_task=8,
    smollm2_tasks=128,
    test_tasks=20,
    test_trajectories=3,
)


def fine_tuning(base: str) -> str:
    """Return the name of the step that fine-tunes a base."""
    return f"fine-tuning {base}"


def evaluating(policy: str) -> str:
    """Return the name of the step that evaluates a policy."""
    return f"evaluating {policy}"


def expected_seconds(config: DemoConfig) -> dict[str, float]:
    """Return the seconds of each step, in order, by the published run on one core."""
    run = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    sizes, then = run["demo"], run["finetune"]
    episodes = config.test_tasks * config.test_trajectories
    played = episodes / (sizes["test_tasks"] * sizes["test_trajectories"])
    tiny = config.tasks * config.tiny_texts_per_task
    tiny /= sizes["tasks"] * sizes["tiny_texts_per_task"]
    smollm2 = config.smollm2_tasks / sizes["smollm2_tasks"]
    return {
        DATA: DATA_SECONDS,
        fine_tuning("tiny"): tiny * then["tiny"]["seconds"],
        fine_tuning("smollm2"): smollm2 * then["smollm2"]["seconds"],
        **{
            evaluating(name): max(1.0, played * row["seconds"])
            for name, row in run["policies"].items()
        },
    }


class StepsLeft:
    """Estimate of the time left, scaled by the speed of this machine so far.

    Attributes:
        expected: seconds of each step on the machine of the published run, in order.
        speed: seconds here per expected second, so far.

    """

    def __init__(self, expected: dict[str, float]) -> None:
        """Start with the speed of the published run."""
        self.expected, self.speed = expected, 1.0
        self._done = self._spent = 0.0

    def finish(self, step: str, seconds: float) -> None:
        """Learn from the time of a step that ran from its beginning to its end."""
        self._done += self.expected[step]
        self._spent += seconds
        self.speed = (self._spent + AT_FIRST) / (self._done + AT_FIRST)

    def seconds(self, step: str) -> float:
        """Return the estimated time of a step."""
        return self.speed * self.expected[step]

    def from_step(self, step: str) -> float:
        """Return the estimated time of a step and all later ones."""
        names = list(self.expected)
        return sum(map(self.seconds, names[names.index(step) :]))
