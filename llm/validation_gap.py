"""The optimality gap of a model in validation tasks, while it is trained.

The tasks are those whose texts are held out. Their demonstrations and episodes have
random numbers of their own, so that the choice of weights does not touch the test.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from sdm.data.benchmark import Benchmark, EvaluationConfig, validation_benchmark
from sdm.data.request import family_of
from sdm.data.shards import read_manifest
from sdm.evaluation.evaluate import evaluate_stepwise
from sdm.llm.acting import maker_of
from sdm.llm.recipes import FinetuneConfig
from sdm.llm.schema import Schema

EPISODES = 10  # of each task


class ValidationGap:
    """Measures the gap of a model in validation tasks.

    Args:
        config: fine-tuning configuration; `eval_gap` is the number of tasks.
        tasks: indices of the validation tasks in the dataset.
        schema: text schema of the episodes.
        tokenizer: the model's tokenizer.

    Raises:
        ValueError: if there are fewer validation tasks.

    """

    def __init__(
        self,
        config: FinetuneConfig,
        tasks: Sequence[int],
        schema: Schema,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        """Solve the tasks, and play the oracle."""
        if config.eval_gap > len(tasks):
            raise ValueError(
                f"eval_gap = {config.eval_gap}: must be at most {len(tasks)}, the "
                "validation tasks; raise `--held-out`"
            )
        self.schema, self.tokenizer = schema, tokenizer
        self.bed = validation_bed(config, tasks[: config.eval_gap])

    def __call__(self, model: Any) -> dict[str, float]:
        """Return the headline gap in per cent, and the regret that chooses weights.

        Where regrets are unknown, the gap takes their place.
        """
        model.eval()
        policy = maker_of(self.bed, self.schema, self.tokenizer, model)
        result = evaluate_stepwise("model", self.bed, policy, rows=policy.rows)
        gap = 100 * result.gap.mean
        chosen = result.by_regret or result.gap
        return {"gap": gap, "regret": 100 * chosen.mean}


def validation_bed(config: FinetuneConfig, tasks: Sequence[int]) -> Benchmark:
    """Return the benchmark of some tasks of the dataset."""
    manifest: Mapping[str, Any] = read_manifest(Path(config.data))
    believe = manifest["believe"]
    test = EvaluationConfig(
        family=family_of(manifest),
        horizon=manifest["horizon"],
        tasks=len(tasks),
        trajectories=EPISODES,
        support=config.support,
        demonstrations="random" if config.demonstrations == "random" else "optimal",
        seed=manifest["seed"],
        kind=manifest["kind"],
        believe="mixture" if believe is None else believe,
        every_model=False,
        observes_reward=manifest["observes_reward"],
    )
    return validation_benchmark(test, tasks)
