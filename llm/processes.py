"""One fine-tuning run by several processes: `torchrun` or `accelerate launch`.

Each process holds the model, or a shard of it, and learns from its part of every batch;
where the last batch of an epoch cannot be divided evenly, some of its texts are learned
twice. The first process writes. With one process, all of this does nothing.
"""

import os

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list


def join_processes() -> PartialState:
    """Meet the other processes, if there are any; each takes its own accelerator.

    Where FSDP shares out the model, checkpoints hold whole weights all the same: the
    best of them are what a run keeps.
    """
    os.environ["FSDP_STATE_DICT_TYPE"] = "FULL_STATE_DICT"
    return PartialState(cpu=not torch.cuda.is_available())


def is_first() -> bool:
    """Whether this process reports and writes; known before the others are met."""
    return os.environ.get("RANK", "0") == "0"


class TorchGroup:
    """The processes that `join_processes` has joined."""

    def is_first(self) -> bool:
        """Return whether this is the first process."""
        return join_processes().is_main_process

    def first_decides(self, decision: bool) -> bool:
        """Return the first process's decision; all must ask."""
        decisions = [decision]
        broadcast_object_list(decisions)
        return decisions[0]

    def wait(self, step: str) -> None:
        """Return once every process has come to this step."""
        join_processes().wait_for_everyone()
