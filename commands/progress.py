"""What a command is doing now: a live line and bars on a terminal, else short lines."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

Bar = Callable[[str, int, int], None]


class _Now:
    """What the command is doing now, and since when.

    Attributes:
        text: what it is doing; "" if a bar says so.
        since: time at which that began, in seconds.
        live: whether a terminal shows it.

    """

    text = ""
    since = 0.0
    live = False


_now = _Now()


def doing(text: str) -> None:
    """Show on a terminal what the command is doing, until it does something else.

    Args:
        text: what it is doing; "" if a bar says so.

    """
    if text != _now.text:
        _now.text, _now.since = text, time.monotonic()


def show_compilation() -> None:
    """Show when JAX compiles, which takes seconds and happens once per program."""
    if not _now.live:
        return
    import jax

    before = ""

    def watch(event: str, duration_secs: float, **about: Any) -> None:
        nonlocal before
        if event.endswith("jaxpr_to_mlir_module_duration"):  # compilation follows
            name = str(about.get("fun_name", "")).removeprefix("jit(").strip("_)")
            if not _now.text.startswith("compiling"):
                before = _now.text
            doing(f"compiling `{name}`, once")
        elif event.endswith("backend_compile_duration"):
            doing(before)

    jax.monitoring.register_event_duration_secs_listener(watch)


def duration(seconds: float) -> str:
    """Return a duration with its unit."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


@contextmanager
def progress_bars(line: Callable[[str], str] | None = None) -> Iterator[Bar]:
    """Show bars, and what the command does, on a terminal; elsewhere, a line per step.

    Args:
        line: function of a new step that returns a line to print above its bar, also on
            a terminal; None for its name, elsewhere only.

    Yields:
        A function of the name of a step, the work done and the total work.

    """
    shown = _live()
    terminal = shown.console.is_terminal
    bars: dict[str, Any] = {}

    def update(step: str, done: int, total: int) -> None:
        if step not in bars:
            bars[step] = shown.add_task(step, total=total)
            doing("")
            if line is not None:
                typer.secho(line(step), err=True)
            elif not terminal:
                typer.secho(f"{step} …", err=True)
        shown.update(bars[step], completed=done, total=total)

    with shown:
        _now.live = terminal
        doing("importing packages")
        try:
            yield update
        finally:
            doing("")
            _now.live = False


def _live() -> "Progress":
    """Return bars with a line above them that says what the command is doing."""
    from rich.console import Console, RenderableType
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.spinner import Spinner

    class Terminal(Console):
        """Console that keeps its cursor: Ctrl-C while a library loads ends all."""

        def show_cursor(self, show: bool = True) -> bool:
            return False

    class Live(Progress):
        """Progress bars with a line below them."""

        spinner = Spinner("dots")

        def get_renderables(self) -> Iterator[RenderableType]:
            if self.tasks:
                yield self.make_tasks_table(self.tasks)
            if _now.text:
                seconds = time.monotonic() - _now.since
                self.spinner.update(text=f"{_now.text} … {seconds:.0f} s")
                yield self.spinner

    console = Terminal(stderr=True)
    return Live(
        TextColumn("{task.description}"),
        BarColumn(max(10, min(40, console.width - 60))),
        TaskProgressColumn(),
        TextColumn("{task.completed} of {task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=console,
        disable=not console.is_terminal,
    )
