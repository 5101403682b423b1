"""`sdm finetune`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from sdm.commands.console import (
    emit,
    pairs_table,
    progress_bars,
    say,
    start_torch,
    user_faults,
)
from sdm.commands.options import (
    Json,
    Loss,
    Overwrite,
    Quantize,
    Resume,
    Schema,
    Seed,
    Shown,
)


def finetune(
    data: Annotated[Path, typer.Option(help="Oracle dataset, from `sdm solve --out`.")],
    base: Annotated[
        str,
        typer.Option(help="`smollm2`, `tiny`, a Hugging Face id, or a model's folder."),
    ],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    schema: Annotated[Schema | None, typer.Option(help="Wording of episodes.")] = None,
    support: Annotated[
        int | None, typer.Option(help="Demonstrations in each text.")
    ] = None,
    texts_per_task: Annotated[int | None, typer.Option(help="Texts per task.")] = None,
    tasks: Annotated[int | None, typer.Option(help="Use the first so many.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the texts.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Texts per step, over all processes.")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Pieces of a batch: more take less memory.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its peak.")] = None,
    demonstrations: Annotated[
        Shown | None,
        typer.Option(help="Whose episodes are shown; `all`: random ones, too."),
    ] = None,
    queries: Annotated[
        Shown | None,
        typer.Option(help="Whose episodes are asked about; `all`: random ones, too."),
    ] = None,
    loss: Annotated[Loss | None, typer.Option(help="Tokens that count.")] = None,
    quantize: Annotated[
        Quantize | None, typer.Option(help="4-bit base weights (QLoRA).")
    ] = None,
    lora_rank: Annotated[
        int | None, typer.Option(help="Rank of the adapter; 0 trains all weights.")
    ] = None,
    lora_alpha: Annotated[
        int | None, typer.Option(help="Scale of the adapter, over its rank.")
    ] = None,
    lora_dropout: Annotated[
        float | None, typer.Option(help="Dropout before the adapter.")
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option(help="Random weights in the base's architecture.")
    ] = False,
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--gradient-checkpointing/--no-gradient-checkpointing",
            help="Less memory, a third more time.",
        ),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option(help="Run code that comes with the base.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option(help="Metrics for TensorBoard, too, in the run folder.")
    ] = False,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Teach a language model to act, from an oracle dataset.

    What is not given comes from the base's recipe.

    Examples: `sdm finetune --data data --base tiny --out runs/tiny`, and on four GPUs
    `torchrun --nproc-per-node 4 -m sdm.cli finetune --data data --base …`
    """
    given = {
        "schema": schema and schema.value,
        "support": support,
        "texts_per_task": texts_per_task,
        "tasks": tasks,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "demonstrations": demonstrations and demonstrations.value,
        "queries": queries and queries.value,
        "loss": loss and loss.value,
        "quantize": quantize and quantize.value,
        "lora_rank": lora_rank,
        "accumulate": accumulate,
        "lora_alpha": lora_alpha,
        "lora_dropout": lora_dropout,
        "from_scratch": from_scratch or None,
        "gradient_checkpointing": gradient_checkpointing,
        "trust_remote_code": trust_remote_code or None,
    }
    with user_faults():
        start_torch(tensorboard=tensorboard)
        from sdm.llm.base_names import check_base_name
        from sdm.llm.finetune import finetune as run
        from sdm.llm.processes import is_first
        from sdm.llm.recipes import recipe, recipe_of

        config = recipe(str(data), base, seed=seed, **given)
        if not recipe_of(base) and is_first():
            check_base_name(base)
            say(
                f"`{base}` has no recipe of its own: LoRA of rank {config.lora_rank}, "
                f"quantised: {config.quantize or 'no'}, schema {config.schema}"
            )
        with progress_bars() as bar:

            def progress(step: int, steps: int) -> None:
                if is_first():
                    bar(f"fine-tuning {base}", step, steps)

            done = run(
                config,
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
