"""The report: one page that needs no network, a table in Markdown, and pictures.

Everything comes from rows. The page draws its figures itself, from code that is in it,
and shows the pictures, also in it, where scripts do not run.
"""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from sdm.experiments.catalogue import (
    HERE,
    PROFILES,
    CatalogueError,
    Cell,
    Experiment,
    profiles,
)
from sdm.experiments.figures import browser_code, gap_figure, png, theory_figure
from sdm.experiments.rows import Row, found_rows
from sdm.experiments.tables import Point, plain, points, reached
from sdm.storage.files import temporary_name, write_atomically

NOT_RUN = "not run"
TITLE = "<title>sdm: experiments</title>"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Attributes:
        texts: its fields.
        done: whether it was run.

    """

    texts: list[str]
    done: bool


@dataclass(frozen=True)
class Section:
    """An experiment in one profile, as it is shown.

    Attributes:
        name: of the experiment.
        title: what it is about.
        origin: the paper's figure, or that it is ours.
        profile: of what size.
        about: the profile in words.
        question: that it answers.
        remark: to be read with the figure.
        reached: what it takes to meet the goal; "" where none is set.
        head: titles of the table.
        names: how many of its first columns are words.
        lines: of the table.
        done: cells that were run.
        published: those of them that were published with the code.
        wanted: cells that there are.
        devices: that they were run on.
        commits: of the code that ran.
        elsewhere: how much of the other profiles was run.
        figure: in Vega-Lite; None where nothing was run.
        picture: the same as PNG, in base64; "" where nothing was run.

    """

    name: str
    title: str
    origin: str
    profile: str
    about: str
    question: str
    remark: str
    reached: str
    head: list[str]
    names: int
    lines: list[Line]
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
        """How much of it was run, and by whom."""
        told = f"{self.done} of {self.wanted} cells run"
        if self.published:
            told += f", {self.published} of them published with the code"
        return told


def section_of(experiment: Experiment, profile: str, results: Path) -> Section:
    """What there is to show of an experiment in a profile."""
    found = found_rows(experiment, profile, results)
    rows = [row for _, row in found if row is not None]
    is_theory = any(cell.kind == "theory" for cell, _ in found)
    chart, told = None, ""
    if is_theory:
        head, names, lines = _theory_table(found)
        chart = theory_figure(rows) if rows else None
    else:
        shown = points(experiment, found)
        head, names, lines = _gap_table(experiment, shown)
        told = reached(experiment, shown)
        chart = gap_figure(experiment, shown) if rows else None
    return Section(
        name=experiment.name,
        title=experiment.title,
        origin=f"The paper's {experiment.paper}"
        if experiment.paper
        else "Beyond the paper",
        profile=profile,
        about=profiles()[profile]["about"],
        question=experiment.question,
        remark=experiment.remark,
        reached=told,
        head=head,
        names=names,
        lines=lines,
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
    """What says where rows come from: their trainings, and they themselves."""
    return [*(row["training"] for row in rows if row["training"]), *rows]


def _code(part: Row) -> str:
    """The commit of what computed, or the version where there is no commit."""
    return str(part["commit"] or f"sdm {part['sdm']}")


def _elsewhere(experiment: Experiment, profile: str, results: Path) -> str:
    """How much of the larger profiles was run."""
    parts = []
    for other in PROFILES[1:]:
        if other != profile:
            found = found_rows(experiment, other, results)
            done = sum(row is not None for _, row in found)
            parts.append(f"{other}: {done or 'none'} of {len(found)} cells run")
    return "; ".join(parts)


def _gap_table(
    experiment: Experiment, shown: Sequence[Point]
) -> tuple[list[str], int, list[Line]]:
    """A line for every point."""
    axis = experiment.x_title or "test"
    facet = (
        [experiment.facet_title.strip(" :") or "setting"] if experiment.facet else []
    )
    head = [*facet, axis, "policy", "paper", "ours", "95 % interval", "difference"]
    columns = (*experiment.columns, "tested on")
    head += ["exact gap", "trained on", *columns, "seeds", "seconds", "from"]
    lines = []
    for point in shown:
        difference = (
            None
            if point.gap is None or point.paper is None
            else point.gap - point.paper
        )
        interval = (
            ""
            if point.low is None or point.high is None
            else f"{point.low:.2f} … {point.high:.2f}"
        )
        extra = {
            "tested on": point.tested,
            "training seconds": _number(point.training_seconds, ".0f"),
            "training tokens": _number(point.training_tokens, ",.0f"),
        }
        texts = [
            *([plain(point.facet)] if experiment.facet else []),
            "any" if point.x is None else plain(point.x),
            point.policy,
            _number(point.paper, "g"),
            NOT_RUN if point.gap is None else f"{point.gap:.2f}",
            interval,
            _number(difference, "+.2f"),
            _number(point.exact, ".2f"),
            "" if point.tasks is None else f"{point.tasks:,} tasks",
            *(extra[name] for name in columns),
            f"{point.seeds} of {point.wanted}",
            _number(point.seconds, ".0f"),
            "published" if point.published else "",
        ]
        lines.append(Line(texts, point.gap is not None))
    full = [i for i in range(len(head)) if any(line.texts[i] for line in lines)]
    kept = [Line([line.texts[i] for i in full], line.done) for line in lines]
    return [head[i] for i in full], len(facet) + 2, kept


def _theory_table(
    found: Sequence[tuple[Cell, Row | None]],
) -> tuple[list[str], int, list[Line]]:
    """A line for every κ."""
    head = ["κ", "cells of M and N", "paper", "ours", "bound / gap, least", "most"]
    theirs = "every gap below the bound"
    everything = [one for _, row in found if row is not None for one in row["cells"]]
    if not everything:
        return head, 1, [Line(["any", "", theirs, NOT_RUN, "", ""], False)]
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
    return head, 1, lines


def _number(value: float | None, digits: str) -> str:
    return "" if value is None else f"{value:{digits}}"


def sections(
    chosen: Sequence[Experiment], results: Path, profile: str | None = None
) -> list[Section]:
    """What is shown: every profile with a row, or `laptop` where none has.

    Args:
        chosen: experiments, in the order to be shown.
        results: the folder of the user's own rows.
        profile: the only one to be shown; None for those with rows.

    """
    shown = []
    for experiment in chosen:
        wanted = [profile] if profile else list(PROFILES)
        done = [name for name in wanted if _any_row(experiment, name, results)]
        # Smoke says that it runs, and nothing else: larger ones take its place.
        larger = [name for name in done if name != "smoke"]
        chosen_ones = larger or done or [profile or "laptop"]
        shown += [section_of(experiment, name, results) for name in chosen_ones]
    return shown


def _any_row(experiment: Experiment, profile: str, results: Path) -> bool:
    """Whether anything of an experiment was run in a profile."""
    found = found_rows(experiment, profile, results)
    return any(row is not None for _, row in found)


def html_page(shown: Sequence[Section]) -> str:
    """One page with everything in it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True
    )
    environment.filters["code"] = lambda text: Markup(
        re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    )
    figures = {
        f"figure-{section.name}-{section.profile}": section.figure
        for section in shown
        if section.figure is not None
    }
    return environment.get_template("report.html.jinja").render(
        sections=shown,
        rows=sum(section.done for section in shown),
        # Neither may end the script that it stands in.
        code=browser_code().replace("</script", "<\\/script"),
        figures=json.dumps(figures).replace("</", "<\\/"),
    )


def markdown(shown: Sequence[Section]) -> str:
    """The tables of all experiments, with their pictures beside them."""
    parts = []
    for section in shown:
        align = [
            "---" if i < section.names else "---:" for i in range(len(section.head))
        ]
        table = [section.head, align, *(line.texts for line in section.lines)]
        where = section.where
        if section.devices:
            where += f", on {section.devices}; code: {section.commits}"
        picture = f"![{section.title}]({section.name}/{section.profile}.png)\n\n"
        parts.append(
            f"## {section.title}\n\n"
            f"{section.origin}. `sdm experiment run {section.name} --profile "
            f"{section.profile}`: {where}. ({section.elsewhere}.)\n\n"
            f"{section.question} {section.remark}".rstrip()
            + "\n\n"
            + (picture if section.picture else "")
            + (f"{section.reached}\n\n" if section.reached else "")
            + "\n".join(f"| {' | '.join(texts)} |" for texts in table)
            + "\n"
        )
    return "\n".join(parts)


def write_report(shown: Sequence[Section], out: Path) -> list[Path]:
    """Write a page, tables in Markdown and a picture a section into a folder.

    In a `README.md` that is there already, what stands between the two marks is
    replaced, and nothing else.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = [out / "report.html", out / "README.md"]
    page = written[0]
    if page.exists() and TITLE not in page.read_text(encoding="utf-8")[:2000]:
        raise CatalogueError(
            f"`{page}` is no report of sdm: it is not replaced",
            "choose another folder with `--out`",
        )
    around = ["# Results\n\n", "\n"]
    if written[1].is_file():
        text = written[1].read_text(encoding="utf-8")
        if text.count(BEGIN) != 1 or text.count(END) != 1:
            raise CatalogueError(
                f"`{written[1]}` is no report: it lacks the marks {BEGIN} and {END}",
                "choose another folder with `--out`",
            )
        around = [text.partition(BEGIN)[0], text.partition(END)[2]]
    tables = f"{BEGIN}\n\n{markdown(shown)}\n{END}"
    write_atomically(page, html_page(shown))
    write_atomically(written[1], around[0] + tables + around[1])
    for section in shown:
        if section.picture:
            picture = out / section.name / f"{section.profile}.png"
            picture.parent.mkdir(exist_ok=True)
            with temporary_name(picture) as temporary:
                temporary.write_bytes(base64.b64decode(section.picture))
            written.append(picture)
    return written
