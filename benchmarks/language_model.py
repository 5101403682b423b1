"""Benchmark of fine-tuning against TRL, and of acting with and without a cache.

Prints two Markdown tables. Training: tokens per second, without padding, of the trainer
of `sdm finetune` and of TRL's `SFTTrainer` with packing, on the same base, texts and
machine. TRL must be installed (`pip install 'sdm-llm[bench]'`), and the first steps are
a warm-up. Acting: decisions per second of the policy, which caches keys and values, and
of scoring the whole text of every episode again at every stage.
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
from sdm.data.generation import write_oracle_dataset
from sdm.data.request import OracleConfig, family_of
from sdm.data.shards import read_manifest, read_shards
from sdm.llm.acting import language_model_policy
from sdm.llm.devices import compute_dtype
from sdm.llm.episode import Episode, render_prompt
from sdm.llm.finetune import finetune
from sdm.llm.policy import LanguageModelPolicy, episodes_of
from sdm.llm.recipes import FinetuneConfig, recipe
from sdm.llm.schema import make_schema
from sdm.llm.scoring import encode, split_candidates
from sdm.llm.texts import episodes_by_task, training_texts
from sdm.llm.training import prepare_model
from sdm.solvers_jax import EnergyFamily
from sdm.storage.provenance import provenance
from sdm.tasks.rollout import Trajectory, rollout_on_host, task_keys

UNCOUNTED = 2  # warm-up steps


class Clock:
    """The times at which the steps of a training end."""

    def __init__(self) -> None:
        """Start without steps."""
        self.ends: list[float] = []

    def __call__(self, step: int, steps: int) -> None:
        """Record the end of a step."""
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Seconds of all steps after the warm-up."""
        if len(self.ends) <= UNCOUNTED:
            raise SystemExit(
                f"{len(self.ends)} optimizer steps: more than the {UNCOUNTED} of the "
                "warm-up are needed; raise --tasks"
            )
        return self.ends[-1] - self.ends[UNCOUNTED - 1]


def texts_of(config: FinetuneConfig) -> list[str]:
    """Return the training texts of all tasks."""
    manifest = read_manifest(Path(config.data))
    schema = make_schema(
        config.schema,
        family_of(manifest).spaces,
        manifest["kind"],
        rewards=manifest["observes_reward"],
    )
    made = training_texts(
        episodes_by_task(read_shards(Path(config.data))),
        schema,
        support=config.support,
        per_task=config.texts_per_task,
        seed=config.seed,
    )
    return [text.text for text in made]


def ours(config: FinetuneConfig, folder: Path) -> float:
    """Return the tokens per second of sdm's trainer after the warm-up."""
    clock = Clock()
    report = finetune(config, folder / "ours", progress=clock)
    tokens = report.tokens_per_second * report.seconds  # of all steps
    return tokens * (report.steps - UNCOUNTED) / report.steps / clock.seconds


def trl(config: FinetuneConfig, folder: Path, length: int) -> float:
    """Return the tokens per second of TRL's trainer with rows of `length` tokens."""
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
    together = config.batch_size * tokens / len(texts)  # tokens per step, as in `ours`
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
            bf16=compute_dtype() == torch.bfloat16,
            fp16=compute_dtype() == torch.float16,
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


def without_cache(policy: LanguageModelPolicy, played: Trajectory) -> float:
    """Score the whole text of every episode at every stage, without a cache.

    Returns:
        The fraction of the actions taken that have the highest score.

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
    """Print decisions per second with the cache and without it."""
    config = EvaluationConfig(EnergyFamily(), horizon, tasks, episodes)
    bed = make_benchmark(config)
    policy = language_model_policy(f"icl:{base}", bed, schema=schema)(slice(None))
    keys = task_keys(jax.random.key(0), tasks)

    def play() -> Trajectory:
        return rollout_on_host(
            keys, bed.tasks.world, policy, horizon=horizon, episodes=episodes
        )

    play()  # compiles
    start = time.perf_counter()
    played = play()
    middle = time.perf_counter()
    same = without_cache(policy, played)
    end = time.perf_counter()
    decisions = tasks * episodes * horizon
    print(
        f"| {base}, {schema}, {tasks} × {episodes} × {horizon} | "
        f"{decisions / (middle - start):.1f} | {decisions / (end - middle):.1f} | "
        f"{(end - middle) / (middle - start):.1f} | {100 * same:.1f} % |",
        flush=True,
    )


def training(options: argparse.Namespace) -> None:
    """Print the tokens per second of both trainers."""
    print("| training | tokens/s | × TRL |")
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
            print(f"| sdm, {options.schema} | {own:.0f} | TRL is not installed |")
        else:
            print(f"| sdm, {options.schema} | {own:.0f} | {own / theirs:.2f} |")
            print(f"| TRL, packed, {options.schema} | {theirs:.0f} | 1 |", flush=True)


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="smollm2", help="Base model.")
    parser.add_argument("--tasks", type=int, default=10, help="Training tasks.")
    parser.add_argument("--test-tasks", type=int, default=2, help="Tasks to act in.")
    parser.add_argument("--only", choices=["training", "acting"])
    parser.add_argument("--schema", default="compact", help="Text schema.")
    parser.add_argument("--length", type=int, default=512, help="Tokens per TRL row.")
    options = parser.parse_args()
    print(f"On {provenance(by_torch=True)['device']}, torch {torch.__version__}\n")
    if options.only != "acting":
        training(options)
    if options.only != "training":
        print(
            "\n| acting: tasks × episodes × T | decisions/s | without cache | × | "
            "same actions |"
        )
        print("|---|---|---|---|---|")
        acting(options.base, options.schema, options.test_tasks, 30, 20)


if __name__ == "__main__":
    main()
