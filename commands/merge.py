"""`sdm merge`."""

from pathlib import Path
from typing import Annotated

import typer

from sdm.commands.console import emit, pairs_table, start_torch, user_faults
from sdm.commands.eval_options import TrustRemoteCode
from sdm.commands.options import Json, Overwrite, Seed
from sdm.commands.progress import progress_bars


def merge(
    run: Annotated[Path, typer.Argument(help="Run folder from `sdm finetune`.")],
    out: Annotated[Path, typer.Option(help="Folder for the merged model.")],
    trust_remote_code: TrustRemoteCode = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Merge the adapter of a run into its base model, for vLLM and other programs.

    Example: `sdm merge runs/smollm2 --out merged`, then
    `sdm eval --policy icl:./merged`
    """
    with user_faults(), progress_bars():
        start_torch()
        from sdm.llm.merge import merge as merge_run

        merge_run(run, out, overwrite=overwrite, trust_remote_code=trust_remote_code)
    report = {"run": str(run), "out": str(out)}
    emit(report, as_json, lambda: pairs_table(report))
