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
    "llama-2-7b": "our Llama-2-7B",
    "dpt": "our DPT",
}
HEAD = [
    "paper",
    "experiment",
    "paper's Llama-2-7B",
    "tiny",
    "SmolLM2",
    "our Llama-2-7B",
    "paper's DPT",
    "our DPT",
    "fewest seeds",
]
NAMES = 2  # leading columns that are text
NOTED = "*"  # marks gaps that a note limits, such as one on an earlier recipe


@dataclass(frozen=True)
class Answer:
    """One figure of the paper, with gaps of the paper's policies and of ours.

    Attributes:
        name: name of the experiment.
        texts: the fields of the table's line, by title.

    """

    name: str
    texts: tuple[str, ...]


def answers(shown: Sequence[tuple[Experiment, Sequence[Point]]]) -> list[Answer]:
    """Return a line for each experiment with a figure of the paper that was run.

    A field is the smallest and the largest gap over the tests that the paper has too,
    or over all tests if it has none of them, in per cent; `seeds` is the smallest
    number of seeds of a test.
    """
    found = []
    for experiment, every in shown:
        ours = [p for p in every if p.gap is not None and experiment.paper]
        ours = [p for p in ours if p.paper is not None] or ours
        known = {policy: [p for p in ours if p.policy == policy] for policy in SHOWN}
        language = [p for policy in SHOWN if policy != "dpt" for p in known[policy]]
        both = [*language, *known["dpt"]]
        if both:
            texts = (
                experiment.paper,
                experiment.title,
                _range([p.paper for p in language], "g"),
                *(_gaps(known[policy]) for policy in ("tiny", "smollm2", "llama-2-7b")),
                _range([p.paper for p in known["dpt"]], "g"),
                _gaps(known["dpt"]),
                str(min(p.seeds for p in both)),
            )
            found.append(Answer(experiment.name, texts))
    return found


def table_of(found: Sequence[Answer]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the head and the lines of a table, without empty columns."""
    full = [i for i in range(len(HEAD)) if any(one.texts[i] for one in found)]
    lines = [tuple(one.texts[i] for i in full) for one in found]
    return [HEAD[i] for i in full], lines


def _both(point: Point) -> bool:
    return point.paper is not None and point.gap is not None


def _gaps(known: Sequence[Point]) -> str:
    """Return the range of the gaps, marked if a note limits one of them."""
    mark = NOTED if any(point.noted for point in known) else ""
    return _range([point.gap for point in known], ".2f") + mark


def _range(values: Sequence[float | None], digits: str) -> str:
    """Return the smallest and the largest value, or one if they are equal."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return ""
    low, high = (f"{end:{digits}}" for end in (known[0], known[-1]))
    return low if low == high else f"{low} … {high}"


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
    colours = ["#777777", "#bbbbbb", "#e45756", "#4c78a8", "#54a24b", "#f58518"]
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
            color=alt.Color(
                "who:N",
                title=None,
                scale=alt.Scale(domain=whose, range=colours[: len(whose)]),
            ),
            shape=alt.Shape("who:N", title=None, scale=alt.Scale(domain=whose)),
            tooltip=["test:N", "who:N", alt.Tooltip("gap:Q", format=".2f")],
        )
        .properties(width=620, height=alt.Step(13))
    )
