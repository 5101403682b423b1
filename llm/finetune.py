"""Supervised fine-tuning on oracle episodes: LoRA on a base model, or all of `tiny`.

Source: Zhang, Aghaei, Saghafian (2026), fine-tuning. `recipes.py` lists the options
that follow the paper, and our choices.
"""

import dataclasses
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

from sdm.llm.acting_check import check_acting
from sdm.llm.context import check_length
from sdm.llm.devices import threads_for
from sdm.llm.processes import TorchGroup, join_processes
from sdm.llm.recipes import FinetuneConfig
from sdm.llm.run_folder import RunHeader, weights_folder
from sdm.llm.runs import (
    RunRecord,
    copy_weights,
    fingerprint,
    save_run,
    write_metrics,
)
from sdm.llm.tokens import check_tokenizer, tokenise
from sdm.llm.training import (
    CHECKPOINTS,
    make_trainer,
    prepare_model,
    share_of_batch,
    tensorboard_callback,
    train,
)
from sdm.llm.training_data import TrainingData, read_training_data
from sdm.llm.validation_gap import ValidationGap
from sdm.policies.policy_runs import tasks_of
from sdm.storage.processes import folder_of_all


@dataclass(frozen=True)
class FinetuneReport:
    """Losses, speed and time of a run.

    Attributes:
        train_loss: mean training loss over the steps of the run.
        eval_loss: loss on the validation tasks at each validation.
        eval_gap: optimality gap in validation tasks at each validation, in per cent;
            empty if it is not measured.
        tokens_per_second: training tokens, padding excluded, per second of training.
        seconds: time of training and validation.
        steps: optimizer steps.
        processes: number of processes that shared each batch.

    """

    train_loss: float
    eval_loss: list[float]
    eval_gap: list[float]
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

    Several processes that `torchrun` or `accelerate launch` started share each batch;
    the first one writes all files.

    Args:
        config: fine-tuning configuration.
        out: the run folder; its name is `out.partial` until training is complete.
        resume: continue an unfinished run of the same configuration.
        overwrite: replace `out`.
        tensorboard: also write the metrics in TensorBoard's format.
        progress: called with the completed steps and all steps.

    Raises:
        StorageError: if the data cannot be read or `out` cannot be created.
        BaseModelError: if the base is unavailable.
        CannotActError: if the base can be trained but cannot act.
        ValueError: if the dataset is too small, the schema cannot write it, a text is
            longer than the base's context, or a batch cannot be divided evenly.
        FloatingPointError: if the training diverges.
        OutOfMemoryError: if a step does not fit the accelerator's memory.
        UnresumableError: if the run to resume has 4-bit weights sharded by FSDP.

    """
    processes = join_processes()
    data = read_training_data(config)
    share_of_batch(config, processes.num_processes)
    plan = {"finetune": dataclasses.asdict(config), "data": data.manifest["shards"]}
    options = {
        "inputs": (
            *(Path(config.data), Path(config.base)),
            *((Path(config.start),) if config.start else ()),
        ),
        "resume": resume,
        "overwrite": overwrite,
    }
    with folder_of_all(out, plan, TorchGroup(), **options) as folder:
        report = _fill(
            folder,
            config,
            data,
            processes,
            tensorboard=tensorboard,
            progress=progress,
        )
    if processes.is_main_process:
        # A run that is killed before the folder has its name resumes from them.
        shutil.rmtree(out / CHECKPOINTS)
    return report


def _fill(
    folder: Path,
    config: FinetuneConfig,
    data: TrainingData,
    processes: PartialState,
    *,
    tensorboard: bool,
    progress: Callable[[int, int], None],
) -> FinetuneReport:
    """Train in a run folder; the first process writes the results."""

    def check(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        check_tokenizer(tokenizer, data.schema)
        check_acting(config.base, base, tokenizer, data.schema)

    model, tokenizer = prepare_model(config, check)
    base = fingerprint(model) if config.lora_rank else None
    datasets = (
        tokenise(tokenizer, data.schema, data.train, loss=config.loss),
        tokenise(tokenizer, data.schema, data.validation, loss=config.loss),
    )
    check_length(model, max(max(part["length"]) for part in datasets))
    count = processes.num_processes
    gap = None
    if config.eval_gap:
        tasks = data.validation_tasks
        gap = ValidationGap(config, tasks, data.schema, tokenizer)
    trainer = make_trainer(
        config, folder, count, model, tokenizer, datasets, progress, gap
    )
    if tensorboard and processes.is_main_process:
        trainer.add_callback(tensorboard_callback(folder))
    with threads_for(model):
        train(trainer, config, folder)
    report = _report(trainer)
    if processes.is_main_process:
        best = folder / CHECKPOINTS / f"checkpoint-{trainer.state.best_global_step}"
        copy_weights(best, weights_folder(folder, config.lora_rank))
        record = RunRecord(
            header=RunHeader(**tasks_of(data.manifest), config=config, base=base),
            report=dataclasses.asdict(report),
            training_texts=len(data.train),
        )
        write_metrics(folder, trainer.state.log_history)
        save_run(folder, record, tokenizer)
    return report


def _report(trainer: Trainer) -> FinetuneReport:
    """Return the report of a run, over all its sessions, from the trainer's log.

    Raises:
        FloatingPointError: if a loss is not finite.

    """
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    eval_losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    if not all(math.isfinite(loss) for loss in (*losses, *eval_losses)):
        raise FloatingPointError(
            "training diverged: a loss is not finite; lower the learning rate"
        )
    seconds = history[-1]["seconds"]
    return FinetuneReport(
        train_loss=sum(losses) / len(losses),
        eval_loss=eval_losses,
        eval_gap=[entry["eval_gap"] for entry in history if "eval_gap" in entry],
        tokens_per_second=trainer.state.num_input_tokens_seen / seconds,
        seconds=seconds,
        steps=trainer.state.global_step,
        processes=trainer.accelerator.num_processes,
    )
