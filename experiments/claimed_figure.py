"""Figure of claimed against true values, with the diagonal of honest claims."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from sdm.experiments.figures import PANEL

ROOM = 0.1  # share of the range of true values that is left free at each end


def claimed_figure(records: Sequence[dict[str, Any]]) -> alt.TopLevelMixin:
    """Draw a point for each planner, seed and claim, in a panel for each log.

    Points above the diagonal claim too much.

    Args:
        records: points with `panel`, `planner`, `seed`, `true`, `y` and `claim`.

    """
    order = list(dict.fromkeys(record["panel"] for record in records))
    points = [{**record, "kind": "point"} for record in records]
    for panel in order:
        # Claims spread wider: a horizontal axis with their range would hide the plans.
        ends = [r["true"] for r in records if r["panel"] == panel]
        room = ROOM * ((max(ends) - min(ends)) or 1.0)
        points += [
            {"panel": panel, "kind": "diagonal", "true": x, "y": x}
            for x in (min(ends) - room, max(ends) + room)
        ]
    scale = alt.Scale(zero=False, nice=False)
    base = alt.Chart().encode(
        x=alt.X("true:Q", title="true value", scale=scale),
        y=alt.Y("y:Q", title="claimed value", scale=scale),
    )
    diagonal = base.transform_filter(alt.datum.kind == "diagonal")
    shown = base.transform_filter(alt.datum.kind == "point").encode(
        color=alt.Color(
            "planner:N", title=None, sort=None, scale=alt.Scale(scheme="tableau10")
        ),
        shape=alt.Shape("claim:N", title=None),
        tooltip=[
            "planner:N",
            "claim:N",
            "seed:N",
            alt.Tooltip("true:Q", format=".4f"),
            alt.Tooltip("y:Q", title="claimed", format=".4f"),
        ],
    )
    layered = alt.layer(
        diagonal.mark_line(color="#888", strokeDash=[4, 3]),
        shown.mark_point(size=35, opacity=0.7),
    )
    chart: alt.TopLevelMixin = (
        layered.properties(**PANEL)
        .facet(
            facet=alt.Facet("panel:N", title=None, sort=order),
            columns=2,
            data=alt.Data(values=points),
        )
        .resolve_scale(x="independent", y="independent")
    )
    return chart
