"""One fine-tuning run by several processes: `torchrun` or `accelerate launch`.

Each process holds the model, or a share of it, and learns from its share of every
batch; where the last batch of an epoch cannot be shared out evenly, some of its texts
are learned twice. The first process writes. Nothing here does anything where there is
one process only.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from sdm.storage.files import folder_in_progress, partial_folder


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


def first_decides(decision: bool) -> bool:
    """What the first process says; all must ask."""
    decisions = [decision]
    broadcast_object_list(decisions)
    return decisions[0]


class FirstFailedError(ValueError):
    """One of several processes has nothing to do, since the first one failed."""


@contextmanager
def folder_of_all(out: Path, plan: Mapping[str, Any], **options: Any) -> Iterator[Path]:
    """The folder in progress of `out`, which the first process makes and renames.

    Args:
        out: the folder to make.
        plan: everything that decides its content.
        options: those of `storage.folder_in_progress`.

    Raises:
        StorageError: in the first process, if the folder cannot be begun.
        FirstFailedError: in the others, then.

    """
    processes = join_processes()
    if not processes.is_main_process:
        if not first_decides(False):
            raise FirstFailedError("the first process could not begin; it says why")
        yield partial_folder(out)
        processes.wait_for_everyone()
        return
    begun = False
    try:
        with folder_in_progress(out, plan, **options) as folder:
            begun = first_decides(True)
            yield folder
            processes.wait_for_everyone()
    finally:
        if not begun:
            first_decides(False)
