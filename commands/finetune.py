"""`sdm finetune`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from sdm.commands.config_command import OptionGroup, command_with, group_of
from sdm.commands.console import (
    emit,
    fail,
    pairs_table,
    say,
    start_torch,
    user_faults,
)
from sdm.commands.options import (
    Context,
    Json,
    Overwrite,
    Quantize,
    Resume,
    Seed,
    given,
)
from sdm.commands.progress import doing, progress_bars
from sdm.commands.source_fields import config_fields


def _options() -> OptionGroup:
    """Return the options of `FinetuneConfig`; the base's recipe has their defaults."""
    fields = config_fields(
        "llm/recipes.py", "FinetuneConfig", without=("seed", "quantize")
    )
    return group_of(fields, show_default=False)


FinetuneCommand = command_with(_options)


def finetune(
    context: Context,
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    quantize: Annotated[
        Quantize | None, typer.Option(help="4-bit base weights (QLoRA), or none.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option(help="Write TensorBoard metrics to the run folder.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with training options.")
    ] = None,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a language model on an oracle dataset.

    The recipe of the base model sets the default of each option.

    Examples: `sdm finetune --data oracle --base tiny --out runs/tiny`; on four GPUs,
    `torchrun --nproc-per-node 4 -m sdm.cli finetune --data oracle --base …`
    """
    with user_faults(), progress_bars() as bar:
        values = given(context, "config").merged(config)
        data, base = (_needed(values, name) for name in ("data", "base"))
        if quantize is not None:
            values["quantize"] = quantize.value
        from sdm.data.shards import read_manifest
        from sdm.llm.base_names import check_base_name
        from sdm.llm.recipes import recipe, recipe_of
        from sdm.storage.ownership import check_new_folder

        # All checks that need no PyTorch, whose import takes seconds.
        check_new_folder(out, resume=resume, overwrite=overwrite)
        chosen = recipe(data, base, seed=seed, **values)
        check_base_name(base)
        read_manifest(Path(data))
        start_torch(tensorboard=tensorboard)
        from sdm.llm.finetune import finetune as run
        from sdm.llm.processes import is_first

        if not recipe_of(base) and is_first():
            say(
                f"`{base}` has no recipe: LoRA of rank {chosen.lora_rank}, "
                f"quantised: {chosen.quantize or 'no'}, schema {chosen.schema}"
            )
        doing("reading the data and the base")

        def progress(step: int, steps: int) -> None:
            if is_first():
                bar(f"fine-tuning {base}", step, steps)

        done = run(
            chosen,
            out,
            resume=resume,
            overwrite=overwrite,
            tensorboard=tensorboard,
            progress=progress,
        )
    if not is_first():  # one of several processes reports
        return
    report = {"out": str(out), "base": base, **dataclasses.asdict(done)}
    emit(report, as_json, lambda: pairs_table(report))


def _needed(values: dict[str, Any], name: str) -> str:
    """Pop a required value; exit with an error if it is missing."""
    if name not in values:
        fail(f"Missing option '--{name}'.", "sdm finetune --help")
    return str(values.pop(name))
