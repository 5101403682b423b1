"""Options that the commands of `sdm experiment` share."""

import enum
from pathlib import Path
from typing import Annotated

import typer


class Profile(enum.StrEnum):
    """Sizes of experiments."""

    smoke = "smoke"
    laptop = "laptop"
    paper = "paper"


Results = Annotated[
    Path,
    typer.Option(
        help="Folder of result rows; its `work` holds datasets and trained policies."
    ),
]
IdleSeed = Annotated[
    int, typer.Option("--seed", min=0, help="No effect: this command is deterministic.")
]
RESULTS = Path("results")
