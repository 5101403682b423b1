"""An estimate of the time that a run of an experiment still takes."""

from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any

from sdm.experiments.rows import Row
from sdm.experiments.spec import Cell

# Seconds of a cell of which nothing is known: one that trains, or another.
UNKNOWN, AT_ONCE = 60.0, 1.0
TRAINING_SHARE = 0.8  # of the time of a cell that trains, a guess


class TimeLeft:
    """Estimates from what cells took before, corrected by this machine's pace."""

    def __init__(
        self,
        todo: Iterable[Cell],
        known: Iterable[Row],
        is_trained: Callable[[Cell], bool] = lambda cell: False,
    ) -> None:
        """Expect of each cell what it took, or what its policy took in its profile.

        Training does not count where `is_trained`.
        """
        exact: dict[str, Row] = {}
        alike: dict[tuple[str, str], list[Row]] = {}
        for row in known:
            exact[row["key"]] = row
            alike.setdefault((row["profile"], row["policy"]), []).append(row)

        def expected(cell: Cell) -> float:
            like = alike.get((cell.profile, cell.policy), [])
            rows = [exact[cell.key]] if cell.key in exact else like
            if not rows:
                return UNKNOWN if cell.trains else AT_ONCE
            trained = is_trained(cell)
            return float(max(0.1, median(_seconds(row, trained) for row in rows)))

        self._expected = {cell.key: expected(cell) for cell in todo}
        self._spent = self._met = 0.0
        self._at = ("", 0.0, 0.0)  # the cell, its share and the time to count from

    def __call__(
        self, cell: Cell | None = None, share: float = 0.0, now: float = 0.0
    ) -> float:
        """Return the seconds left when this share of a cell is done at this time.

        The share of a cell with which it was resumed says nothing about the pace.
        """
        left, spent, met = sum(self._expected.values()), self._spent, self._met
        if cell is not None and cell.key in self._expected:
            if self._at[0] != cell.key or not self._at[1]:
                self._at = (cell.key, share, now)
            _, first, since = self._at
            expected = self._expected[cell.key]
            left -= share * expected
            spent, met = spent + now - since, met + (share - first) * expected
        # A machine twice as slow shows after the first minutes, not after a second.
        return left * (spent + UNKNOWN) / (met + UNKNOWN)

    def done(self, cell: Cell, now: float) -> None:
        """Count a cell as done at this time."""
        expected = self._expected.pop(cell.key)
        key, first, since = self._at
        if key == cell.key and expected > AT_ONCE:  # others only compile
            self._met += (1 - first) * expected
            self._spent += now - since

    def skip(self, cell: Cell) -> None:
        """Drop a cell that failed or was done elsewhere."""
        del self._expected[cell.key]


def share_done(step: str, share: float, *, trains: bool) -> float:
    """Return the share of a cell that is done when this share of a step is."""
    trained = TRAINING_SHARE if trains else 0.0
    parts = {"training": trained * share, "acting": trained + (1 - trained) * share}
    return parts.get(step, 0.0)


def _seconds(row: Row, trained: bool) -> float:
    """Return what a row's cell took, or would have taken without its training."""
    training: Mapping[str, Any] = row.get("training") or {}
    return float(row["seconds"]) - (training.get("seconds", 0.0) if trained else 0.0)
