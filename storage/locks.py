"""Locks on outputs, so that two processes never write one folder. Imports no JAX."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


class LockedError(RuntimeError):
    """Another process writes the output."""

    def __init__(self, path: Path, holder: str) -> None:
        """Set the message and the hint."""
        super().__init__(f"`{path}` is locked by another process: {holder}")
        self.hint = "wait until it ends, or stop it and pass `--resume`"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of an output while the block runs.

    The operating system releases the lock of a process that ends, however it ends. The
    lock is the file `PATH.lock`; `PATH.holder` says who holds it. Both are removed.

    Args:
        path: the file or folder that the block writes; its parent must exist.

    Raises:
        LockedError: if another process holds the lock.

    """
    file, holder = (path.with_name(path.name + end) for end in (".lock", ".holder"))
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LockedError(path, _read(holder)) from None
    try:
        about = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
        holder.write_text(json.dumps(about), encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        # Windows keeps an open file. A process that waits for the removed file and
        # another that makes a new one could both get a lock; nobody waits here.
        with suppress(OSError):
            file.unlink(missing_ok=True)
        lock.release()


def _read(holder: Path) -> str:
    """Describe the process in a holder's file."""
    try:
        about = json.loads(holder.read_text(encoding="utf-8"))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(about["since"]))
        return f"process {about['pid']} on `{about['host']}`, since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return "an unknown one"  # it has just begun or ended
