"""`theory`: the check of Proposition 1 in every cell of κ, M and N."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdm.experiments.spec import Cell, Options
from sdm.experiments.study import Row, Step, register_study
from sdm.experiments.text_table import NOT_RUN, Line, Table

if TYPE_CHECKING:
    import altair as alt


@register_study
class Theory:
    """Gap and bound of linear self-attention; `options` are those of the check."""

    name = "theory"
    label = "linear attention"
    lists: frozenset[str] = frozenset()
    seeds = (0,)

    def condition(self, options: Options) -> str:
        """Return the values that differ within a cell."""
        return "κ, M and N"

    def needs_torch(self, options: Options) -> bool:
        """Return False: the check needs JAX only."""
        return False

    def run(self, cell: Cell, work: Path, step: Step) -> Row:
        """Check Proposition 1 in every cell of κ, M and N."""
        from sdm.theory.proposition_1 import Grid, rows, validate

        return {"cells": rows(validate(Grid(seed=cell.seed, **cell.learn)))}

    def result(self, row: Row) -> str:
        """Return in how many cells the bound holds."""
        holds = sum(cell["holds"] for cell in row["cells"])
        return f"{holds} of {len(row['cells'])} below the bound"

    def table(self, rows: Sequence[Row]) -> Table:
        """Return a table with a line per κ."""
        head = ["κ", "cells of M and N", "paper", "ours", "bound / gap, least", "most"]
        theirs = "every gap below the bound"
        everything = [one for row in rows for one in row["cells"]]
        if not everything:
            return Table(head, 1, [Line(["any", "", theirs, NOT_RUN, "", ""], False)])
        lines = []
        for kappa in sorted({one["kappa"] for one in everything}):
            checked = [one for one in everything if one["kappa"] == kappa]
            holds = sum(one["holds"] for one in checked)
            ratios = [one["bound"] / one["gap"] for one in checked if one["gap"] > 0]
            texts = [
                f"{kappa:g}",
                str(len(checked)),
                theirs,
                f"{holds} of {len(checked)} below it",
                f"{min(ratios):.3g}" if ratios else "",
                f"{max(ratios):.3g}" if ratios else "",
            ]
            lines.append(Line(texts, True))
        return Table(head, 1, lines)

    def figure(self, rows: Sequence[Row]) -> "alt.TopLevelMixin":
        """Draw gap and bound against M, with a line per N and a panel per κ."""
        import altair as alt

        from sdm.experiments.figures import PANEL

        records = [
            {
                "M": cell["support"],
                "N": str(cell["train"]),
                "κ": f"κ = {cell['kappa']:g}",
                "value": cell[name],
                "what": what,
            }
            for row in rows
            for cell in row["cells"]
            for name, what in (("gap", "gap"), ("bound", "bound"))
        ]
        order = list(dict.fromkeys(record["κ"] for record in records))
        trains = sorted({record["N"] for record in records}, key=int)
        chart: alt.TopLevelMixin = (
            _lines(trains)
            .properties(**PANEL)
            .facet(
                facet=alt.Facet("κ:N", title=None, sort=order),
                columns=3,
                data=alt.Data(values=records),
            )
        )
        return chart

    def conclusion(self, rows: Sequence[Row]) -> list[str]:
        """Return no sentence: the table is the answer."""
        return []


def _lines(trains: Sequence[str]) -> "alt.Chart":
    """Return the lines of one panel, in the order of the numbers of examples."""
    import altair as alt

    tips = ["κ:N", "M:Q", "N:N", "what:N", alt.Tooltip("value:Q", format=".3g")]
    chart: alt.Chart = (
        alt.Chart()
        .mark_line(point=True)
        .encode(
            x=alt.X(
                "M:Q",
                scale=alt.Scale(type="log", nice=False),
                title="M, prompt examples",
            ),
            y=alt.Y("value:Q", scale=alt.Scale(type="log"), title="loss of return"),
            color=alt.Color("N:N", sort=trains, title="N, training examples"),
            strokeDash=alt.StrokeDash(
                "what:N",
                sort=["gap", "bound"],
                title=None,
                legend=alt.Legend(symbolType="stroke"),
            ),
            tooltip=tips,
        )
    )
    return chart
