"""Several processes of one command with a shared file system.

The first process creates and completes the folders that all processes write. With one
process, these functions do nothing.
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
    """Return the number of CPU cores that this process can use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # None if the system does not report it


def join_processes() -> None:
    """Connect to the other processes; call this before any other use of JAX.

    JAX detects the processes under Slurm, Open MPI and Kubernetes. Elsewhere, set three
    environment variables: `JAX_COORDINATOR_ADDRESS`, the host and port of the first
    process; `JAX_NUM_PROCESSES`; and `JAX_PROCESS_ID`, counted from 0.

    Raises:
        ValueError: if the processes are not detected or a variable is invalid.

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
            f"cannot detect the processes ({error}): set {ADDRESS}, {COUNT} and {INDEX}"
        ) from error


def is_first() -> bool:
    """Return whether this is the first process, which creates and completes folders."""
    return jax.process_index() == 0


def wait_for_all(step: str) -> None:
    """Wait until every process has reached this step."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(step)


def first_succeeded(done: bool) -> bool:
    """Return the value of `done` in the first process; all processes must call this."""
    if jax.process_count() == 1:
        return done
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(done)))


@runtime_checkable
class Group(Protocol):
    """Processes that write one folder together."""

    def is_first(self) -> bool:
        """Return whether this process creates and completes the folder."""
        ...

    def first_decides(self, decision: bool) -> bool:
        """Return the first process's decision; all processes must call this."""
        ...

    def wait(self, step: str) -> None:
        """Wait until every process has reached this step."""
        ...


class JaxGroup:
    """The processes that `join_processes` has connected."""

    def is_first(self) -> bool:
        """Return whether this is the first process."""
        return is_first()

    def first_decides(self, decision: bool) -> bool:
        """Return the first process's decision; all processes must call this."""
        return first_succeeded(decision)

    def wait(self, step: str) -> None:
        """Wait until every process has reached this step."""
        wait_for_all(step)


class FirstFailedError(RuntimeError):
    """The first of several processes failed, so that this one stops, too.

    Attributes:
        reported: True: the first process prints the error.

    """

    reported = True


@contextmanager
def folder_of_all(
    out: Path, plan: Mapping[str, Any], group: Group, **options: Any
) -> Iterator[Path]:
    """Yield the partial folder of `out`, which the first process creates and renames.

    Args:
        out: the folder to write.
        plan: configuration that determines the content.
        group: the processes.
        options: options of `files.folder_in_progress`.

    Raises:
        StorageError: in the first process, if the folder cannot be created.
        FirstFailedError: in the other processes, in the same case.

    """
    if not group.is_first():
        if not group.first_decides(False):
            raise FirstFailedError("the first process failed; see its error")
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
