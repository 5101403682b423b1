"""A figure of where policies lose: their gaps by regret, by stage and by state."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdm.storage.files import temporary_name

STATES = 10  # states that the figure shows


class NoRegretError(ValueError):
    """Tasks of which no regret is known, so that there is nothing to show."""

    def __init__(self) -> None:
        super().__init__(
            "figure: no regret is known of these tasks, since the oracle's action "
            "values are not expected returns"
        )


def save_loss_figure(rows: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Save a figure with a panel of stages and one of states, as PNG or PDF.

    No display is needed.

    Args:
        rows: rows from `result_rows`; those without regrets are left out.
        path: the file to write; its suffix chooses the format.

    Raises:
        NoRegretError: if no row has regrets.
        ValueError: if the suffix is unknown.

    """
    from matplotlib.figure import Figure

    known = {name: row for name, row in rows.items() if "lost_by_stage" in row}
    if not known:
        raise NoRegretError
    check_suffix(path)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    stages, states = figure.subplots(1, 2)
    for name, row in known.items():
        lost = row["lost_by_stage"]
        stages.plot(range(1, len(lost) + 1), lost, marker="o", label=name)
    stages.set_xlabel("stage")
    stages.set_ylabel("part of the gap, percentage points")
    stages.legend()
    shown = _states(known)
    height = 0.8 / len(known)
    for at, (name, row) in enumerate(known.items()):
        points = {one["state"]: one["points"] for one in row["lost_by_state"]}
        places = [y + (at - (len(known) - 1) / 2) * height for y in range(len(shown))]
        states.barh(places, [points.get(s, 0.0) for s in shown], height, label=name)
    states.set_yticks(range(len(shown)), shown)
    states.invert_yaxis()
    states.set_xlabel("part of the gap, percentage points")
    for axes in (stages, states):
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_name(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:])


def check_suffix(path: Path) -> None:
    """Refuse a file that is no known image.

    Raises:
        ValueError: if the suffix is unknown.

    """
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(
            f"figure: `{path}` must end in .png, .pdf or .svg, found `{path.suffix}`"
        )


def _states(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the states with the largest losses of any policy, the largest first."""
    most: dict[str, float] = {}
    for row in rows.values():
        for one in row["lost_by_state"]:
            most[one["state"]] = max(most.get(one["state"], 0.0), one["points"])
    return sorted(most, key=lambda state: -most[state])[:STATES]
