"""One fine-tuning run in several processes: `torchrun` or `accelerate launch`.

Each process holds the model, or a shard of it, and trains on its part of every batch.
`batching` makes every batch divisible. The first process writes all files. In a single
process, these functions do nothing.
"""

import os

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list


def join_processes() -> PartialState:
    """Join the other processes, if there are any; each uses its own accelerator.

    If FSDP shards the model, checkpoints still hold unsharded weights, since a run
    keeps those of the best checkpoint.
    """
    os.environ["FSDP_STATE_DICT_TYPE"] = "FULL_STATE_DICT"
    return PartialState(cpu=not torch.cuda.is_available())


def is_first() -> bool:
    """Return whether this process reports and writes; works before they are joined."""
    return os.environ.get("RANK", "0") == "0"


class TorchGroup:
    """The processes that `join_processes` has joined."""

    def is_first(self) -> bool:
        """Return whether this is the first process."""
        return join_processes().is_main_process

    def first_decides(self, decision: bool) -> bool:
        """Return the first process's decision; every process must call this."""
        decisions = [decision]
        broadcast_object_list(decisions)
        return decisions[0]

    def wait(self, step: str) -> None:
        """Wait until every process reaches this step."""
        join_processes().wait_for_everyone()
