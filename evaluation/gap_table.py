"""The table of gaps that commands print."""

from collections.abc import Mapping

from rich.table import Table

from sdm.evaluation.fitting_table import FittingTable
from sdm.evaluation.measure import measure_titles
from sdm.evaluation.tables import Row

# Measures over all models of an ambiguity set, and the titles of their columns.
IN_MODELS = {
    "worst_model": "in worst model",
    "alpha_meu": "by α-MEU",
    "random_model": "in random model",
}


def bounds_notes(rows: Mapping[str, Row]) -> str:
    """Return one line for each policy with an approximate plan."""
    return "\n".join(
        f"`{name}` plans within {row['plan_gap_percent']:.2g} % of the best plan for "
        f"its prior, by its bounds on the return: {row['plan_lower_mean']:.4g} to "
        f"{row['plan_upper_mean']:.4g}"
        for name, row in rows.items()
        if "plan_gap_percent" in row
    )


def gap_table(
    rows: Mapping[str, Row],
    paper: Mapping[str, str] | None = None,
    reference: str | None = None,
    test: str = "",
    caption: str | None = None,
) -> Table:
    """Return a table with one line per policy.

    Args:
        rows: rows from `result_rows`.
        paper: the paper's gaps by policy; None for no such column.
        reference: the policy with which the rows are compared; None for none.
        test: short description of the test.
        caption: text below the table.

    """
    title = "Optimality gap in unseen tasks, % of the optimal return"
    caption = "\n".join(filter(None, (caption, bounds_notes(rows)))) or None
    own = [x for x in measure_titles() if any(x in row for row in rows.values())]
    spare = ["seconds", "invalid", "merged", "agreement", "return", "exact gap"]
    spare += [measure_titles()[name] for name in reversed(own)]
    table = FittingTable(spare=spare, title=f"{title}\n{test}".strip(), caption=caption)
    table.add_column("policy")
    for title in ("gap", "95 % interval", "exact gap"):
        table.add_column(title, justify="right")
    if paper:
        table.add_column("paper", justify="right")
    if reference is not None:
        table.add_column(f"gap over {reference}'s", justify="right")
    for name, title in IN_MODELS.items():
        if any(f"{name}_gap_percent" in row for row in rows.values()):
            table.add_column(title, justify="right")
    for name in own:
        table.add_column(measure_titles()[name], justify="right")
    merged = any(row["merged_agreement"] is not None for row in rows.values())
    last = ("return", "agreement", *["merged"] * merged, "invalid", "seconds")
    for title in last:
        table.add_column(title, justify="right")
    for name, row in rows.items():
        low, high, exact = row["ci_low"], row["ci_high"], row["exact_gap_percent"]
        cells = [
            name,
            f"{row['gap_percent']:.2f}",
            "one task" if low is None else f"{low:.2f} … {high:.2f}",
            "" if exact is None else f"{round(exact, 2) + 0:.2f}",
        ]
        if paper:
            cells.append(paper.get(name, ""))
        if reference is not None:
            cells.append(_interval(row, "difference"))
        cells += [
            f"{row[f'{name}_gap_percent']:.2f}"
            for name in IN_MODELS
            if f"{name}_gap_percent" in row
        ]
        cells += ["" if row.get(x) is None else f"{row[x]:.3g}" for x in own]
        cells += [
            f"{row['return_mean']:.3f}",
            f"{100 * row['agreement']:.1f} %",
            *[_percent(row["merged_agreement"], ".1f")] * merged,
            _percent(row["invalid_mass"], ".3g"),
            f"{row['seconds']:.1f}",
        ]
        table.add_row(*cells)
    return table


def _percent(share: float | None, digits: str) -> str:
    """Format a share in per cent; None as an empty string."""
    return "" if share is None else f"{100 * share:{digits}} %"


def _interval(row: Row, name: str) -> str:
    """Format a number with its interval, if it has one."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    middle = f"{row[f'{name}_percent']:+.2f}"
    return middle if low is None else f"{middle} ({low:.2f} … {high:.2f})"
