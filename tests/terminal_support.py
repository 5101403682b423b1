"""Run a command on a real pseudo-terminal, and see what a person sees."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
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
    terminal, inner = pty.openpty()
    size = struct.pack("HHHH", 40, columns, 0, 0)
    fcntl.ioctl(inner, termios.TIOCSWINSZ, size)
    settings = {name: x for name, x in os.environ.items() if name != "COLUMNS"}
    process = subprocess.Popen(
        command,
        **dict.fromkeys(("stdin", "stdout", "stderr"), inner),
        cwd=cwd,
        env=settings,
        start_new_session=True,
    )
    os.close(inner)
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
            process.send_signal(send)
            send = None
    os.close(terminal)
    code = process.wait(60)
    return (CONTROLS.sub("", shown) if plain else shown), code
