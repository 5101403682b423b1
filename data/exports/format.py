"""Formats of `sdm export`: the protocol and its registry.

A format is a class without state in one module of `sdm.data.exports.formats`:

    @register_format
    class MyFormat:
        name: ClassVar[str] = "mine"
        source: ClassVar[str] = "a dataset of `sdm solve --out`"
        def reads(self, path) -> bool: ...
        def identity(self, path) -> str: ...
        def write(self, path, folder) -> Mapping[str, Any]: ...

Another package registers one in a module that the entry-point group `sdm.exports`
lists.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sdm.storage.files import StorageError, folder_in_progress
from sdm.storage.plugins import NamedClasses


@runtime_checkable
class ExportFormat(Protocol):
    """Interface of a format.

    Attributes:
        name: name on the command line.
        source: what it reads, for errors.

    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def source(self) -> str: ...  # noqa: D102

    def reads(self, path: Path) -> bool:
        """Return whether a path has what the format reads, whole or damaged."""

    def identity(self, path: Path) -> str:
        """Return a digest of what would be exported.

        Raises:
            StorageError: if it is damaged.

        """

    def write(self, path: Path, folder: Path) -> Mapping[str, Any]:
        """Write an export into an existing folder.

        Args:
            path: what to export.
            folder: where to write.

        Returns:
            What was written, as values that JSON can represent.

        Raises:
            StorageError: if the source is damaged.
            ValueError: if the format cannot represent it.

        """


_formats = NamedClasses("sdm.data.exports.formats", group="sdm.exports", what="format")
register_format, formats = _formats.add, _formats.all


def find_format(path: Path, name: str = "") -> ExportFormat:
    """Return the format with a name, or the only one that reads a path.

    Raises:
        ValueError: if the name is unknown, or several formats read the path.
        StorageError: if the format does not read the path, or none does.

    """
    if name:
        chosen: ExportFormat = _formats.find(name)()
        if not chosen.reads(path):
            raise StorageError(f"`{path}`: format `{name}` needs {chosen.source}")
        return chosen
    made: list[ExportFormat] = [each() for each in formats().values()]
    found = [each for each in made if each.reads(path)]
    if not found:
        sources = " or ".join(sorted({each.source for each in made}))
        raise StorageError(f"`{path}`: must be {sources}")
    if len(found) > 1:
        names = ", ".join(sorted(f"`--to {each.name}`" for each in found))
        raise ValueError(f"format: several formats read `{path}`; choose {names}")
    return found[0]


def export(
    path: Path, chosen: ExportFormat, out: Path, *, overwrite: bool = False
) -> Mapping[str, Any]:
    """Write an export to a new folder, atomically, and return what was written.

    Raises:
        StorageError: if the source is damaged, or the folder cannot be written.
        ValueError: if the format cannot represent the source.

    """
    plan = {"command": "export", "to": chosen.name, "source": chosen.identity(path)}
    with folder_in_progress(
        out, plan, inputs=(path,), overwrite=overwrite, resumable=False
    ) as partial:
        return chosen.write(path, partial)
