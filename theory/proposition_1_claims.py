"""Check in how many cells of the grid each step of Proposition 1 holds."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from sdm.theory.proposition_1 import Cell

SURE = 3.0  # standard errors


@dataclass(frozen=True)
class Claim:
    """One step of the proof, checked in all cells of the grid.

    Attributes:
        name: the inequality.
        where: its place in the paper; "ours" if it is not there.
        holds: number of cells in which it holds.
        cells: number of cells.
        looseness: smallest, median and largest ratio of the right side to the left,
            over cells with a positive left side; None if there is no such cell.

    """

    name: str
    where: str
    holds: int
    cells: int
    looseness: tuple[float, float, float] | None


def claims(cells: Sequence[Cell]) -> list[Claim]:
    """Return each step of the proof with the number of cells in which it holds."""
    table = {
        f.name: np.array([getattr(cell, f.name) for cell in cells])
        for f in fields(Cell)
    }
    off = np.abs(table["risk_empirical"] - table["risk_exact"]) / table["risk_se"]

    def claim(name: str, where: str, held: Any, right: Any, left: Any) -> Claim:
        ratio, loose = right[left > 0] / left[left > 0], None
        if len(ratio):
            loose = (float(ratio.min()), float(np.median(ratio)), float(ratio.max()))
        return Claim(name, where, int(held.sum()), len(cells), loose)

    def below(name: str, where: str, left: str, right: str) -> Claim:
        held = table[left] <= table[right] * (1 + 1e-12)  # rounding
        return claim(name, where, held, table[right], table[left])

    simulated, exact = table["risk_empirical"], table["risk_exact"]
    return [
        claim("simulated = exact risk (3 SE)", "risk", off <= SURE, exact, simulated),
        below("exact risk ≤ bound", "Lemma 1", "risk_exact", "risk_bound"),
        claim(
            "gap ≤ errors at the two actions, in every task",
            "proof of Prop. 1",
            table["holds_pathwise"],
            table["errors_discounted"],
            table["gap"],
        ),
        below("gap ≤ 2 ε̂ (1-γ^T)/(1-γ)", "E.2, (12)", "gap", "bound"),
        below("gap ≤ 2 √C ε (1-γ^T)/(1-γ)", "Prop. 1", "gap", "bound_calibrated"),
        below("gap ≤ scaled bound (best c Q̂)", "ours", "gap", "bound_scaled"),
        below(
            "scaled bound ≤ bound of Prop. 1",
            "ours",
            "bound_scaled",
            "bound_calibrated",
        ),
        below("scaled risk ≤ exact risk", "ours", "risk_scaled", "risk_exact"),
    ]
