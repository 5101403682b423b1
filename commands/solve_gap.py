"""Bounds while `sdm solve` works, and a gap that it did not reach: `--require-gap`."""

from collections.abc import Callable
from typing import Any

from sdm.commands.console import fail, say

HINTS = {
    "search": "raise `--seconds`, or allow a wider gap with `--gap` or `--atol`",
    "": "raise `--points`, or allow a wider gap with `--gap` or `--atol`",
}
NO_PLAN = "set `--horizon` if it is missing, or raise `--seconds` or `--points`"
LATER = 1.5  # time of a line, as a multiple of that of the line before
LONGEST = 60.0  # seconds between two lines


def bounds_lines() -> Callable[[float, float, float], None]:
    """Return a function that prints the bounds, less and less often.

    Its arguments are the seconds so far and both bounds.
    """
    due = 0.0

    def show(seconds: float, lower: float, upper: float) -> None:
        nonlocal due
        if seconds >= due:
            due = seconds + min(max(1.0, (LATER - 1) * seconds), LONGEST)
            say(f"{seconds:6.1f} s: value between {lower:.6g} and {upper:.6g}")

    return show


def missed_gap(report: dict[str, Any], gap: float | None) -> str:
    """Return a sentence if tasks have not reached the gap, else "".

    Args:
        report: report of one model, with `converged` and its bounds if it has them, or
            of sampled tasks, with `missed_gap` and `relative_gap_max`.
        gap: relative gap to reach; None if the method has no such option.

    """
    aim = "the gap" if gap is None else f"the gap of {100 * gap:.3g} %"
    if report.get("missed_gap"):
        tasks = f"{report['missed_gap']} of {report['tasks']} tasks"
        return (
            f"{tasks} have not reached {aim}: the widest is "
            f"{100 * report['relative_gap_max']:.3g} %"
        )
    if report.get("converged", True):
        return ""
    lower, upper = report["lower"], report["upper"]
    if lower is None:
        return (
            "no plan is found that takes admissible actions only: the value is at "
            f"most {upper:.6g}"
        )
    size = max(abs(lower), abs(upper))
    width = f"{100 * (upper - lower) / size:.3g} % apart" if size else "apart"
    return f"{aim} is not reached: the bounds {lower:.6g} and {upper:.6g} are {width}"


def report_gap(report: dict[str, Any], gap: float | None, *, required: bool) -> None:
    """Warn of a gap that is not reached, or exit with code 1 if it is required."""
    if not (sentence := missed_gap(report, gap)):
        return
    hint = HINTS.get(report.get("method", ""), HINTS[""])
    if report.get("lower", 0) is None:
        hint = NO_PLAN
    if required:
        fail(sentence, hint, code=1)
    say(f"warning: {sentence}; {hint}", "yellow")
