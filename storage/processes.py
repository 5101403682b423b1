"""Several processes of one command that share a file system: a machine, or a cluster.

The first of them begins and finishes what they write together. With one process, all of
this does nothing.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.experimental import multihost_utils

from sdm.storage.files import folder_in_progress, partial_folder

ADDRESS, COUNT, INDEX = (
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
)


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # not every system tells


def join_processes() -> None:
    """Meet the other processes; before JAX is used for anything else.

    Slurm, Open MPI and Kubernetes say by themselves who takes part. Elsewhere three
    variables of the environment do: `JAX_COORDINATOR_ADDRESS`, the host and port of the
    first process; `JAX_NUM_PROCESSES`; and `JAX_PROCESS_ID`, counted from 0.

    Raises:
        ValueError: if they do not say so.

    """
    address = os.environ.get(ADDRESS)
    if address is not None and not re.fullmatch(r".+:\d+", address):
        raise ValueError(f"{ADDRESS} = {address!r}: must be host:port")
    numbers = {}
    for name in (COUNT, INDEX):
        text = os.environ.get(name)
        if text is not None and not text.isdecimal():
            raise ValueError(f"{name} = {text!r}: must be a whole number")
        numbers[name] = None if text is None else int(text)
    try:
        jax.distributed.initialize(
            num_processes=numbers[COUNT], process_id=numbers[INDEX]
        )
    except ValueError as error:
        raise ValueError(
            f"cannot tell which processes take part ({error}): set {ADDRESS}, {COUNT} "
            f"and {INDEX}"
        ) from error


def is_first() -> bool:
    """Whether this process begins and finishes what all write together."""
    return jax.process_index() == 0


def wait_for_all(step: str) -> None:
    """Return once every process has come to this step."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(step)


def first_succeeded(done: bool) -> bool:
    """What the first process says; all must ask."""
    if jax.process_count() == 1:
        return done
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(done)))


@runtime_checkable
class Group(Protocol):
    """Processes that write one folder together."""

    def is_first(self) -> bool:
        """Return whether this process begins and finishes the folder."""
        ...

    def first_decides(self, decision: bool) -> bool:
        """Return the first process's decision; all must ask."""
        ...

    def wait(self, step: str) -> None:
        """Return once every process has come to this step."""
        ...


class JaxGroup:
    """The processes that `join_processes` has joined."""

    def is_first(self) -> bool:
        """Return whether this is the first process."""
        return is_first()

    def first_decides(self, decision: bool) -> bool:
        """Return the first process's decision; all must ask."""
        return first_succeeded(decision)

    def wait(self, step: str) -> None:
        """Return once every process has come to this step."""
        wait_for_all(step)


class FirstFailedError(RuntimeError):
    """One of several processes has nothing to do, since the first one failed.

    Attributes:
        reported: the first process says why.

    """

    reported = True


@contextmanager
def folder_of_all(
    out: Path, plan: Mapping[str, Any], group: Group, **options: Any
) -> Iterator[Path]:
    """Fill the folder in progress of `out`, which the first process makes and renames.

    Args:
        out: the folder to make.
        plan: everything that decides its content.
        group: the processes.
        options: those of `files.folder_in_progress`.

    Raises:
        StorageError: in the first process, if the folder cannot be begun.
        FirstFailedError: in the others, then.

    """
    if not group.is_first():
        if not group.first_decides(False):
            raise FirstFailedError("the first process could not begin; it says why")
        yield partial_folder(out)
        group.wait("every process is done")
        return
    begun = False
    try:
        with folder_in_progress(out, plan, **options) as folder:
            begun = group.first_decides(True)
            yield folder
            group.wait("every process is done")
    finally:
        if not begun:
            group.first_decides(False)
