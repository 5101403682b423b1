"""Studies: experiments whose cells measure something else than a policy in a test.

A file in `studies` registers a study. Its name is the key of its options in a table
`[[cells]]` of a configuration. Another package registers its own in a module that calls
`register_study` and is listed in the entry-point group `sdm.studies`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from sdm.experiments.origin import by_language_model
from sdm.experiments.spec import Cell, Options
from sdm.experiments.text_table import Table
from sdm.storage.plugins import load_plugins

if TYPE_CHECKING:
    import altair as alt

GROUP = "sdm.studies"
Row = dict[str, Any]
Step = Callable[[str, int, int], None]  # name of a step, work done, total work


@runtime_checkable
class Study(Protocol):
    """A kind of cell with its own run, table, figure and conclusion.

    Attributes:
        name: key of its options in a configuration, and `learner` of its rows.
        label: `policy` of its rows.
        lists: options whose values are lists; other lists are axes, and a list of lists
            is an axis of these options.
        seeds: the only seeds of its cells; () for the profile's.

    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def label(self) -> str: ...  # noqa: D102
    @property
    def lists(self) -> frozenset[str]: ...  # noqa: D102
    @property
    def seeds(self) -> tuple[int, ...]: ...  # noqa: D102

    def condition(self, options: Options) -> str:
        """Return a short description of a cell with these options."""

    def needs_torch(self, options: Options) -> bool:
        """Return whether PyTorch computes a cell with these options."""

    def run(self, cell: Cell, work: Path, step: Step) -> Row:
        """Run a cell, and return the entries of its row as JSON values.

        Args:
            cell: the cell; `learn` has its options.
            work: folder of the cell, which an interrupted run finds again and which
                is removed once the row is written; it may not exist yet.
            step: called with the name of a step, work done and total work.

        Raises:
            ValueError, RuntimeError, OSError, FloatingPointError: if the cell fails.

        """

    def result(self, row: Row) -> str:
        """Return the result of a row in a few words."""

    def table(self, rows: Sequence[Row]) -> Table:
        """Return the table of the report; a line that says so without rows."""

    def figure(self, rows: Sequence[Row]) -> "alt.TopLevelMixin":
        """Return the figure of at least one row."""

    def conclusion(self, rows: Sequence[Row]) -> list[str]:
        """Return sentences that state what the rows show; none without rows."""


_Class = TypeVar("_Class", bound=type)
_registered: dict[str, Study] = {}


def register_study(study: _Class) -> _Class:
    """Register a class of which an instance without arguments is a study."""
    made = study()
    _registered[made.name] = made
    return study


@cache
def studies() -> Mapping[str, Study]:
    """Return every registered study by name."""
    load_plugins("sdm.experiments.studies", group=GROUP, what="study")
    return dict(_registered)


def needs_torch(cell: Cell) -> bool:
    """Return whether PyTorch acts in, trains or computes a cell."""
    if cell.study:
        return studies()[cell.learner].needs_torch(cell.learn)
    return by_language_model(cell)
