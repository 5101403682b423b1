"""Training: the model with its adapter, the trainer and its checkpoints."""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    prepare_model_for_kbit_training,
)
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainingArguments,
)
from transformers.integrations.integration_utils import TensorBoardCallback

from sdm.llm.bases import CausalModel, load_base
from sdm.llm.batching import ResumableTrainer
from sdm.llm.devices import compute_dtype
from sdm.llm.memory import memory_explained
from sdm.llm.recipes import FinetuneConfig
from sdm.llm.reporter import Reporter
from sdm.llm.run_folder import start_weights
from sdm.llm.tokens import IGNORED

CHECKPOINTS = "checkpoints"
GAPS = 10  # validations by gap in a run, up to rounding of the steps between them
# The hint if a step does not fit the memory.
LESS_AT_ONCE = (
    "raise `--accumulate`, pass `--gradient-checkpointing`, or `--quantize nf4`"
)


class UnresumableError(RuntimeError):
    """A checkpoint that Accelerate cannot load."""

    hint = (
        "start again; runs with `--quantize none`, or with the whole model in every "
        "process, can be resumed"
    )


def prepare_model(
    config: FinetuneConfig,
    check: Callable[[PreTrainedModel, PreTrainedTokenizerBase], None] | None = None,
) -> tuple[CausalModel, PreTrainedTokenizerBase]:
    """Load the base, with an adapter on every linear layer unless `lora_rank` is 0.

    Args:
        config: fine-tuning configuration.
        check: called with the base and its tokenizer before the adapter is added.

    Raises:
        StorageError: if `config.start` is no run folder.
        ValueError: if its base or rank is another one.

    """
    weights = None if config.start is None else start_weights(config)
    whole = weights is not None and config.lora_rank == 0
    model, tokenizer = load_base(
        str(weights) if whole else config.base,
        quantize=config.quantize,
        from_scratch=config.from_scratch,
        every_weight=config.lora_rank == 0,
        seed=config.seed,
        initializer_range=config.initializer_range,
        trust_remote_code=config.trust_remote_code,
    )
    if check is not None:
        check(model, tokenizer)
    if config.lora_rank == 0:
        return model, tokenizer
    if config.quantize == "nf4":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if weights is None:
        return _with_adapter(model, config), tokenizer
    return PeftModel.from_pretrained(model, weights, is_trainable=True), tokenizer


def _with_adapter(model: PreTrainedModel, config: FinetuneConfig) -> CausalModel:
    """Return a model with an adapter on every linear layer.

    The experts of a mixture are slices of one parameter, for which PEFT has no dropout
    and refuses a configuration with it. Their adapters have none.
    """
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        adapted = get_peft_model(model, lora)
    layers = [layer for layer in adapted.modules() if isinstance(layer, LoraLayer)]
    plain = [layer for layer in layers if not isinstance(layer, ParamWrapper)]
    if config.lora_dropout:
        for layer in plain:
            layer.lora_dropout["default"] = torch.nn.Dropout(config.lora_dropout)
    if len(plain) == len(layers):
        chosen: Any = adapted.peft_config["default"]
        chosen.lora_dropout = config.lora_dropout
    return adapted


def share_of_batch(config: FinetuneConfig, processes: int) -> int:
    """Return the number of texts per process and micro-batch.

    Raises:
        ValueError: if the batch size cannot be divided evenly.

    """
    share, rest = divmod(config.batch_size, processes * config.accumulate)
    if rest:
        raise ValueError(
            f"batch_size = {config.batch_size}: must be a multiple of processes times "
            f"gradient-accumulation steps, {processes} × {config.accumulate}"
        )
    return share


def training_arguments(
    config: FinetuneConfig, folder: Path, processes: int
) -> TrainingArguments:
    """Return the trainer's options for a configuration.

    Float16 has less range than bfloat16: with `fp16`, the trainer scales the loss.
    """
    gpu, four_bits = torch.cuda.is_available(), config.quantize == "nf4"
    if four_bits and not gpu:
        warnings.warn("no GPU: AdamW replaces paged AdamW", stacklevel=3)
    share = share_of_batch(config, processes)
    arguments = TrainingArguments(
        output_dir=str(folder / CHECKPOINTS),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=share,
        per_device_eval_batch_size=share,  # never needs more memory than training
        gradient_accumulation_steps=config.accumulate,
        gradient_checkpointing=config.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        optim="paged_adamw_32bit" if gpu and four_bits else "adamw_torch",
        bf16=compute_dtype() == torch.bfloat16,
        fp16=compute_dtype() == torch.float16,
        use_cpu=not gpu,
        **_validation(config),
        save_total_limit=2,  # never deletes the best one
        greater_is_better=False,
        logging_steps=1,  # a resumed run reports the loss of every step
        include_num_input_tokens_seen="non_padding",
        dataloader_pin_memory=gpu,
        ddp_find_unused_parameters=False,
        seed=config.seed,
        logging_nan_inf_filter=False,  # otherwise a loss of NaN is hidden
        report_to="none",
        disable_tqdm=True,
    )
    _use_one_gpu(arguments)
    return arguments


def _validation(config: FinetuneConfig) -> dict[str, Any]:
    """Return when to validate, and the metric that chooses the weights."""
    if not config.eval_gap:
        every: dict[str, Any] = {"eval_strategy": "epoch", "save_strategy": "epoch"}
        return every | {"metric_for_best_model": "eval_loss"}
    part = 1 / GAPS
    steps = {"eval_strategy": "steps", "eval_steps": part}
    steps |= {"save_strategy": "steps", "save_steps": part}
    return steps | {"metric_for_best_model": "eval_regret"}


def _use_one_gpu(arguments: TrainingArguments) -> None:
    """Keep a single process from training on every visible GPU.

    The trainer would copy the model to all of them and multiply the batch size by their
    number.
    """
    if arguments.n_gpu > 1:
        warnings.warn(
            f"{arguments.n_gpu} GPUs are visible, one is used: to train on all, start "
            f"`torchrun --nproc-per-node {arguments.n_gpu} -m sdm.cli finetune …`",
            stacklevel=4,
        )
        arguments._n_gpu = 1


def make_trainer(
    config: FinetuneConfig,
    folder: Path,
    processes: int,
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    datasets: tuple[Dataset, Dataset],
    progress: Callable[[int, int], None],
    gap: Callable[[Any], Mapping[str, float]] | None = None,
) -> ResumableTrainer:
    """Return a trainer that logs to a run folder only.

    Args:
        config: fine-tuning configuration.
        folder: the run folder in progress.
        processes: number of processes that share each batch.
        model: the model to train.
        tokenizer: its tokenizer.
        datasets: tokenized training and validation texts.
        progress: called with the completed steps and all steps.
        gap: measures the gap of the model in validation tasks; None to measure none.

    Raises:
        ValueError: if the gap is to be measured of a model that FSDP shards.

    """
    train, validation = datasets
    trainer = ResumableTrainer(
        together=config.batch_size,
        gap=gap,
        model=model,
        args=training_arguments(config, folder, processes),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
        callbacks=[Reporter(folder, progress)],
    )
    trainer.remove_callback(PrinterCallback)
    if config.eval_gap and trainer.is_fsdp_enabled:
        raise ValueError(
            f"eval_gap = {config.eval_gap}: must be 0 with FSDP, since a sharded model "
            "cannot act during training"
        )
    return trainer


def train(trainer: ResumableTrainer, config: FinetuneConfig, folder: Path) -> None:
    """Train, from the newest checkpoint if there is one.

    Raises:
        UnresumableError: if the checkpoint has 4-bit weights sharded by FSDP.
        OutOfMemoryError: if a step does not fit the accelerator's memory.

    """
    checkpoint = last_checkpoint(folder)
    if checkpoint and trainer.is_fsdp_enabled and config.quantize == "nf4":
        raise UnresumableError(
            f"{checkpoint}: 4-bit weights sharded by FSDP cannot be loaded"
        )
    with memory_explained(LESS_AT_ONCE):
        trainer.train(resume_from_checkpoint=checkpoint)


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest complete checkpoint; None if there is none.

    The trainer's state is the last file that is written to a checkpoint. If it is
    missing or incomplete, the checkpoint was interrupted.
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
    from torch.utils.tensorboard import SummaryWriter  # an optional dependency

    return TensorBoardCallback(SummaryWriter(str(folder / "tensorboard")))
