"""What every command shares: messages, exit codes, progress, output, heavy imports."""

import importlib.util
import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


def say(message: str, colour: str | None = None) -> None:
    """One message to stderr."""
    typer.secho(message, fg=colour, err=True)


def fail(message: str, hint: str = "", *, code: int = 2) -> NoReturn:
    """Say what is wrong and what to do about it, and exit."""
    say(f"error: {message}", "red")
    if hint:
        say(f"\nhint: {hint}", "cyan")
    raise typer.Exit(code)


@contextmanager
def user_faults() -> Iterator[None]:
    """Turn what the package raises into messages and exit codes, without traceback.

    A warning is a line too.
    """
    warnings.showwarning = lambda message, *_: say(f"warning: {message}", "yellow")
    try:
        yield
    except (ValueError, RuntimeError, OSError, FloatingPointError) as error:
        if os.environ.get("SDM_DEBUG") == "1" or isinstance(error, typer.Exit):
            raise
        first = (str(error).strip() or repr(error)).splitlines()[0]
        code = 2 if isinstance(error, ValueError) else 1
        if code == 2 and os.environ.get("RANK", "0") != "0":
            raise typer.Exit(code) from None  # the first of several processes says it
        fail(first, getattr(error, "hint", ""), code=code)
    except Exception as error:
        if os.environ.get("SDM_DEBUG") == "1":
            raise
        fail(
            f"{type(error).__name__}: {(str(error) or '?').splitlines()[0]}",
            "set `SDM_DEBUG=1` to see where",
            code=1,
        )


def start_jax(*, every_core: bool = False, several: bool = False) -> None:
    """Solve in double precision, and leave an accelerator's memory to PyTorch.

    With `every_core`, each core of the CPU is a device of its own: many small tasks are
    then solved side by side. With `several`, this is one of several processes.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    jax.config.update("jax_enable_x64", True)
    if every_core:
        from sdm.storage.processes import usable_cores

        # Too late where JAX runs already; it then has the devices it began with.
        with suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", usable_cores())
    if several:
        from sdm.storage.processes import join_processes

        _keep_stdout_for_ourselves()
        join_processes()
    hear_interrupts()


def hear_interrupts() -> None:
    """Raise `KeyboardInterrupt` on Ctrl-C: what was loaded can now be left in order."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _keep_stdout_for_ourselves() -> None:
    """Send what libraries written in C++ print to stderr: Gloo greets its peers."""
    sys.stdout.flush()
    ours = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.stdout = os.fdopen(ours, "w", encoding="utf-8")


def start_plotting() -> None:
    """Fail kindly where the `plot` extra is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        fail_without("matplotlib", "plot")


def fail_without(package: str | None, extra: str) -> NoReturn:
    """Say which extra is missing, and exit."""
    fail(
        f"this needs the package `{package}`, which is not installed",
        f"pip install 'sdm-llm[{extra}]'",
        code=1,
    )


def start_torch(*, tensorboard: bool = False) -> None:
    """Fail kindly where an extra is missing; keep its libraries quiet."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    for name in ("bitsandbytes", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        import bitsandbytes  # noqa: F401
        import peft  # noqa: F401
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        fail_without(error.name, "llm")
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        fail_without("tensorboard", "tensorboard")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="fan_in_fan_out")  # PEFT sets it right
    import huggingface_hub

    huggingface_hub.utils.logging.set_verbosity_error()
    hear_interrupts()


def start_optional(package: str, extra: str) -> None:
    """Fail kindly where an optional package is missing; "" is none."""
    if package and importlib.util.find_spec(package) is None:
        fail_without(package, extra)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Bars with the time left on a terminal; elsewhere a line as each step begins."""
    from rich.console import Console
    from rich.progress import Progress, TaskID, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn())
    bars: dict[str, TaskID] = {}
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as shown:

        def update(step: str, done: int, total: int) -> None:
            if step not in bars:
                bars[step] = shown.add_task(step, total=total)
                if not console.is_terminal:
                    say(f"{step} …")
            shown.update(bars[step], completed=done, total=total)

        yield update


def emit(
    report: dict[str, Any], as_json: bool, table: "Callable[[], RenderableType]"
) -> None:
    """Print one JSON object, or a table for people."""
    if as_json:
        with user_faults():  # JSON has no word for a number that is not finite
            typer.echo(json.dumps(report, allow_nan=False))
        return
    from rich.console import Console

    # Without a terminal there is no width to fit.
    Console(width=None if sys.stdout.isatty() else 160).print(table())


def pairs_table(report: dict[str, Any]) -> "Table":
    """A two-column table of names and values."""
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in report.items():
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        table.add_row(name, shown)
    return table
