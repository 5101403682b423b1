"""Options of `sdm eval`."""

from pathlib import Path
from typing import Annotated

import typer

from sdm.commands.options import Backend, Quantize

MODELS = "Language models"
OUTPUT = "Output"

PolicyNames = Annotated[
    list[str],
    typer.Option(
        help="Policy to evaluate: `oracle`, `random`, `mean-plan`, `bc`, `ce`, "
        "`psrl`, `qmdp`, `bayes-adaptive`, `bayes-imitation` (mdp), "
        "`observation-as-state` (pomdp, apomdp), `nominal`, `mixture` (apomdp), "
        "`always-ACTION`, `dpt:RUN`, `cql:RUN`, `icl:BASE`, or the run folder of a "
        "language model; `all` selects every applicable policy without training. "
        "Repeatable."
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        help="Evaluated policy that the others are compared with on each task."
    ),
]
Setting = Annotated[
    str,
    typer.Option(
        help="Kind of model: mdp, pomdp, apomdp, or `all` that the family supports "
        "(default mdp)."
    ),
]
SchemaName = Annotated[
    str | None,
    typer.Option(
        help="Text schema for `icl:` policies: paper, compact or words.",
        rich_help_panel=MODELS,
    ),
]
Quantized = Annotated[
    Quantize | None,
    typer.Option(help="4-bit weights for `icl:` policies.", rich_help_panel=MODELS),
]
ChosenBackend = Annotated[
    Backend,
    typer.Option(
        help="Inference backend of language models; vllm supports `icl:` policies.",
        rich_help_panel=MODELS,
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Execution of the Python code in the repositories of base models.",
        rich_help_panel=MODELS,
    ),
]
Temperature = Annotated[
    float,
    typer.Option(
        min=0,
        help="Temperature at which language models sample actions; 0 for the most "
        "probable one (default 0).",
        show_default=False,
        rich_help_panel=MODELS,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(help="YAML file with options of the test."),
]
PerTask = Annotated[
    bool,
    typer.Option(
        "--per-task",
        help="Write the values of each task, from which the intervals follow.",
        rich_help_panel=OUTPUT,
    ),
]
FigureFile = Annotated[
    Path | None,
    typer.Option(
        help="PNG, PDF or SVG file of where policies lose, by stage and by state.",
        rich_help_panel=OUTPUT,
    ),
]
OutFile = Annotated[
    Path | None,
    typer.Option(help="JSON file to write.", rich_help_panel=OUTPUT),
]
