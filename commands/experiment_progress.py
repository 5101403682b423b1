"""Progress of `sdm experiment run`: a bar with the time left, and a line per cell."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sdm.commands.progress import duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.table import Table

    from sdm.experiments.rows import Row
    from sdm.experiments.spec import Cell


class Shown:
    """Watcher of a run that draws a progress bar and prints a line per cell."""

    def __init__(self, bars: "Progress", task: "TaskID", name: str) -> None:
        """Show the experiment `name` as a task of these progress bars."""
        self.bars, self.task, self.name = bars, task, name
        self.cells = self.met = 0

    def begin(self, cells: int, todo: int) -> None:
        """Print how many cells are already done."""
        self.cells, self.met = cells, cells - todo
        if self.met:
            self._print(f"{self.met} of {cells} cells are already done")

    def step(self, cell: "Cell", name: str, share: float, left: float) -> None:
        """Update the bar."""
        self.bars.update(
            self.task,
            description=f"{self.name}: {cell.policy}, {cell.condition}, {name}",
            completed=share,
            left=f"cell {self.met + 1} of {self.cells}; about {duration(left)} left",
        )

    def done(self, cell: "Cell", row: "Row", left: float) -> None:
        """Print the result of a cell."""
        test, policy, gap, interval, seconds = row_words(row)
        within = f" ({interval})" if interval else ""
        unit = " %" if "result" in row else ""
        self._print(f"{policy}, {test}: {gap}{unit}{within}, {seconds} s", left)

    def failed(self, cell: "Cell", why: str) -> None:
        """Print why a cell failed."""
        self._print(f"{cell.policy}, {cell.condition}: skipped: {why}", 0)

    def _print(self, text: str, left: float | None = None) -> None:
        if left is not None:
            self.met += 1
            text = f"{self.met} of {self.cells}: {text}"
        if left:
            text += f"; about {duration(left)} left"
        self.bars.console.print(text, soft_wrap=True, markup=False)


@contextmanager
def watched(name: str) -> Iterator[Shown]:
    """Yield a watcher, which draws its bar on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    console: Console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as bars:
        yield Shown(bars, bars.add_task(name, total=1.0, left=""), name)


def rows_table(title: str, rows: "list[Row]") -> "Table":
    """Return a table with a line per row."""
    from sdm.evaluation.fitting_table import FittingTable
    from sdm.experiments.study import studies

    table = FittingTable(title=title)
    for name in ("test", "policy"):
        table.add_column(name)
    of_study = any(row["learner"] in studies() for row in rows)
    for name in ("result" if of_study else "gap, %", "95 % interval", "seconds"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row_words(row))
    return table


def row_words(row: "Row") -> tuple[str, str, str, str, str]:
    """Return the test, policy, gap, interval and seconds of a row as text."""
    from sdm.experiments.study import studies

    seconds = f"{row['seconds']:.0f}"
    if study := studies().get(row["learner"]):
        about = study.condition(row["learn"])
        return about, row["policy"], study.result(row), "", seconds
    result, options = row["result"], dict(row["test"])
    low, high = result["ci_low"], result["ci_high"]
    interval = "" if low is None else f"{low:.2f} … {high:.2f}"
    parts = [f"{options.pop('family', '')} {options.pop('kind')}".strip()]
    sizes = ("tasks", "trajectories")
    parts += [f"{k} {x}" for k, x in options.items() if k not in sizes]
    parts += [f"{k} {x} in training" for k, x in row["data"].items() if k not in sizes]
    if "tasks" in row["data"]:
        parts.append(f"{row['learn'].get('tasks', row['data']['tasks'])} tasks")
    parts += [str(row["learn"][k]) for k in ("schema", "loss") if k in row["learn"]]
    gap = f"{result['gap_percent']:.2f}"
    return ", ".join(parts), row["policy"], gap, interval, seconds
