"""Messages, exit codes, output and heavy imports of all commands."""

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

from sdm.commands.progress import doing, show_compilation

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


LONGEST = 600  # characters of a value in a table
LARGEST_CACHE = 1 << 30  # bytes of compiled programs; the least used go first


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
    doing("importing JAX")
    import jax

    jax.config.update("jax_enable_x64", True)
    keep_compiled_programs()
    show_compilation()
    doing("importing the solvers")
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


def keep_compiled_programs() -> None:
    """Keep programs that JAX compiles in the cache folder, for later commands.

    Programs of another processor have a folder of their own, as a home folder may serve
    several. JAX's own setting of a folder, or of none, takes precedence.
    """
    import jax

    settings: Any = jax.config
    chosen = settings.jax_compilation_cache_dir
    if chosen or not settings.jax_enable_compilation_cache:
        return
    from sdm.storage.cache import cache_folder, processor

    folder = cache_folder() / f"jax-{processor()}"
    with suppress(OSError):  # a cache that cannot be written is none
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            jax.config.update("jax_compilation_cache_dir", str(folder))
            jax.config.update("jax_compilation_cache_max_size", LARGEST_CACHE)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)


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
    doing("importing PyTorch and Transformers")
    # Threads that spin while they wait hold each other up where cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    for name in ("bitsandbytes", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        import bitsandbytes  # noqa: F401
        import peft  # noqa: F401
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and "." not in (error.name or ""):
            fail_without(error.name, "llm")
        fail(
            f"installed packages do not fit together: {error}",
            "run `pip install --upgrade 'sdm-llm[llm]'`",
            code=1,
        )
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        fail_without("tensorboard", "tensorboard")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="fan_in_fan_out")  # PEFT corrects it
    # PEFT looks for experts among modules only, but they are parameters.
    warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys")
    import huggingface_hub

    huggingface_hub.utils.logging.set_verbosity_error()
    doing("starting")
    hear_interrupts()


def start_optional(package: str, extra: str) -> None:
    """Exit with a hint if an optional package is missing; "" needs no package."""
    if package and importlib.util.find_spec(package) is None:
        fail_without(package, extra)


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
    """Return a two-column table of names and values, without those that are None."""
    from rich.text import Text

    from sdm.evaluation.fitting_table import FittingTable

    table = FittingTable(show_header=False)
    for name, value in report.items():
        if value is None:
            continue
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        if len(shown) > LONGEST:
            shown = f"{shown[:LONGEST]} …; --json has all"
        table.add_row(Text(name), Text(shown))
    return table
