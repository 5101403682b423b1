"""Read field descriptions from docstrings, for option help.

This module imports nothing heavy.
"""

import inspect
import re


def field_texts(config: type) -> dict[str, str]:
    """Return the description of each field in the section `Attributes` of a class."""
    return parse_attributes(inspect.getdoc(config) or "")


def parse_attributes(doc: str) -> dict[str, str]:
    """Parse the section `Attributes` of a docstring; return a description per field."""
    section = re.search(r"^Attributes:\n((?:[ \t]+.*\n?|\n)*)", doc, re.MULTILINE)
    found: dict[str, str] = {}
    name, indent = "", 0
    for line in (section[1] if section else "").splitlines():
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        indent = indent or depth
        start = re.match(r"\s*(\w+):\s*(.*)", line)
        if start and depth == indent:
            name = start[1]
            found[name] = start[2]
        else:
            found[name] = f"{found[name]} {line.strip()}"
    return found
