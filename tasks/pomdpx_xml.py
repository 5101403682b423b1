"""Elements of an XML file, with line numbers, by the parser of the standard library.

Document type definitions are refused, so that no entity can be declared and expanded.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from sdm.tasks.cassandra_words import PomdpFileError, read_lines

DEEPEST = 100  # nested elements; the format has seven


@dataclass
class Element:
    """An XML element.

    Attributes:
        path: the file.
        line: line of its start tag.
        tag: name.
        attributes: values by name.
        text: the text in it, without that of its children.
        children: the elements in it.

    """

    path: Path
    line: int
    tag: str
    attributes: dict[str, str]
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def error(self, message: str) -> PomdpFileError:
        """Return an error at this element's line."""
        return PomdpFileError(
            f"`{self.path}`, line {self.line}: `<{self.tag}>`: {message}"
        )

    def all(self, *tags: str) -> list["Element"]:
        """Return the children, which must have one of these tags."""
        for child in self.children:
            if child.tag not in tags:
                raise child.error(
                    f"not supported in `<{self.tag}>`, expected "
                    f"{', '.join(f'`<{tag}>`' for tag in tags)}"
                )
        return self.children

    def optional(self, tag: str) -> "Element | None":
        """Return the only child with a tag; None if there is none."""
        found = [child for child in self.children if child.tag == tag]
        if len(found) > 1:
            raise found[1].error(f"given twice, first in line {found[0].line}")
        return found[0] if found else None

    def one(self, tag: str) -> "Element":
        """Return the only child with a tag."""
        found = self.optional(tag)
        if found is None:
            raise self.error(f"`<{tag}>` is missing")
        return found

    def attribute(self, name: str) -> str:
        """Return the value of an attribute, without outer spaces."""
        value = self.attributes.get(name, "").strip()
        if not value:
            raise self.error(f'the attribute `{name}="…"` is missing')
        return value


def read_xml(path: Path) -> Element:
    """Return the root element of a file, which may be compressed by gzip.

    Raises:
        PomdpFileError: if it is not XML, or has a document type definition.
        OSError: if the file cannot be read.

    """
    parser = expat.ParserCreate()
    stack, texts = [Element(path, 1, "", {})], [[""]]

    def fail(message: str) -> NoReturn:
        line = parser.CurrentLineNumber
        raise PomdpFileError(f"`{path}`, line {line}: {message}")

    def begin(tag: str, attributes: dict[str, str]) -> None:
        if len(stack) > DEEPEST:
            fail(f"more than {DEEPEST} nested elements")
        new = Element(path, parser.CurrentLineNumber, tag, attributes)
        stack[-1].children.append(new)
        stack.append(new)
        texts.append([])

    def end(_: str) -> None:
        stack.pop().text = "".join(texts.pop())

    def text(part: str) -> None:
        texts[-1].append(part)

    def document_type(*_: object) -> None:
        fail("`<!DOCTYPE …>` is not supported: remove it and write entities out")

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = document_type
    parser.buffer_text = True
    try:
        for line in read_lines(path):
            parser.Parse(line, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        what = expat.errors.messages[error.code]
        raise PomdpFileError(
            f"`{path}`, line {error.lineno}: not valid XML: {what}"
        ) from error
    return stack[0].children[0]
