"""Messages, exit codes, progress, output and heavy imports of all commands."""

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
    """Print a message to stderr."""
    typer.secho(message, fg=colour, err=True)


def fail(message: str, hint: str = "", *, code: int = 2) -> NoReturn:
    """Print an error and a hint to stderr, and exit."""
    say(f"error: {message}", "red")
    if hint:
        say(f"\nhint: {hint}", "cyan")
    raise typer.Exit(code)


@contextmanager
def user_faults() -> Iterator[None]:
    """Turn exceptions into an error line and an exit code, and warnings into lines.

    With `SDM_DEBUG=1`, exceptions propagate and Python prints their traceback.
    """
    warnings.showwarning = lambda message, *_: say(f"warning: {message}", "yellow")
    try:
        yield
    except (ValueError, RuntimeError, OSError, FloatingPointError) as error:
        if os.environ.get("SDM_DEBUG") == "1" or isinstance(error, typer.Exit):
            raise
        first = (str(error).strip() or repr(error)).splitlines()[0]
        code = 2 if isinstance(error, ValueError) else 1
        reported = code == 2 or getattr(error, "reported", False)
        if reported and os.environ.get("RANK", "0") != "0":
            raise typer.Exit(code) from None  # only the first process reports it
        fail(first, getattr(error, "hint", ""), code=code)
    except Exception as error:
        if os.environ.get("SDM_DEBUG") == "1":
            raise
        fail(
            f"{type(error).__name__}: {(str(error) or '?').splitlines()[0]}",
            "set `SDM_DEBUG=1` to see the traceback",
            code=1,
        )


def start_jax(*, every_core: bool = False, several: bool = False) -> None:
    """Configure JAX: double precision, and no preallocation of accelerator memory.

    Args:
        every_core: whether each CPU core becomes a JAX device, to solve tasks in
            parallel.
        several: whether to join the other processes of a distributed run.

    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    jax.config.update("jax_enable_x64", True)
    if every_core:
        from sdm.storage.processes import usable_cores

        # Once JAX has started, it rejects this setting and keeps its devices.
        with suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", usable_cores())
    if several:
        from sdm.storage.processes import join_processes

        _keep_stdout_for_ourselves()
        join_processes()
    hear_interrupts()


def hear_interrupts() -> None:
    """Raise `KeyboardInterrupt` on Ctrl-C; call it once C++ libraries are loaded."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _keep_stdout_for_ourselves() -> None:
    """Redirect the standard output of C++ libraries, such as Gloo, to stderr."""
    sys.stdout.flush()
    ours = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.stdout = os.fdopen(ours, "w", encoding="utf-8")


def start_plotting() -> None:
    """Exit with a hint if the extra `plot` is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        fail_without("matplotlib", "plot")


def fail_without(package: str | None, extra: str) -> NoReturn:
    """Exit with a hint on which extra to install."""
    fail(
        f"package `{package}`: not installed",
        f"run `pip install 'sdm-llm[{extra}]'`",
        code=1,
    )


def start_torch(*, tensorboard: bool = False) -> None:
    """Exit with a hint if an extra is missing; silence the logs of its libraries."""
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
    warnings.filterwarnings("ignore", message="fan_in_fan_out")  # PEFT corrects it
    # PEFT looks for experts among modules only, but they are parameters.
    warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys")
    import huggingface_hub

    huggingface_hub.utils.logging.set_verbosity_error()
    hear_interrupts()


def start_optional(package: str, extra: str) -> None:
    """Exit with a hint if an optional package is missing; "" needs no package."""
    if package and importlib.util.find_spec(package) is None:
        fail_without(package, extra)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show progress bars on a terminal, and a line per step elsewhere.

    Yields:
        A function of the name of a step, the work done and the total work.

    """
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
    """Print the report as one JSON object or as a table."""
    if as_json:
        with user_faults():  # JSON has neither NaN nor infinity
            typer.echo(json.dumps(report, allow_nan=False))
        return
    from rich.console import Console

    # A file or a pipe has no width: use one that fits all columns.
    Console(width=None if sys.stdout.isatty() else 160).print(table())


def pairs_table(report: dict[str, Any]) -> "Table":
    """Return a two-column table of names and values."""
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in report.items():
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        table.add_row(name, shown)
    return table
