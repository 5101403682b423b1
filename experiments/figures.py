"""Figures of experiments in Vega-Lite, for a browser or as PNG.

The paper's values are hollow points and dashed lines, in the colour of the
corresponding policy.
"""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import altair as alt
import vl_convert

from sdm.experiments.spec import Experiment, plain
from sdm.experiments.tables import Point

PANEL = {"width": 380, "height": 300}
WIDE = {"width": 760, "height": 400}
PNG_SCALE = 1.5
# Titles of the vertical axis, by measure.
Y_TITLES = {
    "gap": "optimality gap, %",
    "worst_model": "optimality gap in worst model, %",
    "alpha_meu": "optimality gap by α-MEU, %",
    "random_model": "optimality gap in random model, %",
}
Record = dict[str, Any]
GapAxis = Callable[[str], alt.Y]


def gap_figure(experiment: Experiment, points: Sequence[Point]) -> alt.TopLevelMixin:
    """Draw gaps against the axis, with a line per policy and a panel per facet.

    A facet with a single gap has no panel, unless none has more: it compares nothing.
    """
    records = _several_in_a_panel(_records(experiment, points))
    both = any(record["source"] == "paper" for record in records)
    base = _axis_and_colours(experiment, records, points)
    gap_axis = partial(_gap_axis, Y_TITLES[experiment.measure])
    placed = base.transform_filter("datum.x !== null")
    layers: list[alt.Chart] = []
    if any(record["x"] is None for record in records):
        # A policy that does not depend on the axis has a constant gap.
        rule = alt.Chart().transform_filter("datum.x === null").mark_rule()
        shown = {"color": base.encoding.color, "tooltip": base.encoding.tooltip}
        layers.append(rule.encode(y=gap_axis("gap:Q"), **shown))
    if experiment.goal is not None:
        layers.append(_goal_line(experiment.goal, gap_axis))
    layers += _point_layers(placed, gap_axis, both=both)
    if experiment.x_scale == "log":
        dash = alt.StrokeDash(
            "source:N",
            title=None,
            scale=alt.Scale(domain=["ours", "paper"], range=[[1, 0], [4, 3]]),
        )
        line = placed.mark_line(strokeWidth=1.4)
        layers.append(line.encode(y=gap_axis("gap:Q"), strokeDash=dash))
    return _panels(alt.layer(*layers), records, experiment.facet)


def _axis_and_colours(
    experiment: Experiment, records: Sequence[Record], points: Sequence[Point]
) -> alt.Chart:
    """Return a chart with the horizontal axis, a colour per policy, and tooltips."""
    numbers = experiment.x_scale == "log"
    kind: Literal["quantitative", "ordinal"] = "quantitative" if numbers else "ordinal"
    scale = alt.Scale(type="log", nice=False, padding=12) if numbers else alt.Undefined
    order = list(dict.fromkeys(r["x"] for r in records if r["x"] is not None))
    if all(isinstance(x, int | float) for x in order):  # texts stay as configured
        order.sort()
    policies = list(dict.fromkeys(point.policy for point in points))
    scheme: Literal["tableau10", "tableau20"]
    scheme = "tableau10" if len(policies) <= 10 else "tableau20"
    chart = alt.Chart().encode(
        x=alt.X(
            "x",
            type=kind,
            title=experiment.x_title or None,
            scale=scale,
            sort=alt.Undefined if numbers else order,
            axis=alt.Axis(labelAngle=-30 if _long(order) else 0),
        ),
        color=alt.Color(
            "policy:N",
            title=None,
            scale=alt.Scale(domain=policies, scheme=scheme),
            legend=alt.Legend(symbolLimit=20),
        ),
        tooltip=[
            alt.Tooltip("policy:N"),
            alt.Tooltip("source:N"),
            alt.Tooltip("condition:N", title="test"),
            *_gap_tips(),
        ],
    )
    if numbers:
        return chart
    side = alt.XOffset("policy:N", scale=alt.Scale(domain=policies))
    return chart.encode(xOffset=side)


def _gap_axis(title: str, field: str) -> alt.Y:
    """Return the vertical axis, linear near 0 and logarithmic above 1 %.

    Gaps of random actions are a hundred times those of good policies: this scale shows
    both.
    """
    return alt.Y(
        field,
        title=title,
        scale=alt.Scale(type="symlog", constant=1, nice=False, padding=8),
        axis=alt.Axis(
            values=[-1, 0, 0.5, 1, 2, 5, 10, 20, 50, 100],
            labelExpr="'' + datum.value",
        ),
    )


def _goal_line(gap: float, gap_axis: GapAxis) -> alt.Chart:
    line = alt.Chart(alt.Data(values=[{"gap": gap}]))
    marked = line.mark_rule(color="#888", strokeDash=[2, 3])
    tip = alt.Tooltip("gap:Q", title="goal, %")
    return marked.encode(y=gap_axis("gap:Q"), tooltip=tip)


def _point_layers(
    placed: alt.Chart, gap_axis: GapAxis, *, both: bool
) -> list[alt.Chart]:
    """Return intervals and points: filled for ours, hollow for the paper's."""
    shape = alt.Shape(
        "source:N",
        title=None,
        scale=alt.Scale(domain=["ours", "paper"], range=["circle", "diamond"]),
        legend=alt.Legend(symbolStrokeColor="#555") if both else None,
    )
    gap = gap_axis("gap:Q")
    bars = placed.mark_errorbar(thickness=1.2).transform_filter("datum.low !== null")
    filled = placed.mark_point(size=55, filled=True)
    ours = filled.transform_filter("datum.source === 'ours'")
    layers = [
        bars.encode(y=gap_axis("low:Q"), y2="high:Q"),
        ours.encode(y=gap, shape=shape),
    ]
    if both:
        hollow = placed.mark_point(size=70, filled=False, strokeWidth=1.6)
        theirs = hollow.transform_filter("datum.source === 'paper'")
        layers.append(theirs.encode(y=gap, shape=shape))
    return layers


def _long(labels: Sequence[Any]) -> bool:
    return sum(len(str(label)) for label in labels) > 45


def _records(experiment: Experiment, points: Sequence[Point]) -> list[Record]:
    """Return a record for every known gap, ours and the paper's."""
    records: list[Record] = []
    for point in points:
        shared = {
            "policy": point.policy,
            "x": point.x,
            "facet": f"{experiment.facet_title} {plain(point.facet)}".strip()
            if experiment.facet
            else None,
            "condition": point.condition,
        }
        if point.gap is not None:
            ours = {"gap": point.gap, "low": point.low, "high": point.high}
            records.append({**shared, "source": "ours", **ours})
        if point.paper is not None:
            theirs = {"gap": point.paper, "low": None, "high": None}
            records.append({**shared, "source": "paper", **theirs})
    return records


def _several_in_a_panel(records: list[Record]) -> list[Record]:
    """Return the records of facets that have several, or all if none has."""
    counts = Counter(record["facet"] for record in records)
    return [record for record in records if counts[record["facet"]] > 1] or records


def _panels(
    layered: alt.LayerChart | alt.FacetChart, records: list[Record], facet: str
) -> alt.TopLevelMixin:
    """Return one panel, or one for each facet."""
    data = alt.Data(values=records)
    if not facet:
        return layered.properties(data=data, **WIDE)
    order = list(dict.fromkeys(record["facet"] for record in records))
    chart: alt.TopLevelMixin = (
        layered.properties(**PANEL)
        .facet(
            facet=alt.Facet("facet:N", title=None, sort=order),
            columns=2,
            data=data,
        )
        .resolve_scale(x="independent", xOffset="independent")
    )
    return chart


def gap_lines(records: list[Record], x_title: str) -> alt.TopLevelMixin:
    """Draw gaps against a number, with a line per `line` and a panel per `panel`.

    Args:
        records: points with `x`, `gap`, `low`, `high`, `line`, `panel` and `judge`.
        x_title: title of the horizontal axis.

    """
    lines = list(dict.fromkeys(record["line"] for record in records))
    base = alt.Chart().encode(
        x=alt.X("x:Q", title=x_title, scale=alt.Scale(zero=False, padding=12)),
        color=alt.Color(
            "line:N", title=None, scale=alt.Scale(domain=lines, scheme="tableau10")
        ),
        tooltip=["line:N", "judge:N", *_gap_tips()],
    )
    gap_axis = partial(_gap_axis, Y_TITLES["gap"])
    bars = base.mark_errorbar(thickness=1.2)
    layered = alt.layer(
        bars.encode(y=gap_axis("low:Q"), y2="high:Q"),
        base.mark_line(strokeWidth=1.4).encode(y=gap_axis("gap:Q")),
        base.mark_point(size=55, filled=True).encode(y=gap_axis("gap:Q")),
    )
    order = list(dict.fromkeys(record["panel"] for record in records))
    chart: alt.TopLevelMixin = layered.properties(**PANEL).facet(
        facet=alt.Facet("panel:N", title=None, sort=order),
        columns=2,
        data=alt.Data(values=records),
    )
    return chart


def changes(records: list[Record], y_title: str) -> alt.TopLevelMixin:
    """Draw changes of each seed, with their means, by way to tune.

    Args:
        records: points with `way`, `weights`, `seed`, `y` and `panel`.
        y_title: title of the vertical axis.

    """
    base = alt.Chart().encode(
        x=alt.X("weights:N", title=None, axis=alt.Axis(labelAngle=0)),
        xOffset="way:N",
        color=alt.Color("way:N", title="tuned as"),
        tooltip=["way:N", "weights:N", "seed:N", alt.Tooltip("y:Q", format=".3f")],
    )
    zero = alt.Chart(alt.Data(values=[{"y": 0}])).mark_rule(color="#888")
    layered = alt.layer(
        base.mark_point(size=45, filled=True).encode(y=alt.Y("y:Q", title=y_title)),
        base.mark_tick(thickness=2).encode(
            y="mean(y):Q", tooltip=["way:N", "weights:N", "mean(y):Q"]
        ),
        zero.encode(y="y:Q"),
    )
    order = list(dict.fromkeys(record["panel"] for record in records))
    chart: alt.TopLevelMixin = layered.properties(**PANEL).facet(
        facet=alt.Facet("panel:N", title=None, sort=order),
        columns=2,
        data=alt.Data(values=records),
    )
    return chart


def _gap_tips() -> list[alt.Tooltip]:
    """Return a gap and its interval as tooltips."""
    return [
        alt.Tooltip("gap:Q", title="gap, %", format=".2f"),
        alt.Tooltip("low:Q", title="from", format=".2f"),
        alt.Tooltip("high:Q", title="to", format=".2f"),
    ]


def png(chart: alt.TopLevelMixin) -> bytes:
    """Return the figure as PNG bytes."""
    picture = io.BytesIO()
    chart.save(picture, format="png", scale_factor=PNG_SCALE)
    return picture.getvalue()


def browser_code() -> str:
    """Return the JavaScript that draws the figures without network access."""
    code: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return code
