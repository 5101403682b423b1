"""Figures of experiments, in Vega-Lite: one description, drawn by a browser or to PNG.

The paper's values are hollow and dashed, in the colour of what they are beside.
"""

import io
from collections.abc import Sequence
from typing import Any, Literal

import altair as alt
import vl_convert

from sdm.experiments.catalogue import Experiment
from sdm.experiments.rows import Row
from sdm.experiments.tables import Point, plain

PANEL = {"width": 300, "height": 260}
WIDE = {"width": 560, "height": 340}
PNG_SCALE = 1.5
Y_TITLE = "optimality gap, %"
Record = dict[str, Any]


def gap_figure(experiment: Experiment, points: Sequence[Point]) -> alt.TopLevelMixin:
    """Gaps along the axis, a line a policy, a panel a facet."""
    records = _records(experiment, points)
    kind: Literal["quantitative", "ordinal"]
    kind = "quantitative" if experiment.x_scale == "log" else "ordinal"
    scale = (
        alt.Scale(type="log", nice=False, padding=12)
        if experiment.x_scale == "log"
        else alt.Undefined
    )
    order = list(dict.fromkeys(r["x"] for r in records if r["x"] is not None))
    policies = list(dict.fromkeys(point.policy for point in points))
    base = alt.Chart().encode(
        x=alt.X(
            "x",
            type=kind,
            title=experiment.x_title or None,
            scale=scale,
            sort=order if kind == "ordinal" else alt.Undefined,
            axis=alt.Axis(labelAngle=-30 if _long(order) else 0),
        ),
        color=alt.Color(
            "policy:N",
            title=None,
            scale=alt.Scale(
                domain=policies,
                scheme="tableau10" if len(policies) <= 10 else "tableau20",
            ),
            legend=alt.Legend(symbolLimit=20),
        ),
        tooltip=[
            alt.Tooltip("policy:N"),
            alt.Tooltip("source:N"),
            alt.Tooltip("condition:N", title="test"),
            alt.Tooltip("gap:Q", title="gap, %", format=".2f"),
            alt.Tooltip("low:Q", title="from", format=".2f"),
            alt.Tooltip("high:Q", title="to", format=".2f"),
        ],
    )
    # Random actions lose a hundred times what good policies do: both are to be seen.
    scale_y = alt.Scale(type="symlog", constant=1, nice=False, padding=8)
    axis_y = alt.Axis(
        values=[-1, 0, 0.5, 1, 2, 5, 10, 20, 50, 100], labelExpr="'' + datum.value"
    )
    y = alt.Y("gap:Q", title=Y_TITLE, scale=scale_y, axis=axis_y)
    if kind == "ordinal":
        base = base.encode(
            xOffset=alt.XOffset("policy:N", scale=alt.Scale(domain=policies))
        )
    dash = alt.StrokeDash(
        "source:N",
        title=None,
        scale=alt.Scale(domain=["ours", "paper"], range=[[1, 0], [4, 3]]),
    )
    both = any(record["source"] == "paper" for record in records)
    shape = alt.Shape(
        "source:N",
        title=None,
        scale=alt.Scale(domain=["ours", "paper"], range=["circle", "diamond"]),
        legend=alt.Legend(symbolStrokeColor="#555") if both else None,
    )
    placed = base.transform_filter("datum.x !== null")
    layers: list[alt.Chart] = []
    if any(record["x"] is None for record in records):
        # A policy that does not depend on the axis has the same gap all along it.
        rule = alt.Chart().transform_filter("datum.x === null").mark_rule()
        shown = {"color": base.encoding.color, "tooltip": base.encoding.tooltip}
        layers.append(rule.encode(y=y, **shown))
    if experiment.goal is not None:
        goal = alt.Chart(alt.Data(values=[{"gap": experiment.goal}]))
        line = goal.mark_rule(color="#888", strokeDash=[2, 3])
        tip = alt.Tooltip("gap:Q", title="goal, %")
        layers.append(line.encode(y=y, tooltip=tip))
    layers += [
        placed.mark_errorbar(thickness=1.2)
        .transform_filter("datum.low !== null")
        .encode(
            y=alt.Y("low:Q", title=Y_TITLE, scale=scale_y, axis=axis_y), y2="high:Q"
        ),
        placed.mark_point(size=55, filled=True)
        .transform_filter("datum.source === 'ours'")
        .encode(y=y, shape=shape),
    ]
    if both:
        hollow = placed.mark_point(size=70, filled=False, strokeWidth=1.6)
        theirs = hollow.transform_filter("datum.source === 'paper'")
        layers.append(theirs.encode(y=y, shape=shape))
    if kind == "quantitative":
        layers.append(placed.mark_line(strokeWidth=1.4).encode(y=y, strokeDash=dash))
    return _panels(alt.layer(*layers), records, experiment.facet)


def _long(labels: Sequence[Any]) -> bool:
    return sum(len(str(label)) for label in labels) > 45


def _records(experiment: Experiment, points: Sequence[Point]) -> list[Record]:
    """A record for every gap that is known, ours and the paper's."""
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


def _panels(
    layered: alt.LayerChart | alt.FacetChart, records: list[Record], facet: str
) -> alt.TopLevelMixin:
    """One panel, or one for each facet."""
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


def theory_figure(rows: Sequence[Row]) -> alt.TopLevelMixin:
    """Gap and bound against M, a line a training length N, a panel a κ."""
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
    trains = sorted({record["N"] for record in records}, key=int)
    lines = (
        alt.Chart()
        .mark_line(point=True)
        .encode(
            x=alt.X(
                "M:Q",
                scale=alt.Scale(type="log", nice=False),
                title="M, examples shown",
            ),
            y=alt.Y("value:Q", scale=alt.Scale(type="log"), title="return lost"),
            color=alt.Color("N:N", sort=trains, title="N, trained with"),
            strokeDash=alt.StrokeDash(
                "what:N",
                sort=["gap", "bound"],
                title=None,
                legend=alt.Legend(symbolType="stroke"),
            ),
            tooltip=[
                "κ:N",
                "M:Q",
                "N:N",
                "what:N",
                alt.Tooltip("value:Q", format=".3g"),
            ],
        )
    )
    order = list(dict.fromkeys(record["κ"] for record in records))
    chart: alt.TopLevelMixin = lines.properties(**PANEL).facet(
        facet=alt.Facet("κ:N", title=None, sort=order),
        columns=3,
        data=alt.Data(values=records),
    )
    return chart


def png(chart: alt.TopLevelMixin) -> bytes:
    """The figure as a picture."""
    picture = io.BytesIO()
    chart.save(picture, format="png", scale_factor=PNG_SCALE)
    return picture.getvalue()


def browser_code() -> str:
    """JavaScript that draws such figures, whole: nothing is fetched."""
    code: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return code
