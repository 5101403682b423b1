"""SARSOP's policy files, one for each stage of a solution with α-vectors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from sdm.data.exports.format import register_format
from sdm.solvers_jax.solution_files import MANIFEST, load_solution, read_manifest
from sdm.solvers_jax.stage_vectors import export_policy, stage_vectors


@register_format
class Sarsop:
    """Policy files; at stage t, a policy uses the α-vectors of `stage-00t.policy`.

    Those of stage 0 are for the initial belief only.
    """

    name: ClassVar[str] = "sarsop"
    source: ClassVar[str] = "a folder of `sdm solve --model FILE --out`"

    def reads(self, path: Path) -> bool:
        """Return whether a path has what the format reads, whole or damaged."""
        return (path / MANIFEST).is_file()

    def identity(self, path: Path) -> str:
        """Return a digest of what would be exported."""
        return str(read_manifest(path)["sha256"])

    def write(self, path: Path, folder: Path) -> Mapping[str, Any]:
        """Write an export into an existing folder; see `ExportFormat`."""
        found = load_solution(path)
        try:
            stage_vectors(found, 0)
        except TypeError as error:
            raise ValueError(f"`{path}`: {error}") from error
        model = read_manifest(path).get("model", {}).get("file", "")
        written = export_policy(found, folder, model=model)
        return {"stages": len(written), "first": written[0].name}
