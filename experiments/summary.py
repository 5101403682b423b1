"""The answer on the report's first screen: the paper's gaps beside ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from sdm.experiments.spec import Experiment
from sdm.experiments.tables import Point

TITLE = "optimality gap, % of the optimal return"
# Our policies that the summary shows, and what they are.
SHOWN = {
    "tiny": "tiny, 0.8 M parameters",
    "smollm2": "SmolLM2, 135 M parameters",
    "llama-2-7b": "Llama-2-7B",
    "dpt": "DPT",
}


@dataclass(frozen=True)
class Answer:
    """One figure of the paper: the gaps of the paper's policy and of ours.

    Attributes:
        figure: the paper's figure.
        title: title of the experiment.
        name: name of the experiment.
        policy: our policy.
        paper: smallest and largest gap of the paper, in per cent.
        ours: smallest and largest of ours.
        tests: number of tests.
        seeds: smallest number of seeds of a test.

    """

    figure: str
    title: str
    name: str
    policy: str
    paper: tuple[float, float]
    ours: tuple[float, float]
    tests: int
    seeds: int

    @property
    def texts(self) -> list[str]:
        """Return the fields of the table's line."""
        ranges = (_range(self.paper, "g"), _range(self.ours, ".2f"))
        return [
            self.figure,
            self.title,
            SHOWN[self.policy],
            *ranges,
            str(self.tests),
            str(self.seeds),
        ]


def _range(ends: tuple[float, float], digits: str) -> str:
    low, high = (f"{end:{digits}}" for end in ends)
    return low if low == high else f"{low} … {high}"


HEAD = [
    "paper",
    "what varies",
    "our policy",
    "paper's gap, %",
    "ours, %",
    "tests",
    "seeds",
]


def answers(shown: Sequence[tuple[Experiment, Sequence[Point]]]) -> list[Answer]:
    """Return a line for each figure of the paper and each policy of ours."""
    found = []
    for experiment, every in shown:
        for policy in SHOWN:
            known = [p for p in every if p.policy == policy and _both(p)]
            if known:
                paper = [p.paper or 0.0 for p in known]
                ours = [p.gap or 0.0 for p in known]
                found.append(
                    Answer(
                        experiment.paper,
                        experiment.title,
                        experiment.name,
                        policy,
                        (min(paper), max(paper)),
                        (min(ours), max(ours)),
                        len(known),
                        min(p.seeds for p in known),
                    )
                )
    return found


def _both(point: Point) -> bool:
    return point.paper is not None and point.gap is not None


def summary_figure(
    shown: Sequence[tuple[Experiment, Sequence[Point]]],
) -> alt.TopLevelMixin | None:
    """Draw the paper's gap and ours for every test that the paper has.

    Returns:
        The figure; None if no such test was run.

    """
    records: list[dict[str, Any]] = []
    for experiment, every in shown:
        for point in every:
            if point.policy in SHOWN and _both(point):
                where = f"{experiment.paper}: {point.condition}"
                for who, gap in (
                    ("paper's DPT", point.paper)
                    if point.policy == "dpt"
                    else ("paper's Llama-2-7B", point.paper),
                    (SHOWN[point.policy], point.gap),
                ):
                    records.append({"test": where, "who": who, "gap": gap})
    if not records:
        return None
    order = list(dict.fromkeys(record["test"] for record in records))
    whose = ["paper's Llama-2-7B", "paper's DPT", *SHOWN.values()]
    whose = [who for who in whose if any(r["who"] == who for r in records)]
    return (
        alt.Chart(alt.Data(values=records))
        .mark_point(filled=True, size=60)
        .encode(
            y=alt.Y("test:N", sort=order, title=None, axis=alt.Axis(labelLimit=260)),
            x=alt.X(
                "gap:Q",
                title=TITLE,
                scale=alt.Scale(type="symlog", constant=1, nice=False, padding=8),
                axis=alt.Axis(
                    values=[0, 0.5, 1, 2, 5, 10, 20, 50], labelExpr="'' + datum.value"
                ),
            ),
            color=alt.Color("who:N", title=None, sort=whose),
            shape=alt.Shape("who:N", title=None, sort=whose),
            tooltip=["test:N", "who:N", alt.Tooltip("gap:Q", format=".2f")],
        )
        .properties(width=520)
    )
