"""Write the report: a self-contained page, tables in Markdown, and images.

All content comes from rows. The page contains the code that draws its figures, and
images for viewers without scripts.
"""

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path

import altair as alt
import jinja2
from markupsafe import Markup, escape

from sdm.experiments.catalogue import HERE
from sdm.experiments.figures import browser_code, png
from sdm.experiments.sections import Section
from sdm.experiments.spec import ExperimentError
from sdm.experiments.summary import NAMES, answers, summary_figure, table_of
from sdm.experiments.text_table import Line, Table
from sdm.storage.files import temporary_name, write_atomically

TITLE = "<title>sdm: experiments</title>"
ABOUT = (
    "Smallest and largest optimality gap over the tests of each figure for which the "
    "paper has a value, in per cent of the optimal return; the oracle's gap is 0. A "
    "line without the paper's number is a test that the paper does not have. The "
    "paper's policy is its fine-tuned Llama-2-7B or its DPT. Its task parameters are "
    "not public, so its numbers are for orientation. A star marks gaps that a note of "
    "the experiment limits, most often a training with an earlier recipe."
)
FIRST = 2  # sentences of a conclusion above its list
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def write_report(shown: Sequence[Section], out: Path) -> list[Path]:
    """Write a page, tables in Markdown and an image per section to a folder.

    An existing `README.md` is changed only between the marks `BEGIN` and `END`.

    Returns:
        Paths of the written files, the page first.

    Raises:
        ExperimentError: if an existing file of the same name is not a report.

    """
    out.mkdir(parents=True, exist_ok=True)
    page, tables = out / "report.html", out / "README.md"
    if page.exists() and TITLE not in page.read_text(encoding="utf-8")[:2000]:
        raise ExperimentError(
            f"`{page}` exists and is not a report of sdm",
            "choose another folder with `--out`",
        )
    before, after = _around(tables)
    write_atomically(page, html_page(shown))
    text = f"{before}{BEGIN}\n\n{markdown(shown, out)}\n{END}{after}"
    write_atomically(tables, text)
    written = [page, tables]
    for section in shown:
        if section.picture:
            picture = out / section.name / f"{section.profile}.png"
            picture.parent.mkdir(exist_ok=True)
            with temporary_name(picture) as temporary:
                temporary.write_bytes(base64.b64decode(section.picture))
            written.append(picture)
    return written


def _around(tables: Path) -> tuple[str, str]:
    """Return the text before and after the tables in a file."""
    if not tables.is_file():
        return "# Results\n\n", "\n"
    text = tables.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ExperimentError(
            f"`{tables}` is not a report: the marks {BEGIN} and {END} are missing",
            "choose another folder with `--out`",
        )
    return text.partition(BEGIN)[0], text.partition(END)[2]


def html_page(shown: Sequence[Section]) -> str:
    """Return a self-contained HTML page."""
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
    measured = [(section.experiment, section.points) for section in shown]
    overview, found = summary_figure(measured), answers(measured)
    if overview is not None:
        figures = {"figure-summary": overview.to_dict(), **figures}
    return environment.get_template("report.html.jinja").render(
        sections=shown,
        head=table_of(found)[0],
        answers=list(zip(found, table_of(found)[1], strict=True)),
        names=NAMES,
        first=FIRST,
        profile=shown[0].profile if shown else "",
        overview="" if overview is None else _base64(overview),
        rows=sum(section.done for section in shown),
        # Escape closing tags, which would end the enclosing script element.
        code=browser_code().replace("</script", "<\\/script"),
        figures=json.dumps(figures).replace("</", "<\\/"),
    )


def _base64(figure: alt.TopLevelMixin) -> str:
    return base64.b64encode(png(figure)).decode()


def markdown(shown: Sequence[Section], out: Path | None = None) -> str:
    """Return the answer, and all experiments with their images, in Markdown.

    Args:
        shown: the sections.
        out: folder of the page, to link the files with rows that are in it.

    """
    measured = [(section.experiment, section.points) for section in shown]
    head, lines = table_of(answers(measured))
    parts = [_markdown(section, out) for section in shown]
    if lines:
        table = _table(Table(head, NAMES, [Line([*texts], True) for texts in lines]))
        parts.insert(0, f"## The paper beside ours\n\n{ABOUT}\n\n{table}\n")
    return "\n".join(parts)


def _table(table: Table) -> str:
    """Return a table in Markdown."""
    align = ["---" if i < table.names else "---:" for i in range(len(table.head))]
    lines = [table.head, align, *(line.texts for line in table.lines)]
    return "\n".join(f"| {' | '.join(texts)} |" for texts in lines)


def _folded(title: str, table: Table) -> str:
    """Return a table that a click unfolds."""
    count = len(table.lines)
    head = f"<details><summary>{title} ({count} lines)</summary>"
    return f"{head}\n\n{_table(table)}\n\n</details>"


def _files(section: Section, out: Path) -> str:
    """Return links to the files with rows, those of shared cells last."""
    files = {name: f"{name}/{section.profile}.jsonl" for name in section.sources}
    known = {name: file for name, file in files.items() if (out / file).is_file()}
    if not known:
        return ""
    own = known.pop(section.name, "")
    parts = [f"[rows]({own})"] if own else []
    if known:
        others = ", ".join(f"[{name}]({file})" for name, file in known.items())
        parts.append(f"rows of cells shared with {others}")
    return f"; {'; '.join(parts)}"


def _markdown(section: Section, out: Path | None) -> str:
    where = section.where
    if section.devices:
        where += f", on {section.devices}; code: {section.commits}"
    if out is not None:
        where += _files(section, out)
    command = f"sdm experiment run {section.command} --profile {section.profile}"
    parts = [
        f"## {section.title}",
        f"{section.origin}. `{command}`: {where}. ({section.elsewhere}.)",
        f"{section.question} {section.remark}".rstrip(),
    ]
    if section.picture:
        parts.append(f"![{section.title}]({section.name}/{section.profile}.png)")
    if section.conclusion:
        parts.append(" ".join(section.conclusion[:FIRST]))
    if section.reached:
        parts.append(section.reached)
    if more := section.conclusion[FIRST:]:
        parts.append("\n".join(f"- {text}" for text in more))
    if section.compared is not None:
        parts.append(_folded("Comparisons behind the conclusion", section.compared))
    parts.append(_folded("All results", section.table))
    parts += [f"Note: {note}" for note in section.notes]
    return "\n\n".join(parts) + "\n"
