"""`sdm export`: write a policy or a dataset in another program's format."""

from pathlib import Path
from typing import Annotated

import typer

from sdm.commands.console import emit, pairs_table, start_jax, user_faults
from sdm.commands.options import Json, Overwrite, Seed
from sdm.commands.progress import progress_bars


def export(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of `sdm solve --out`, with a solution of `--model FILE` or a "
            "dataset."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    to: Annotated[
        str,
        typer.Option(
            help="Format: `sarsop` (policy files, one for each stage), `minari` (a "
            "Minari dataset) or `hub` (Parquet files with a dataset card); default "
            "is the one that reads the source, if there is only one."
        ),
    ] = "",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the policy of a solution, or a dataset, in another program's format.

    Example: `sdm export oracle --to minari --out exported`
    """
    with user_faults(), progress_bars():
        start_jax()
        from sdm.data.exports.format import export as write
        from sdm.data.exports.format import find_format

        chosen = find_format(source, to)
        written = write(source, chosen, out, overwrite=overwrite)
    report = {"out": str(out), "format": chosen.name, **written}
    emit(report, as_json, lambda: pairs_table(report))
