"""Estimate of the remaining time of an experiment's run."""

from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any

from sdm.experiments.origin import trains
from sdm.experiments.rows import Row
from sdm.experiments.spec import Cell, key_of

# Default estimates in seconds for a cell with training, and for one without.
UNKNOWN, AT_ONCE = 60.0, 1.0
SPEC = ("learner", "test", "data", "learn")  # of a cell, without its seed
TRAINING_SHARE = 0.8  # assumed share of training in the time of a cell that trains


class TimeLeft:
    """Estimate from the times of earlier cells, scaled by this machine's speed."""

    def __init__(
        self,
        todo: Iterable[Cell],
        known: Iterable[Row],
        is_trained: Callable[[Cell], bool] = lambda cell: False,
    ) -> None:
        """Estimate each cell by earlier times: its own, or else those of others.

        The others are the same cell with other seeds, or else all cells of its policy
        in the profile.

        Args:
            todo: cells to run.
            known: rows of earlier runs.
            is_trained: whether the policy of a cell is already trained; its training
                time is then excluded.

        """
        alike: dict[tuple[str, ...], list[Row]] = {}
        for row in known:
            spec = {name: row.get(name) for name in SPEC}
            alike[(row["key"],)] = [row]
            for key in (key_of(spec),), (row["profile"], row["policy"]):
                alike.setdefault(key, []).append(row)

        def expected(cell: Cell) -> float:
            spec = {name: cell.spec[name] for name in SPEC}
            keys = (cell.key,), (key_of(spec),), (cell.profile, cell.policy)
            rows = next((alike[key] for key in keys if key in alike), [])
            if not rows:
                return UNKNOWN if trains(cell) else AT_ONCE
            trained = is_trained(cell)
            return float(max(0.1, median(_seconds(row, trained) for row in rows)))

        self._expected = {cell.key: expected(cell) for cell in todo}
        self._spent = self._met = 0.0
        self._at = ("", 0.0, 0.0)  # the cell, its share and the time to count from

    def __call__(
        self, cell: Cell | None = None, share: float = 0.0, now: float = 0.0
    ) -> float:
        """Return the estimated seconds left.

        Args:
            cell: the current cell; None between cells.
            share: share of it that is done. The share at which it was resumed does not
                count towards the speed.
            now: current time, in seconds.

        """
        left, spent, met = sum(self._expected.values()), self._spent, self._met
        if cell is not None and cell.key in self._expected:
            if self._at[0] != cell.key or not self._at[1]:
                self._at = (cell.key, share, now)
            _, first, since = self._at
            expected = self._expected[cell.key]
            left -= share * expected
            spent, met = spent + now - since, met + (share - first) * expected
        # The added constant keeps the first seconds from dominating the speed.
        return left * (spent + UNKNOWN) / (met + UNKNOWN)

    def done(self, cell: Cell, now: float) -> None:
        """Count a cell as done at the time `now`, in seconds."""
        expected = self._expected.pop(cell.key)
        key, first, since = self._at
        if key == cell.key and expected > AT_ONCE:  # compilation dominates the others
            self._met += (1 - first) * expected
            self._spent += now - since

    def skip(self, cell: Cell) -> None:
        """Drop a cell that failed or was done elsewhere."""
        del self._expected[cell.key]


def share_done(step: str, share: float, *, trains: bool) -> float:
    """Return the share of a cell that is done, given the share of its current step."""
    trained = TRAINING_SHARE if trains else 0.0
    parts = {"training": trained * share, "acting": trained + (1 - trained) * share}
    return parts.get(step, 0.0)


def _seconds(row: Row, trained: bool) -> float:
    """Return the seconds of a row's cell, without its training if `trained`."""
    training: Mapping[str, Any] = row.get("training") or {}
    return float(row["seconds"]) - (training.get("seconds", 0.0) if trained else 0.0)
