"""Site pages from files outside `docs/`: whatever a page links to.

The site has the pages of `docs/`, `README.md` as its home, and every file of the
repository that one of them links to, directly or through others: Markdown becomes a
page, code a page with the code, a folder its `README.md` or a list of its files, and
figures and data are copied. Links are relative to the file in the repository, so that
they also work where the repository is browsed, and are rewritten for the site.
"""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
STARTS = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
    "experiments/README.md",
)
RENAMED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
CODE = {".py": "python", ".toml": "toml", ".txt": "text"}
FENCE = re.compile(r"^```.*?^```", re.M | re.S)
LINK = re.compile(r"(?<=\]\()([^()\s]+)(?=\))")
SCHEME = re.compile(r"[a-z]+:")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add all files outside `docs/` that pages link to."""
    waiting = [f"docs/{page.src_uri}" for page in files.documentation_pages()]
    waiting += STARTS
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if not path.startswith("docs/"):
            files.append(_site_file(path, config))
        if path.endswith(".md"):
            linked = {target for target, _ in _links(_text(path), path)}
        else:
            linked = set(_listed(path))
        waiting += [found for found in linked - seen if _outside(found)]
        seen |= linked
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Point the links of a page to the pages of the site."""
    path = _repository_path(page.file.src_uri)
    if path is None:
        return markdown
    markdown = markdown.replace("<details>", '<details markdown="1">')

    def rewritten(match: re.Match[str]) -> str:
        target, anchor = _target(match[1], path)
        if target is None:
            return match[1]
        start = posixpath.dirname(page.file.src_uri)
        return posixpath.relpath(site_path(target), start or ".") + anchor

    return _outside_fences(markdown, rewritten)


def site_path(path: str) -> str:
    """Return the path in the site's sources of a file or folder of the repository."""
    if path in RENAMED:
        return RENAMED[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"{path}/index.md"
    return f"source/{path}.md" if Path(path).suffix in CODE else path


def _repository_path(uri: str) -> str | None:
    """Return the file in the repository that a page is made from, if it is Markdown."""
    if (ROOT / "docs" / uri).is_file():
        return f"docs/{uri}"
    named = {site: path for path, site in RENAMED.items()}
    path = named.get(uri, uri)
    return path if (ROOT / path).is_file() else None


def _site_file(path: str, config: MkDocsConfig) -> File:
    """Return the site's file for a file or folder outside `docs/`."""
    uri, kind = site_path(path), Path(path).suffix
    if (ROOT / path).is_dir():
        names = [f"- [{Path(each).name}]({Path(each).name})" for each in _listed(path)]
        content = "\n".join([f"# {path}", "", *names, ""])
    elif kind == ".md":
        content = _text(path)
    elif kind in CODE:
        content = f"# {path}\n\n````{CODE[kind]}\n{_text(path)}\n````\n"
    else:
        return File.generated(config, uri, abs_src_path=str(ROOT / path))
    return File.generated(config, uri, content=content)


def _listed(path: str) -> list[str]:
    """Return the files of a folder, or nothing for a file."""
    return sorted(str(each.relative_to(ROOT)) for each in (ROOT / path).glob("*.*"))


def _outside(path: str) -> bool:
    return not path.startswith("docs/")


def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _links(markdown: str, path: str) -> list[tuple[str, str]]:
    """Return the files and anchors that a page of the repository links to."""
    found = [_target(link, path) for link in LINK.findall(FENCE.sub("", markdown))]
    return [(target, anchor) for target, anchor in found if target is not None]


def _target(link: str, path: str) -> tuple[str | None, str]:
    """Return the file that a link means, from the root, or None, and its anchor."""
    name, mark, anchor = link.partition("#")
    if not name or SCHEME.match(name):
        return None, ""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(name)))
    if (ROOT / target / "README.md").is_file():
        target = posixpath.normpath(f"{target}/README.md")
    return (target if (ROOT / target).exists() else None), mark + anchor


def _outside_fences(markdown: str, rewritten: Callable[[re.Match[str]], str]) -> str:
    """Rewrite the links of a page, except in blocks of code."""
    parts, end = [], 0
    for block in FENCE.finditer(markdown):
        parts += [LINK.sub(rewritten, markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, LINK.sub(rewritten, markdown[end:])])
