"""Run what the pages of the documentation show."""

import contextlib
import json
import re
import shlex
from pathlib import Path

import jax
from typer.testing import CliRunner

from sdm.cli import app

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```", re.M | re.S)


def blocks(page, language=None):
    """Language, title and text of each block of code of a page."""
    found = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return [block for block in found if language in (None, block[0])]


def save_files(page):
    """Write the blocks that have a title to the working folder."""
    for _, title, text in blocks(page):
        if title:
            Path(title).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def settings_of_users():
    """Allow the promotions that tests of numerics forbid."""
    strict = jax.config.jax_numpy_rank_promotion, jax.config.jax_numpy_dtype_promotion
    jax.config.update("jax_numpy_rank_promotion", "allow")
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    try:
        yield
    finally:
        jax.config.update("jax_numpy_rank_promotion", strict[0])
        jax.config.update("jax_numpy_dtype_promotion", strict[1])


def run_python(text, names):
    """Execute a block, which may use and define names."""
    with settings_of_users():
        exec(compile(text, "page", "exec"), names)


def run_command(command):
    """Run a command of `sdm` in this process."""
    program, *arguments = shlex.split(command)
    assert program == "sdm"
    with settings_of_users():
        found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, f"{command}\n{found.output}"
    return found


def report(command):
    """Run a command, and return its JSON object."""
    return json.loads(run_command(f"{command} --json").stdout)
