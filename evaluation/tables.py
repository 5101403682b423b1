"""Evaluation results as rows, a table and a figure."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdm.data.optimality_gap import OptimalityGap, narrower, paired_difference
from sdm.evaluation.result import PolicyResult

Row = dict[str, Any]
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
        **_slack(result.by_regret),
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
        **result.measures,
    }
    if result.in_every_model is not None:
        for name, found in result.in_every_model.gaps().items():
            row |= _gap(found, f"{name}_gap", f"{name}_")
        for name, mean in result.in_every_model.return_means().items():
            row[f"{name}_return_mean"] = mean
    return row | _per_task(result) if per_task else row


def _gap(gap: OptimalityGap, name: str = "gap", before: str | None = None) -> Row:
    """Return a gap in per cent as `NAME_percent`, and the ends of its interval."""
    if before is None:
        before = "" if name == "gap" else f"{name}_"
    ends = {f"{before}ci_low": gap.low, f"{before}ci_high": gap.high}
    return {f"{name}_percent": 100 * gap.mean} | {
        name: None if math.isnan(end) else 100 * end for name, end in ends.items()
    }


def _slack(gap: OptimalityGap | None) -> Row:
    """Return what the optimum's bounds add to the upper end of a gap by regret."""
    if gap is None or math.isnan(gap.low):
        return {}
    added = (gap.high - gap.mean) - (gap.mean - gap.low)
    return {"regret_slack_percent": round(100 * added, 9)}  # no rounding errors


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
