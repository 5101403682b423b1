"""Run a command on a real pseudo-terminal, and see what a person sees."""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time

CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
SDM = (sys.executable, "-m", "sdm.cli")


def run_on_terminal(
    command, cwd, *, columns=100, until="", send=None, timeout=900, plain=True
):
    """Return what a command shows and its exit code.

    Sends the signal `send` once the text `until` is shown.
    """
    child, terminal = pty.fork()
    if child == 0:
        size = struct.pack("HHHH", 40, columns, 0, 0)
        fcntl.ioctl(1, termios.TIOCSWINSZ, size)
        os.environ.pop("COLUMNS", None)
        os.chdir(cwd)
        os.execv(command[0], command)
    shown, deadline = "", time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the terminal is closed
            break
        shown += part.decode(errors="replace")
        if send is not None and until in shown:
            os.kill(child, send)
            send = None
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return (CONTROLS.sub("", shown) if plain else shown), code
