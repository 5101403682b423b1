"""Stop a process's file operations at a chosen one, as a kill would."""

import sys
from contextlib import contextmanager

EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}


class Killed(BaseException):
    """Raised at the chosen operation and at every later one, so nothing cleans up."""


class _Counter:
    """Operations below a folder, and at which one they stop."""

    folder, count, limit = None, 0, None


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
        raise Killed
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
