"""Language models: training against TRL, and acting with a cache against without.

Prints two Markdown tables. Training: tokens a second, padding not counted, of
`sdm finetune`'s trainer and of TRL's `SFTTrainer` with packing, on the same base,
texts and machine, where TRL is installed (`pip install 'sdm-llm[bench]'`); the first
steps are not counted. Acting: decisions a second of the policy as it is, and scoring
every episode's whole text anew at every stage.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.data.generation import OracleConfig, write_oracle_dataset
from sdm.data.shards import read_shards
from sdm.llm.acting import language_model_policy
from sdm.llm.finetune import finetune, prepare_model
from sdm.llm.policy import LanguageModelPolicy, episodes_of
from sdm.llm.recipes import FinetuneConfig, recipe
from sdm.llm.runs import environment
from sdm.llm.scoring import encode, split_candidates
from sdm.llm.serialize import SCHEMAS, Episode, render_prompt
from sdm.llm.texts import episodes_by_task, training_texts
from sdm.solvers_jax import EnergyFamily
from sdm.tasks.rollout import Trajectory, rollout_on_host, task_keys

UNCOUNTED = 2  # steps of warming up


class Clock:
    """When each step of a training ended."""

    def __init__(self) -> None:
        """Begin empty."""
        self.ends: list[float] = []

    def __call__(self, step: int, steps: int) -> None:
        """Note a step."""
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Of the steps that count."""
        return self.ends[-1] - self.ends[UNCOUNTED - 1]


def texts_of(config: FinetuneConfig) -> list[str]:
    """The training texts, all tasks."""
    tasks = episodes_by_task(read_shards(Path(config.data)))
    made = training_texts(
        tasks,
        SCHEMAS[config.schema],
        support=config.support,
        per_task=config.texts_per_task,
        seed=config.seed,
    )
    return [text.text for text in made]


def ours(config: FinetuneConfig, folder: Path) -> float:
    """Tokens a second of our trainer, all steps but the first."""
    clock = Clock()
    report = finetune(config, folder / "ours", progress=clock)
    tokens = report.tokens_per_second * report.seconds  # of all steps
    return tokens * (report.steps - UNCOUNTED) / report.steps / clock.seconds


def trl(config: FinetuneConfig, folder: Path, length: int) -> float:
    """Tokens a second of TRL's trainer with packing into rows of `length` tokens."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    clock = Clock()

    class Timer(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock(state.global_step, state.max_steps)

    model, tokenizer = prepare_model(config)
    texts = texts_of(config)
    tokens = sum(len(ids) for ids in tokenizer(texts)["input_ids"])
    together = config.batch_size * tokens / len(texts)  # as many a step as ours
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"text": texts}),
        args=SFTConfig(
            output_dir=str(folder / "trl"),
            num_train_epochs=config.epochs,
            per_device_train_batch_size=max(1, round(together / length)),
            learning_rate=config.learning_rate,
            packing=True,
            max_length=length,
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
            gradient_checkpointing=False,
            include_num_input_tokens_seen="non_padding",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        callbacks=[Timer()],
    )
    trainer.train()
    steps = trainer.state.global_step
    seen = trainer.state.num_input_tokens_seen
    return float(seen) * (steps - UNCOUNTED) / steps / clock.seconds


def anew(policy: LanguageModelPolicy, played: Trajectory) -> float:
    """Score every whole text of the episodes at every stage.

    Returns:
        The share of the actions played that are the best scored.

    """
    same = []
    answers = [policy.schema.answer(action) for action in range(policy.actions)]
    tasks = episodes_of(played)
    for t in range(played.action.shape[-1]):
        texts, taken = [], []
        for support, episodes in zip(policy.support, tasks, strict=True):
            for e in episodes:
                rewards = None if e.rewards is None else e.rewards[:t]
                so_far = Episode(e.observations[: t + 1], e.actions[:t], rewards)
                texts.append(render_prompt(policy.schema, support, so_far))
                taken.append(e.actions[t])
        split = [
            split_candidates(encode(policy.tokenizer, [text + x for x in answers]))
            for text in texts
        ]
        scores = policy.begin([[] for _ in texts]).score(
            [shared for shared, _ in split],
            [left for _, left in split],
            range(len(texts)),
        )
        same.append(scores.argmax(-1) == np.array(taken))
    return float(np.mean(same))


def acting(base: str, schema: str, tasks: int, episodes: int, horizon: int) -> None:
    """Print decisions a second as we act, and scoring all texts anew."""
    config = EvaluationConfig(EnergyFamily(), horizon, tasks, episodes)
    bed = make_benchmark(config)
    policy = language_model_policy(f"icl:{base}", bed, schema=schema)(slice(None))
    keys = task_keys(jax.random.key(0), tasks)

    def play() -> Trajectory:
        return rollout_on_host(
            keys, bed.tasks.world, policy, horizon=horizon, episodes=episodes
        )

    play()  # compiles what JAX does
    start = time.perf_counter()
    played = play()
    middle = time.perf_counter()
    same = anew(policy, played)
    end = time.perf_counter()
    decisions = tasks * episodes * horizon
    print(
        f"| {base}, {schema}, {tasks} × {episodes} × {horizon} | "
        f"{decisions / (middle - start):.1f} | {decisions / (end - middle):.1f} | "
        f"{(end - middle) / (middle - start):.1f} | {100 * same:.1f} % |",
        flush=True,
    )


def training(options: argparse.Namespace) -> None:
    """Print tokens a second of our trainer and of TRL's."""
    print("| training | tokens a second | × TRL |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = OracleConfig(EnergyFamily(), 20, options.tasks, 15)
        write_oracle_dataset(made, folder / "data")
        config = recipe(
            str(folder / "data"),
            options.base,
            schema=options.schema,
            texts_per_task=8,
        )
        own = ours(config, folder)
        try:
            theirs = trl(config, folder, options.length)
        except ImportError:
            print(f"| ours, {options.schema} | {own:.0f} | TRL is not installed |")
        else:
            print(f"| ours, {options.schema} | {own:.0f} | {own / theirs:.2f} |")
            print(f"| TRL, packed, {options.schema} | {theirs:.0f} | 1 |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--tasks", type=int, default=10, help="To train on.")
    parser.add_argument("--test-tasks", type=int, default=2, help="To act in.")
    parser.add_argument("--only", choices=["training", "acting"])
    parser.add_argument("--schema", default="compact")
    parser.add_argument("--length", type=int, default=512, help="Of TRL's rows.")
    options = parser.parse_args()
    print(f"On {environment()['device']}, torch {torch.__version__}\n")
    if options.only != "acting":
        training(options)
    if options.only != "training":
        print(
            "\n| acting: tasks × episodes × T | decisions a second | anew | × | same |"
        )
        print("|---|---|---|---|---|")
        acting(options.base, options.schema, options.test_tasks, 30, 20)


if __name__ == "__main__":
    main()
