"""Record what commands print in a terminal, as pictures for the pages.

Run `python docs/screens/record.py` in the repository, and look at the pictures. Each
command runs in a terminal of its own, 100 characters wide, in a folder that has the
tutorial's files. What appears while a command works is left out.
"""

import os
import pty
import shlex
import subprocess
import sys
import tempfile
import zlib
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).resolve().parent
WIDTH = 100  # characters
SCREENS = {
    "help": "sdm --help",
    "solve": "sdm solve --model machine.POMDP --horizon 20 --simulate 1000",
    "eval": "sdm eval --setting pomdp --policy ce --policy mean-plan --policy random",
}
# The picture needs no font from elsewhere.
SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" \
xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px monospace; line-height: {line_height}px; }}
.{unique_id}-title {{ font: bold 18px sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" \
clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def printed(command: str, folder: Path) -> str:
    """Return what a command prints to a terminal, with its colours.

    Raises:
        subprocess.CalledProcessError: if the command fails.

    """
    ours, theirs = pty.openpty()
    place = {"COLUMNS": str(WIDTH), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    program = [str(Path(sys.executable).with_name("sdm")), *shlex.split(command)[1:]]
    process = subprocess.Popen(
        program,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={**os.environ, **place},
    )
    os.close(theirs)
    found = bytearray()
    try:
        while piece := os.read(ours, 1 << 16):
            found += piece
    except OSError:  # the end of a terminal
        pass
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command)
    return found.decode().replace("\r\n", "\n").rstrip()


def picture(command: str, text: str) -> str:
    """Return the SVG picture of a terminal in which a command printed the text."""
    console = Console(width=WIDTH, record=True, file=StringIO(), color_system="256")
    console.print(Text.from_ansi(f"$ {command}\n{text}"), highlight=False, end="")
    name = f"screen-{zlib.crc32(command.encode()):x}"
    return console.export_svg(title="", code_format=SVG, unique_id=name)


def main() -> None:
    """Make the pictures of all commands, or of those that are named."""
    page = (HERE.parent / "tutorial.md").read_text(encoding="utf-8")
    start = page.index("\n", page.index('title="machine.POMDP"')) + 1
    model = page[start : page.index("```", start)]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "machine.POMDP").write_text(model, encoding="utf-8")
        for name in sys.argv[1:] or SCREENS:
            text = printed(SCREENS[name], Path(folder))
            made = picture(SCREENS[name], text)
            (HERE / f"{name}.svg").write_text(made, encoding="utf-8")
            print(f"docs/screens/{name}.svg")


if __name__ == "__main__":
    main()
