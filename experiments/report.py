"""Write the report: a self-contained page, tables in Markdown, and images.

All content comes from rows. The page contains the code that draws its figures, and
images for viewers without scripts.
"""

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from sdm.experiments.catalogue import HERE
from sdm.experiments.figures import browser_code
from sdm.experiments.sections import Section
from sdm.experiments.spec import ExperimentError
from sdm.storage.files import temporary_name, write_atomically

TITLE = "<title>sdm: experiments</title>"
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
    text = f"{before}{BEGIN}\n\n{markdown(shown)}\n{END}{after}"
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
    return environment.get_template("report.html.jinja").render(
        sections=shown,
        rows=sum(section.done for section in shown),
        # Escape closing tags, which would end the enclosing script element.
        code=browser_code().replace("</script", "<\\/script"),
        figures=json.dumps(figures).replace("</", "<\\/"),
    )


def markdown(shown: Sequence[Section]) -> str:
    """Return the tables of all experiments, with their images, in Markdown."""
    return "\n".join(map(_markdown, shown))


def _markdown(section: Section) -> str:
    table, where = section.table, section.where
    align = ["---" if i < table.names else "---:" for i in range(len(table.head))]
    lines = [table.head, align, *(line.texts for line in table.lines)]
    if section.devices:
        where += f", on {section.devices}; code: {section.commits}"
    command = f"sdm experiment run {section.command} --profile {section.profile}"
    parts = [
        f"## {section.title}",
        f"{section.origin}. `{command}`: {where}. ({section.elsewhere}.)",
        f"{section.question} {section.remark}".rstrip(),
    ]
    if section.picture:
        parts.append(f"![{section.title}]({section.name}/{section.profile}.png)")
    if section.reached:
        parts.append(section.reached)
    parts.append("\n".join(f"| {' | '.join(texts)} |" for texts in lines))
    parts += [f"Note: {note}" for note in section.notes]
    return "\n\n".join(parts) + "\n"
