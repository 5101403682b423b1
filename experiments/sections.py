"""Sections of the report: figure, table and provenance of an experiment."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdm.experiments.catalogue import profiles
from sdm.experiments.conclusions import Compared, compared, sentences
from sdm.experiments.figures import gap_figure, png
from sdm.experiments.grid_claims import claimed
from sdm.experiments.rows import Row, found_rows
from sdm.experiments.section_tables import compared_table, gap_table
from sdm.experiments.spec import PROFILES, Experiment
from sdm.experiments.study import studies
from sdm.experiments.tables import Point, points, reached, remarks
from sdm.experiments.text_table import Table


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
        conclusion: sentences that state what the rows show.
        compared: table of the comparisons behind them; None without.
        reached: value on the axis at which each policy reaches the goal; "" without a
            goal.
        table: table of the points.
        notes: remarks of rows.
        done: number of cells with a row.
        published: number of these rows that are published with the code.
        wanted: number of cells.
        devices: devices on which the cells ran.
        commits: commits of the code that ran them.
        sources: names of the experiments in whose files the rows are, its own first.
        elsewhere: number of cells run in the other profiles, as text.
        experiment: the experiment.
        points: points of the figure.
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
    conclusion: list[str]
    compared: Table | None
    reached: str
    table: Table
    notes: list[str]
    done: int
    published: int
    wanted: int
    devices: str
    commits: str
    sources: tuple[str, ...]
    elsewhere: str
    experiment: Experiment = field(repr=False)
    points: list[Point] = field(repr=False)
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
        origins = {name: _origins(experiment, name, results) for name in wanted}
        done = [name for name in wanted if origins[name]]
        # Results of `smoke` are not meaningful: show larger profiles if they have rows,
        # but not published ones in place of what the user has run.
        larger = [name for name in done if name != "smoke"]
        own = [name for name in done if True in origins[name]]
        names = done if own == ["smoke"] else larger or done or [profile or "laptop"]
        shown += [section_of(experiment, name, results) for name in names]
    return shown


def _origins(experiment: Experiment, profile: str, results: Path) -> set[bool]:
    """Return whether rows are the user's own: both values if there are both."""
    found = found_rows(experiment, profile, results)
    return {"published" not in row for _, row in found if row is not None}


def section_of(experiment: Experiment, profile: str, results: Path) -> Section:
    """Return the section of an experiment in a profile."""
    found = found_rows(experiment, profile, results)
    rows = [row for _, row in found if row is not None]
    chart, goal = None, ""
    shown: list[Point] = []
    pairs: list[Compared] = []
    if experiment.study:
        study = studies()[experiment.study]
        table, conclusion = study.table(rows), study.conclusion(rows)
        chart = study.figure(rows) if rows else None
    else:
        shown = points(experiment, found)
        table, goal = gap_table(experiment, shown), reached(experiment, shown)
        chart = gap_figure(experiment, shown) if rows else None
        pairs = compared(experiment, profile, results)
        conclusion = sentences(experiment, shown, pairs)
        conclusion += claimed(experiment, profile, results) if rows else []
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
        conclusion=conclusion,
        compared=compared_table(pairs),
        reached=goal,
        table=table,
        notes=remarks(experiment, found),
        done=len(rows),
        published=sum(row.get("published", False) for row in rows),
        wanted=len(found),
        devices="; ".join(dict.fromkeys(part["device"] for part in _parts(rows))),
        commits=", ".join(dict.fromkeys(_code(part) for part in _parts(rows))),
        sources=tuple(
            dict.fromkeys([experiment.name, *(row["experiment"] for row in rows)])
        ),
        elsewhere=_elsewhere(experiment, profile, results),
        experiment=experiment,
        points=shown,
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
