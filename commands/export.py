"""`sdm export`: write the policy of a solution in another program's format."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sdm.commands.console import emit, pairs_table, start_jax, user_faults
from sdm.commands.options import Json, Overwrite, Seed


def export(
    solution: Annotated[
        Path, typer.Argument(help="Folder that `sdm solve --model FILE --out` wrote.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the policy.")],
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the policy of a solution as SARSOP's policy files, one for each stage.

    The policy depends on the stage: at stage t, use the α-vectors of
    `stage-00t.policy`. Those of stage 0 are for the initial belief only.

    Example: `sdm export solution --out policy`
    """
    with user_faults():
        start_jax()
        from sdm.solvers_jax.solution_files import (
            load_solution,
            read_manifest,
            solution_folder,
        )
        from sdm.solvers_jax.stage_vectors import export_policy, stage_vectors

        manifest, found = read_manifest(solution), load_solution(solution)
        try:
            stage_vectors(found, 0)
        except TypeError as error:
            raise ValueError(f"`{solution}`: {error}") from error
        file = manifest.get("model", {}).get("file", "")
        plan: dict[str, Any] = {"command": "export", "solution": manifest["sha256"]}
        with solution_folder(
            out, plan, inputs=(solution,), overwrite=overwrite
        ) as partial:
            written = export_policy(found, partial, model=file)
    report = {"out": str(out), "stages": len(written), "first": written[0].name}
    emit(report, as_json, lambda: pairs_table(report))
