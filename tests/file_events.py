"""Stop a process's file operations at a chosen one: as a kill or a full disk would."""

import os
import sys
from contextlib import contextmanager

EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}

CREATING = {"open", "os.mkdir"}  # what a full disk refuses


class Killed(BaseException):
    """Raised at the chosen operation and at every later one, so nothing cleans up."""


class _Counter:
    """Operations below a folder, at which one they stop, and by which error."""

    folder, count, limit, error = None, 0, None, None


def _hook(event, arguments):
    if _Counter.folder is None or event not in EVENTS:
        return
    path = arguments[0]
    if not isinstance(path, str) and not hasattr(path, "__fspath__"):
        return
    inside = event in ("os.remove", "os.rmdir") and arguments[1] != -1  # of `rmtree`
    if not (inside or str(path).startswith(_Counter.folder)):
        return
    if event == "open" and not any(x in (arguments[1] or "") for x in "wax+"):
        return
    if _Counter.limit is not None and _Counter.count >= _Counter.limit:
        if _Counter.error is None:
            raise Killed
        if event in CREATING:
            raise OSError(_Counter.error, os.strerror(_Counter.error), str(path))
    _Counter.count += 1


sys.addaudithook(_hook)


@contextmanager
def killed_at(folder, limit):
    """Let `limit` writing operations below a folder happen, and none after them."""
    _Counter.folder, _Counter.count, _Counter.limit = str(folder), 0, limit
    try:
        yield _Counter
    except Killed:
        pass
    finally:
        _Counter.folder = None


@contextmanager
def full_at(folder, limit, error):
    """Refuse to create anything below a folder after `limit` writing operations."""
    _Counter.folder, _Counter.count, _Counter.limit = str(folder), 0, limit
    _Counter.error = error
    try:
        yield _Counter
    finally:
        _Counter.folder = _Counter.error = None
