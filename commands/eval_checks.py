"""Checks and warnings of `sdm eval`."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from sdm.commands.console import fail, say
from sdm.commands.options import Context, given_options

if TYPE_CHECKING:
    from sdm.evaluation.result import PolicyResult


def check_one_process() -> None:
    """Exit with an error if `torchrun` or the like started several processes."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return
    if os.environ.get("RANK", "0") != "0":
        raise typer.Exit(2)  # only the first process reports it
    fail(
        f"eval: must run in one process, found {count}",
        "start `sdm eval` by itself; to use several GPUs, start it once for each, with "
        "other policies, `--out` and `CUDA_VISIBLE_DEVICES`",
    )


def warn_of_language_model_options(context: Context) -> None:
    """Warn of options on the command line that only language models use."""
    for name, option in given_options(context).items():
        if name in (
            *("schema", "quantize", "backend", "trust_remote_code"),
            "temperature",
        ):
            say(
                f"warning: `{option}` has no effect: no policy is a language model",
                "yellow",
            )


def warn_of_odd_tasks(results: "Sequence[PolicyResult]", title: str) -> None:
    """Warn of tasks whose gaps are undefined or may dominate the mean."""
    for result in results:
        for indices, what in (
            (result.gap.undefined_tasks, "of 0 and no defined gap: they are excluded"),
            (result.gap.tiny_tasks, "near 0: each may dominate the mean"),
        ):
            if indices:
                say(
                    f"warning: `{result.policy}`: {title} tasks {list(indices)} have "
                    f"an optimal return {what}",
                    "yellow",
                )
