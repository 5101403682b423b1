"""What trains: the model with its adapter, the trainer and its checkpoints."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainingArguments,
)
from transformers.integrations.integration_utils import TensorBoardCallback

from sdm.llm.bases import CausalModel, load_base
from sdm.llm.batching import ResumableTrainer
from sdm.llm.memory import memory_explained
from sdm.llm.recipes import FinetuneConfig
from sdm.llm.reporter import Reporter
from sdm.llm.tokens import IGNORED

CHECKPOINTS = "checkpoints"
# Where a step does not fit the memory.
LESS_AT_ONCE = (
    "raise `--accumulate`, pass `--gradient-checkpointing`, or `--quantize nf4`"
)


class UnresumableError(RuntimeError):
    """A checkpoint that Accelerate cannot read back."""

    hint = (
        "start again; runs with `--quantize none`, or in which every process holds the "
        "whole model, can be resumed"
    )


def prepare_model(
    config: FinetuneConfig,
) -> tuple[CausalModel, PreTrainedTokenizerBase]:
    """Return the base with an adapter on every linear layer, or to train as a whole."""
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
    if config.quantize == "nf4":
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


def share_of_batch(config: FinetuneConfig, processes: int) -> int:
    """Return the texts that a process takes at once.

    Raises:
        ValueError: if that is not a whole number.

    """
    share, rest = divmod(config.batch_size, processes * config.accumulate)
    if rest:
        raise ValueError(
            f"batch_size = {config.batch_size} cannot be divided evenly: there are "
            f"{processes} process{'es' * (processes > 1)}, and `--accumulate` is "
            f"{config.accumulate}"
        )
    return share


def training_arguments(
    config: FinetuneConfig, folder: Path, processes: int
) -> TrainingArguments:
    """Return the trainer's options for a configuration."""
    gpu, four_bits = torch.cuda.is_available(), config.quantize == "nf4"
    if four_bits and not gpu:
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
        optim="paged_adamw_32bit" if gpu and four_bits else "adamw_torch",
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


def make_trainer(
    config: FinetuneConfig,
    folder: Path,
    processes: int,
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    datasets: tuple[Dataset, Dataset],
    progress: Callable[[int, int], None],
) -> ResumableTrainer:
    """Return a trainer that logs to a run folder only.

    Args:
        config: how to train.
        folder: the run folder in progress.
        processes: how many share each batch.
        model: what to train.
        tokenizer: its tokeniser.
        datasets: tokens to train on, and to validate with.
        progress: called with the steps done and the steps there will be.

    """
    train, validation = datasets
    trainer = ResumableTrainer(
        together=config.batch_size,
        model=model,
        args=training_arguments(config, folder, processes),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
        callbacks=[Reporter(folder, progress)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def train(trainer: ResumableTrainer, config: FinetuneConfig, folder: Path) -> None:
    """Train, from the newest checkpoint if there is one.

    Raises:
        UnresumableError: if that is of 4-bit weights that FSDP has sharded.
        OutOfMemoryError: if a step does not fit the accelerator.

    """
    checkpoint = last_checkpoint(folder)
    if checkpoint and trainer.is_fsdp_enabled and config.quantize == "nf4":
        raise UnresumableError(
            f"{checkpoint}: 4-bit weights sharded by FSDP cannot be loaded"
        )
    with memory_explained(LESS_AT_ONCE):
        trainer.train(resume_from_checkpoint=checkpoint)


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest complete checkpoint, if any.

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


def tensorboard_callback(folder: Path) -> TensorBoardCallback:
    """Return a callback that writes the metrics in TensorBoard's format."""
    from torch.utils.tensorboard import SummaryWriter  # needs an extra

    return TensorBoardCallback(SummaryWriter(str(folder / "tensorboard")))
