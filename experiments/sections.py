"""Sections of the report: figure, table and provenance of an experiment."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdm.experiments.catalogue import profiles
from sdm.experiments.figures import gap_figure, png, theory_figure
from sdm.experiments.rows import Row, found_rows
from sdm.experiments.spec import PROFILES, Experiment, plain
from sdm.experiments.tables import Point, points, reached, remarks

NOT_RUN = "not run"
# Titles of the measures.
TITLES = {
    "gap": "in nominal model",
    "worst_model": "in worst model",
    "alpha_meu": "by α-MEU",
    "random_model": "in random model",
}


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Attributes:
        texts: its fields.
        done: whether its cells have been run.

    """

    texts: list[str]
    done: bool


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        head: titles of the columns.
        names: number of leading text columns.
        lines: its lines.

    """

    head: list[str]
    names: int
    lines: list[Line]


@dataclass(frozen=True)
class Section:
    """One experiment in one profile, as the report shows it.

    Attributes:
        name: name of the experiment.
        command: argument of `sdm experiment run`.
        title: title of the experiment.
        origin: the paper's figure, or a note that it is beyond the paper.
        profile: name of the profile.
        about: description of the profile.
        question: question that the experiment answers.
        remark: note on the figure.
        reached: value on the axis at which each policy reaches the goal; "" without a
            goal.
        table: table of the points.
        notes: remarks of rows.
        done: number of cells with a row.
        published: number of these rows that are published with the code.
        wanted: number of cells.
        devices: devices on which the cells ran.
        commits: commits of the code that ran them.
        elsewhere: number of cells run in the other profiles, as text.
        figure: figure in Vega-Lite; None without rows.
        picture: the figure as PNG in base64; "" without rows.

    """

    name: str
    command: str
    title: str
    origin: str
    profile: str
    about: str
    question: str
    remark: str
    reached: str
    table: Table
    notes: list[str]
    done: int
    published: int
    wanted: int
    devices: str
    commits: str
    elsewhere: str
    figure: dict[str, Any] | None = field(default=None, repr=False)
    picture: str = field(default="", repr=False)

    @property
    def where(self) -> str:
        """Number of cells run, and of rows published with the code, as text."""
        text = f"{self.done} of {self.wanted} cells run"
        if self.published:
            text += f", {self.published} of them published with the code"
        return text


def sections(
    chosen: Sequence[Experiment], results: Path, profile: str | None = None
) -> list[Section]:
    """Return a section for every experiment and profile with rows.

    An experiment without rows has an empty section for the profile `laptop`.

    Args:
        chosen: experiments, in the order of the report.
        results: folder of the user's own rows.
        profile: the only profile to show; None for all with rows.

    """
    shown = []
    for experiment in chosen:
        wanted = [profile] if profile else list(PROFILES)
        done = [name for name in wanted if _any_row(experiment, name, results)]
        # Results of `smoke` are not meaningful: show larger profiles if they have rows.
        larger = [name for name in done if name != "smoke"]
        names = larger or done or [profile or "laptop"]
        shown += [section_of(experiment, name, results) for name in names]
    return shown


def _any_row(experiment: Experiment, profile: str, results: Path) -> bool:
    found = found_rows(experiment, profile, results)
    return any(row is not None for _, row in found)


def section_of(experiment: Experiment, profile: str, results: Path) -> Section:
    """Return the section of an experiment in a profile."""
    found = found_rows(experiment, profile, results)
    rows = [row for _, row in found if row is not None]
    chart, goal = None, ""
    if any(cell.learner == "theory" for cell, _ in found):
        table = _theory_table(rows)
        chart = theory_figure(rows) if rows else None
    else:
        shown = points(experiment, found)
        table, goal = _gap_table(experiment, shown), reached(experiment, shown)
        chart = gap_figure(experiment, shown) if rows else None
    paper = experiment.paper
    return Section(
        name=experiment.name,
        command=experiment.command,
        title=experiment.title,
        origin=f"The paper's {paper}" if paper else "Beyond the paper",
        profile=profile,
        about=profiles()[profile]["about"],
        question=experiment.question,
        remark=experiment.remark,
        reached=goal,
        table=table,
        notes=remarks(found),
        done=len(rows),
        published=sum(row.get("published", False) for row in rows),
        wanted=len(found),
        devices="; ".join(dict.fromkeys(part["device"] for part in _parts(rows))),
        commits=", ".join(dict.fromkeys(_code(part) for part in _parts(rows))),
        elsewhere=_elsewhere(experiment, profile, results),
        figure=None if chart is None else chart.to_dict(),
        picture="" if chart is None else base64.b64encode(png(chart)).decode(),
    )


def _parts(rows: Sequence[Row]) -> list[Row]:
    """Return all records with a provenance: the rows' trainings, and the rows."""
    return [*(row["training"] for row in rows if row["training"]), *rows]


def _code(part: Row) -> str:
    """Return the commit of the code, or its version if the commit is unknown."""
    return str(part["commit"] or f"sdm {part['sdm']}")


def _elsewhere(experiment: Experiment, profile: str, results: Path) -> str:
    """Return the number of cells run in each other profile but `smoke`, as text."""
    parts = []
    for other in PROFILES[1:]:
        if other != profile:
            found = found_rows(experiment, other, results)
            done = sum(row is not None for _, row in found)
            parts.append(f"{other}: {done or 'none'} of {len(found)} cells run")
    return "; ".join(parts)


def _gap_table(experiment: Experiment, shown: Sequence[Point]) -> Table:
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
        "ours": NOT_RUN if point.gap is None else f"{point.gap:.2f}",
        "95 % interval": interval or "",
        "seeds, from … to": _spread(point.by_seed),
        "difference": _number(difference, "+.2f"),
        "exact gap": _number(point.exact, ".2f"),
        "trained on": "" if point.tasks is None else f"{point.tasks:,} tasks",
        **{TITLES.get(name, name): more[name] for name in experiment.columns},
        "tested on": point.tested,
        "seeds": f"{point.seeds} of {point.wanted}",
        "seconds": _number(point.seconds, ".0f"),
        "from": "published" if point.published else "",
    }


def _spread(gaps: Sequence[float]) -> str:
    """Return the smallest and the largest gap of several seeds."""
    return f"{min(gaps):.2f} … {max(gaps):.2f}" if len(gaps) > 1 else ""


def _theory_table(rows: Sequence[Row]) -> Table:
    """Return a table with a line per κ."""
    head = ["κ", "cells of M and N", "paper", "ours", "bound / gap, least", "most"]
    theirs = "every gap below the bound"
    everything = [one for row in rows for one in row["cells"]]
    if not everything:
        return Table(head, 1, [Line(["any", "", theirs, NOT_RUN, "", ""], False)])
    lines = []
    for kappa in sorted({one["kappa"] for one in everything}):
        checked = [one for one in everything if one["kappa"] == kappa]
        holds = sum(one["holds"] for one in checked)
        ratios = [one["bound"] / one["gap"] for one in checked if one["gap"] > 0]
        texts = [
            f"{kappa:g}",
            str(len(checked)),
            theirs,
            f"{holds} of {len(checked)} below it",
            f"{min(ratios):.3g}" if ratios else "",
            f"{max(ratios):.3g}" if ratios else "",
        ]
        lines.append(Line(texts, True))
    return Table(head, 1, lines)


def _number(value: float | None, digits: str) -> str:
    return "" if value is None else f"{value:{digits}}"
