"""Options of `sdm solve`, and the headings of its help."""

from pathlib import Path
from typing import Annotated

import typer

A_MDP = "MDPs, --setting mdp"
A_POMDP = "POMDPs, --setting pomdp"
AN_APOMDP = "Ambiguous POMDPs, --setting apomdp"
A_FILE = "One model from a file, --model"
SEARCH = "Search in one model, --method search"
EPISODES = "Episodes"
OUTPUT = "Output"
PANELS = {
    "random_trajectories": A_MDP,
    **dict.fromkeys(("gap", "atol", "points"), A_POMDP),
    "believe": AN_APOMDP,
    **dict.fromkeys(("trajectories", "observes_reward"), EPISODES),
    "batch": OUTPUT,
}

Setting = Annotated[
    str, typer.Option(help="Kind of model: mdp, pomdp or apomdp (default mdp).")
]
ModelFile = Annotated[
    Path | None,
    typer.Option(
        help="Model file to solve instead: `.POMDP`, `.pomdpx` or `.npz`.",
        rich_help_panel=A_FILE,
    ),
]
MethodName = Annotated[
    str | None,
    typer.Option(
        help="Solution method for `--model`: for pomdp, `points`, `search` for a "
        "large or long one, or `exact` for a small one (default: `search` for a "
        "large pomdp or one without `--horizon`, else that of the kind of model).",
        rich_help_panel=A_FILE,
    ),
]
Simulate = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Episodes that the policy of `--model` plays (default none).",
        rich_help_panel=A_FILE,
    ),
]
Seconds = Annotated[
    float | None,
    typer.Option(
        help="Time limit of `--method search`, which then has the best answer so "
        "far, as after Ctrl-C (default 60).",
        rich_help_panel=SEARCH,
    ),
]
AttitudeName = Annotated[
    str | None,
    typer.Option(
        help="Attitude to the sets of probabilities of `--model`: `pessimistic` or "
        "`optimistic` (default pessimistic).",
        rich_help_panel=A_FILE,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder for the oracle dataset or, with `--model`, the solution.",
        rich_help_panel=OUTPUT,
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        help="Figure of the solution of task 0: .png, .pdf or .svg.",
        rich_help_panel=OUTPUT,
    ),
]
Distributed = Annotated[
    bool,
    typer.Option(
        "--distributed",
        help="Run as one of several processes that write `--out`. JAX detects "
        "them under Slurm, Open MPI and Kubernetes; elsewhere, set "
        "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.",
        rich_help_panel=OUTPUT,
    ),
]
RequireGap = Annotated[
    bool,
    typer.Option(
        "--require-gap",
        help="Exit with code 1 if a task does not reach `--gap`, after the report "
        "(pomdp).",
        rich_help_panel=A_POMDP,
    ),
]
ResumeDataset = Annotated[
    bool,
    typer.Option(
        "--resume", help="Continue an unfinished dataset.", rich_help_panel=OUTPUT
    ),
]
OverwriteOutput = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace an existing output.", rich_help_panel=OUTPUT
    ),
]
