"""Reports of a training run in progress: progress, metrics on disk, checkpoints."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import IntervalStrategy

from sdm.llm.processes import TorchGroup
from sdm.llm.runs import write_metrics

CHECKPOINT_SECONDS = 60.0  # at most this much work is lost if the run is killed


class Reporter(TrainerCallback):
    """Trainer callback: progress, metrics on disk, and a checkpoint every minute."""

    def __init__(self, folder: Path, progress: Callable[[int, int], None]) -> None:
        """Write metrics to `folder`; call `progress(step, steps)` after each step."""
        self.folder, self.progress = folder, progress
        self.start = self.saved = time.monotonic()

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Start the clock at the seconds that the run's earlier sessions took."""
        spent = state.log_history[-1]["seconds"] if state.log_history else 0.0
        self.start = time.monotonic() - spent

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Report the step; request a checkpoint if due, and validate the last step."""
        self.progress(state.global_step, state.max_steps)
        last = state.global_step >= state.max_steps
        if last and args.eval_strategy == IntervalStrategy.STEPS:
            control.should_evaluate = control.should_save = True
        due = time.monotonic() - self.saved > CHECKPOINT_SECONDS
        if TorchGroup().first_decides(due):
            control.should_save = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Add the seconds since training began; drop metrics of this session only."""
        entry = state.log_history.pop()
        if "train_loss" not in entry:
            kept = {k: x for k, x in entry.items() if not k.startswith("train_")}
            seconds = time.monotonic() - self.start
            state.log_history.append(kept | {"seconds": seconds})

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Write the log so far, and restart the interval between checkpoints."""
        if state.is_world_process_zero:
            write_metrics(self.folder, state.log_history)
        self.saved = time.monotonic()
