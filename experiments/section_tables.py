"""Tables of a section of the report, as text."""

from collections.abc import Sequence

from sdm.evaluation.measure import measure_titles
from sdm.experiments.conclusions import Compared
from sdm.experiments.spec import Experiment, plain
from sdm.experiments.tables import Point
from sdm.experiments.text_table import NOT_KNOWN, NOT_RUN, Line, Table

# Titles of the measures.
TITLES = {
    "gap": "in nominal model",
    "worst_model": "in worst model",
    "alpha_meu": "by α-MEU",
    "random_model": "in random model",
}


def gap_table(experiment: Experiment, shown: Sequence[Point]) -> Table:
    """Return a table with a line per point, without empty columns."""
    facet = experiment.facet_title.strip(" :") or experiment.facet.rpartition(".")[2]
    lines = [_line(experiment, facet, point) for point in shown]
    full = [name for name in lines[0] if any(line[name] for line in lines)]
    kept = [
        Line([line[name] for name in full], point.gap is not None)
        for line, point in zip(lines, shown, strict=True)
    ]
    return Table(full, 3 if facet else 2, kept)


def _line(experiment: Experiment, facet: str, point: Point) -> dict[str, str]:
    """Return the fields of a point by column title."""
    difference = interval = None
    if point.gap is not None and point.paper is not None:
        difference = point.gap - point.paper
    if point.low is not None and point.high is not None:
        interval = f"{point.low:.2f} … {point.high:.2f}"
    more = {
        "training seconds": _number(point.training_seconds, ".0f"),
        "training tokens": _number(point.training_tokens, ",.0f"),
        **{x: _number(point.measures.get(x), ".2f") for x in TITLES},
    }
    return {
        **({facet: plain(point.facet)} if facet else {}),
        experiment.x_title or "test": "any" if point.x is None else plain(point.x),
        "policy": point.policy,
        "paper": _number(point.paper, "g"),
        "ours": _ours(point),
        "95 % interval": interval or "",
        "seeds, from … to": _spread(point.by_seed),
        "difference": _number(difference, "+.2f"),
        "exact gap": _number(point.exact, ".2f"),
        "trained on": "" if point.tasks is None else f"{point.tasks:,} tasks",
        **{TITLES.get(name, name): more[name] for name in experiment.columns},
        **{
            title: _number(point.measures.get(name), "#.3g")
            for name, title in measure_titles().items()
        },
        "tested on": point.tested,
        "seeds": f"{point.seeds} of {point.wanted}",
        "seconds": _number(point.seconds, ".0f"),
        "from": "published" if point.published else "",
    }


def _ours(point: Point) -> str:
    if point.gap is None:
        return NOT_KNOWN if point.seeds else NOT_RUN
    return f"{point.gap:.2f}"


def _spread(gaps: Sequence[float]) -> str:
    """Return the smallest and the largest gap of several seeds."""
    return f"{min(gaps):.2f} … {max(gaps):.2f}" if len(gaps) > 1 else ""


def compared_table(pairs: Sequence[Compared]) -> Table | None:
    """Return a table with a line per comparison; None without comparisons."""
    head = ["test", "policies", "difference", "95 % interval", "p", "p corrected"]
    head += ["seeds", "tasks", "estimate"]
    lines = []
    for pair in pairs:
        for row in pair.rows:
            low, high = row["ci_low"], row["ci_high"]
            ends = "" if low is None else f"{low:+.2f} … {high:+.2f}"
            texts = [
                row["test"],
                f"{pair.first} against {pair.second}",
                _number(row["difference"], "+.2f"),
                ends,
                _number(row["p"], ".2g"),
                _number(row["p_corrected"], ".2g"),
                str(len(row["seeds"])),
                str(row["tasks"] or ""),
                row["estimator"] or f"{NOT_KNOWN}: {row['note']}",
            ]
            lines.append(Line(texts, row["difference"] is not None))
    return Table(head, 2, lines) if lines else None


def _number(value: float | None, digits: str) -> str:
    return "" if value is None else f"{value:{digits}}"
