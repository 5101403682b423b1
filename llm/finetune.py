"""Supervised fine-tuning on oracle episodes: LoRA on a base model, or all of `tiny`.

Source: Zhang, Aghaei, Saghafian (2026), fine-tuning. What is theirs and what is ours in
the configuration stands in `recipes.py`.
"""

import dataclasses
import json
import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)
from transformers.integrations.integration_utils import TensorBoardCallback

from sdm.data.request import family_of
from sdm.data.shards import read_manifest, read_shards
from sdm.llm.bases import CausalModel, check_length, load_base
from sdm.llm.batching import ResumableTrainer
from sdm.llm.memory import memory_explained
from sdm.llm.processes import TorchGroup, join_processes
from sdm.llm.recipes import FinetuneConfig
from sdm.llm.reporter import Reporter
from sdm.llm.runs import (
    RunRecord,
    copy_weights,
    fingerprint,
    save_run,
    weights_folder,
    write_metrics,
)
from sdm.llm.schema import Schema, make_schema
from sdm.llm.texts import (
    PlayedEpisode,
    TrainingText,
    episodes_by_task,
    split_tasks,
    training_texts,
)
from sdm.llm.tokens import IGNORED, check_tokenizer, tokenise
from sdm.policies.policy_runs import tasks_of
from sdm.storage.processes import folder_of_all

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class FinetuneReport:
    """How a run went.

    Attributes:
        train_loss: mean training loss over the steps of the run.
        eval_loss: loss on the validation tasks after each epoch.
        tokens_per_second: training tokens, padding excluded, per second of training.
        seconds: of training and validation.
        steps: optimiser steps.
        processes: that shared each batch.

    """

    train_loss: float
    eval_loss: list[float]
    tokens_per_second: float
    seconds: float
    steps: int
    processes: int


def finetune(
    config: FinetuneConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    progress: Callable[[int, int], None] = lambda step, steps: None,
) -> FinetuneReport:
    """Fine-tune a base model on an oracle dataset and write the run folder `out`.

    Args:
        config: what to learn from, with what, and how.
        out: the run folder; `out.partial` until training is done.
        resume: go on with an unfinished run of the same configuration.
        overwrite: replace `out`.
        tensorboard: keep the metrics in TensorBoard's format, too.
        progress: called with the steps done and the steps there will be.

    Where `torchrun` or `accelerate launch` began several processes, they share each
    batch, and the first one writes.

    Raises:
        StorageError: if the data cannot be read or `out` cannot be begun.
        BaseModelError: if the base cannot be had.
        ValueError: if the dataset is too small for what is asked, its texts are longer
            than what the base reads, or a batch cannot be shared out evenly.
        FloatingPointError: if the training diverges.
        OutOfMemoryError: if a step does not fit the accelerator.
        UnresumableError: if a run to go on with is shared out by FSDP, in 4 bits.

    """
    processes = join_processes()
    manifest = read_manifest(Path(config.data))
    schema = make_schema(
        config.schema,
        family_of(manifest).spaces,
        manifest["kind"],
        rewards=manifest["observes_reward"],
    )
    texts = _texts(config, schema)
    share_of_batch(config, processes.num_processes)
    plan = {"finetune": dataclasses.asdict(config), "data": manifest["shards"]}
    inputs = (Path(config.data), Path(config.base))
    with folder_of_all(
        out, plan, TorchGroup(), inputs=inputs, resume=resume, overwrite=overwrite
    ) as folder:
        model, tokenizer = prepare_model(config)
        found = fingerprint(model) if config.lora_rank else None
        check_tokenizer(tokenizer, schema)
        data = [tokenise(tokenizer, schema, t, loss=config.loss) for t in texts]
        check_length(model, max(max(part["length"]) for part in data))
        trainer = _trainer(config, folder, processes.num_processes, model, data)
        trainer.data_collator = DataCollatorForSeq2Seq(
            tokenizer, label_pad_token_id=IGNORED
        )
        trainer.add_callback(Reporter(folder, progress))
        if tensorboard and processes.is_main_process:
            trainer.add_callback(_tensorboard(folder))
        with memory_explained(LESS_AT_ONCE):
            trainer.train(resume_from_checkpoint=_checkpoint(config, trainer, folder))
        report = _report(trainer)
        if not processes.is_main_process:
            return report
        best = folder / CHECKPOINTS / f"checkpoint-{trainer.state.best_global_step}"
        copy_weights(best, weights_folder(folder, config.lora_rank))
        record = RunRecord(
            config=dataclasses.asdict(config),
            report=dataclasses.asdict(report),
            tasks=tasks_of(manifest),
            base=found,
            training_texts=len(data[0]),
        )
        write_metrics(folder, trainer.state.log_history)
        save_run(folder, record, tokenizer)
    # Until the folder has its name a killed run may need them.
    shutil.rmtree(out / CHECKPOINTS)
    return report


def _texts(config: FinetuneConfig, schema: Schema) -> list[list[TrainingText]]:
    """Return the texts of the training split and of the validation split.

    Raises:
        StorageError: if the data cannot be read.
        ValueError: if there are too few tasks, episodes or random episodes.

    """
    table = read_shards(Path(config.data))
    tasks = _choose_tasks(config, episodes_by_task(table))
    random = None
    for option in ("demonstrations", "queries"):
        if getattr(config, option) == "all":
            random = episodes_by_task(table, random=True)
            if not random:
                raise ValueError(
                    f"`--{option} all` needs random episodes: `{config.data}` has "
                    "none; make it with `sdm solve --random-trajectories`"
                )
    splits = split_tasks(list(tasks), held_out=config.held_out, seed=config.seed)
    return [
        training_texts(
            {task: tasks[task] for task in chosen},
            schema,
            random=random,
            show_random=config.demonstrations == "all",
            ask_random=config.queries == "all",
            support=config.support,
            per_task=config.texts_per_task,
            seed=config.seed,
        )
        for chosen in splits
    ]


def _trainer(
    config: FinetuneConfig,
    folder: Path,
    processes: int,
    model: CausalModel,
    data: Sequence[Dataset],
) -> ResumableTrainer:
    """Return the trainer, which logs nothing to the console: `Reporter` reports."""
    train, validation = data
    trainer = ResumableTrainer(
        together=config.batch_size,
        model=model,
        args=_training_arguments(config, folder, processes),
        train_dataset=train,
        eval_dataset=validation,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _checkpoint(
    config: FinetuneConfig, trainer: ResumableTrainer, folder: Path
) -> str | None:
    """Return the checkpoint to continue from; None where there is none.

    Raises:
        UnresumableError: if Accelerate cannot read it back.

    """
    found = last_checkpoint(folder)
    if found and trainer.is_fsdp_enabled and config.quantize:
        raise UnresumableError(
            f"{found}: 4-bit weights sharded by FSDP cannot be loaded"
        )
    return found


def _choose_tasks(
    config: FinetuneConfig, tasks: dict[int, list[PlayedEpisode]]
) -> dict[int, list[PlayedEpisode]]:
    """The first `config.tasks` tasks of a dataset."""
    if config.tasks is None:
        return tasks
    if config.tasks > len(tasks):
        raise ValueError(
            f"{config.tasks} tasks are asked for: `{config.data}` has {len(tasks)}"
        )
    return dict(list(tasks.items())[: config.tasks])


def prepare_model(
    config: FinetuneConfig,
) -> tuple[CausalModel, PreTrainedTokenizerBase]:
    """The base with a fresh adapter on every linear layer, or with all weights free."""
    model, tokenizer = load_base(
        config.base,
        quantize=config.quantize,
        from_scratch=config.from_scratch,
        every_weight=config.lora_rank == 0,
        seed=config.seed,
        trust_remote_code=config.trust_remote_code,
    )
    if config.lora_rank == 0:
        return model, tokenizer
    if config.quantize:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return get_peft_model(model, lora), tokenizer


def _tensorboard(folder: Path) -> TensorBoardCallback:
    """Write the metrics of a run where TensorBoard finds them."""
    from torch.utils.tensorboard import SummaryWriter  # needs an extra

    return TensorBoardCallback(SummaryWriter(str(folder / "tensorboard")))


class UnresumableError(RuntimeError):
    """A checkpoint that Accelerate cannot read back."""

    hint = (
        "begin again; runs that every process holds whole, or of `--quantize none`, "
        "can be resumed"
    )


# Where a step does not fit the memory.
LESS_AT_ONCE = (
    "raise `--accumulate`, which takes a batch in so many pieces, pass "
    "`--gradient-checkpointing`, or `--quantize nf4`"
)


def share_of_batch(config: FinetuneConfig, processes: int) -> int:
    """Texts that a process takes at once.

    Raises:
        ValueError: if that is not a whole number.

    """
    share, rest = divmod(config.batch_size, processes * config.accumulate)
    if rest:
        raise ValueError(
            f"batch_size = {config.batch_size} cannot be shared out evenly: there are "
            f"{processes} process{'es' * (processes > 1)}, and `--accumulate` is "
            f"{config.accumulate}"
        )
    return share


def _training_arguments(
    config: FinetuneConfig, folder: Path, processes: int
) -> TrainingArguments:
    gpu = torch.cuda.is_available()
    if config.quantize and not gpu:
        warnings.warn("no GPU: the optimiser, AdamW, is not paged", stacklevel=3)
    share = share_of_batch(config, processes)
    return TrainingArguments(
        output_dir=str(folder / CHECKPOINTS),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=share,
        per_device_eval_batch_size=4 * share,
        gradient_accumulation_steps=config.accumulate,
        gradient_checkpointing=config.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        optim="paged_adamw_32bit" if gpu and config.quantize else "adamw_torch",
        bf16=gpu,
        use_cpu=not gpu,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        metric_for_best_model="eval_loss",  # the best is kept whatever the limit
        logging_steps=1,  # so that a resumed run knows the loss of every step
        include_num_input_tokens_seen="non_padding",
        dataloader_pin_memory=gpu,
        ddp_find_unused_parameters=False,
        seed=config.seed,
        logging_nan_inf_filter=False,  # a loss that is not a number must be seen
        report_to="none",
        disable_tqdm=True,
    )


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end, if any.

    The trainer's state is the last file that goes into a checkpoint; one without it, or
    with half of it, was cut short.
    """
    complete = []
    for path in (folder / CHECKPOINTS).glob("checkpoint-*"):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            continue
        complete.append((int(path.name.split("-")[1]), str(path)))
    return max(complete)[1] if complete else None


def _report(trainer: Trainer) -> FinetuneReport:
    """What the log says, of all sessions of a run that was resumed.

    Raises:
        FloatingPointError: if a loss is not finite.

    """
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    eval_losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    if not all(math.isfinite(loss) for loss in (*losses, *eval_losses)):
        raise FloatingPointError(
            "the training diverged: a loss is not finite; lower the learning rate"
        )
    seconds = history[-1]["seconds"]
    return FinetuneReport(
        train_loss=sum(losses) / len(losses),
        eval_loss=eval_losses,
        tokens_per_second=trainer.state.num_input_tokens_seen / seconds,
        seconds=seconds,
        steps=trainer.state.global_step,
        processes=trainer.accelerator.num_processes,
    )
