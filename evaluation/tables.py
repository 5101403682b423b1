"""Evaluation results as rows, a table and a figure."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table

from sdm.data.optimality_gap import OptimalityGap, narrower, paired_difference
from sdm.evaluation.result import PolicyResult

Row = dict[str, Any]
# Measures over all models of an ambiguity set, and the titles of their columns.
IN_MODELS = {
    "worst_model": "in worst model",
    "alpha_meu": "by α-MEU",
    "random_model": "in random model",
}
DIGITS = 7  # significant digits of values per task


def result_rows(
    results: Sequence[PolicyResult],
    reference: str | None = None,
    *,
    per_task: bool = False,
) -> dict[str, Row]:
    """Return a row for each policy, in increasing order of the gap.

    Args:
        results: results of one test.
        reference: policy with which the others are compared by paired differences over
            tasks; None for no comparison.
        per_task: see `result_row`.

    """
    rows = {}
    for result in sorted(results, key=lambda result: result.gap.mean):
        rows[result.policy] = result_row(result, per_task=per_task)
        for other in results:
            if other.policy == reference:
                rows[result.policy] |= _difference(result, other)
    return rows


def _difference(result: PolicyResult, other: PolicyResult) -> Row:
    returns = paired_difference(result.returns, other.returns, result.optimal_returns)
    found = returns
    if result.regrets is not None and other.regrets is not None:
        assert result.optimal_values is not None
        lost = paired_difference(-result.regrets, -other.regrets, result.optimal_values)
        found = narrower(returns, lost)
    names = ("difference_percent", "difference_low", "difference_high")
    ends = dict(zip(names, _gap(found).values(), strict=True))
    return {**ends, "difference_estimator": "returns" if found is returns else "regret"}


def result_row(result: PolicyResult, *, per_task: bool = False) -> Row:
    """Return the row of one policy, with gaps in % of the optimal return.

    Args:
        result: the results of the policy.
        per_task: whether to include the values of each task, from which the gaps and
            their intervals follow.

    """
    gap, exact = result.gap, result.exact_gap
    row = {
        **_gap(gap),
        "estimator": result.estimator,
        **_gap(result.by_returns, "returns"),
        **(_gap(result.by_regret, "regret") if result.by_regret else {}),
        "exact_gap_percent": None if exact is None else 100 * exact.mean,
        "return_mean": result.return_mean,
        "exact_return_mean": result.exact_return_mean,
        "optimal_return_mean": result.optimal_return_mean,
        "agreement": result.agreement,
        "merged_agreement": result.merged_agreement,
        "invalid_mass": result.invalid_mass,
        "undefined_tasks": list(gap.undefined_tasks),
        "tiny_tasks": list(gap.tiny_tasks),
        "seconds": result.seconds,
        **_losses(result),
        **_plan_bounds(result),
    }
    if result.in_every_model is not None:
        for name, found in result.in_every_model.gaps().items():
            row |= _gap(found, f"{name}_gap", f"{name}_")
    return row | _per_task(result) if per_task else row


def _gap(gap: OptimalityGap, name: str = "gap", before: str | None = None) -> Row:
    """Return a gap in per cent as `NAME_percent`, and the ends of its interval."""
    if before is None:
        before = "" if name == "gap" else f"{name}_"
    ends = {f"{before}ci_low": gap.low, f"{before}ci_high": gap.high}
    return {f"{name}_percent": 100 * gap.mean} | {
        name: None if math.isnan(end) else 100 * end for name, end in ends.items()
    }


def _per_task(result: PolicyResult) -> Row:
    """Return the values of each task from which the gaps and intervals follow."""
    columns = {
        "returns": result.returns,
        "optimal_returns": result.optimal_returns,
        "regrets": result.regrets,
        "optimal_values": result.optimal_values,
    }
    every = result.in_every_model
    if every is not None:
        columns |= {
            "returns_by_model": every.returns,
            "optimal_returns_by_model": every.optimal,
        }
    row = {name: _short(x) for name, x in columns.items() if x is not None}
    return row if every is None else row | {"alpha": every.alpha}


def _short(values: np.ndarray) -> list[Any]:
    """Return an array as nested lists of few significant digits."""
    if values.ndim > 1:
        return [_short(row) for row in values]
    return [float(f"{x:.{DIGITS}g}") for x in values]


def _losses(result: PolicyResult) -> Row:
    """Return where the policy loses, in percentage points; empty if it is unknown."""
    if result.losses is None:
        return {}
    return {
        "lost_by_stage": _short(result.losses.by_stage),
        "lost_by_state": [
            {"state": one.name, "points": one.points, "visits": one.visits}
            for one in result.losses.by_state
        ],
    }


def _plan_bounds(result: PolicyResult) -> Row:
    """Return the bounds of an approximate plan; an empty row if there are none."""
    if result.bounds is None:
        return {}
    lower, upper = (float(np.mean(end)) for end in result.bounds)
    return {
        "plan_lower_mean": lower,
        "plan_upper_mean": upper,
        "plan_gap_percent": 100 * (upper - lower) / max(abs(upper), abs(lower), 1e-300),
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


class FittingTable(Table):
    """A table that hides columns if the terminal is too narrow, to truncate no number.

    Attributes:
        spare: titles of columns that may be hidden, in the order of hiding.

    """

    def __init__(self, *, spare: Sequence[str], **options: Any) -> None:
        """Make a table without columns; `options` are those of `rich.table.Table`."""
        super().__init__(**options)
        self.spare = spare

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[Any]:
        """Draw the columns that fit, and list the hidden ones in the caption."""
        shown, hidden = copy.copy(self), list[str]()
        unbounded = options.update_width(10_000)
        for title in self.spare:
            if Measurement.get(console, unbounded, shown).maximum <= options.max_width:
                break
            shown.columns = [c for c in shown.columns if c.header != title]
            hidden.append(title)
        if hidden:
            note = f"columns hidden: {', '.join(hidden)}"
            shown.caption = f"{self.caption}\n{note}" if self.caption else note
        yield from Table.__rich_console__(shown, console, options)


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
    spare = ("seconds", "invalid", "merged", "agreement", "return", "exact gap")
    table = FittingTable(spare=spare, title=f"{title}\n{test}".strip(), caption=caption)
    table.add_column("policy", overflow="fold")
    for title in ("gap", "95 % interval", "exact gap"):
        table.add_column(title, justify="right")
    if paper:
        table.add_column("paper", justify="right")
    if reference is not None:
        table.add_column(f"gap over {reference}'s", justify="right")
    for name, title in IN_MODELS.items():
        if any(f"{name}_gap_percent" in row for row in rows.values()):
            table.add_column(title, justify="right")
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


def save_gap_figure(rows: Mapping[str, Row], title: str, path: Path) -> None:
    """Save bars of the gaps with their intervals, as `path`.png and `path`.pdf.

    No display is needed. Policies are in the order of `rows`, from top to bottom.

    Args:
        rows: rows from `result_rows`.
        title: title of the figure.
        path: path of the files; its suffix is replaced.

    """
    from matplotlib.figure import Figure

    names = list(rows)
    gaps = [rows[name]["gap_percent"] for name in names]
    # A single task has no interval, so its bar has no whiskers.
    ends = [
        (gap - rows[n]["ci_low"], rows[n]["ci_high"] - gap)
        if rows[n]["ci_low"] is not None
        else (0.0, 0.0)
        for n, gap in zip(names, gaps, strict=True)
    ]
    figure = Figure(figsize=(7, 0.42 * len(names) + 1.3), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, gaps, xerr=list(zip(*ends, strict=True)), capsize=3, color="C0")
    for y, (gap, (_, up)) in enumerate(zip(gaps, ends, strict=True)):
        axes.annotate(
            f"{gap:.1f}",
            (max(gap + up, 0), y),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
        )
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("optimality gap, % (95 % interval over tasks)")
    axes.set_title(title)
    for suffix in (".png", ".pdf"):
        figure.savefig(path.with_suffix(suffix), dpi=150)
