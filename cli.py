"""Command line. Commands import heavy packages only when they run, for a fast `--help`.

Results go to files or stdout; messages go to stderr. Exit codes: 0 for success, 1 for a
failure, 2 for a usage error or invalid input. A failure prints one line and, where
possible, a hint; `SDM_DEBUG=1` shows the traceback instead.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.core

from sdm import __version__
from sdm.commands.console import say
from sdm.commands.demo import demo
from sdm.commands.demonstrate import DemonstrateCommand, demonstrate
from sdm.commands.doctor import doctor
from sdm.commands.estimate import EstimateCommand, estimate
from sdm.commands.eval_benchmarks import EvalCommand
from sdm.commands.evaluate import evaluate
from sdm.commands.experiment import experiment
from sdm.commands.export import export
from sdm.commands.feedback import FeedbackCommand, feedback
from sdm.commands.finetune import FinetuneCommand, finetune
from sdm.commands.forgetting import ForgettingCommand, forgetting
from sdm.commands.merge import merge
from sdm.commands.novelty import NoveltyCommand, novelty
from sdm.commands.ope import OpeCommand, ope
from sdm.commands.plan import PlanCommand, plan
from sdm.commands.selftrain import SelfTrainCommand, selftrain
from sdm.commands.solve import SolveCommand, solve
from sdm.commands.theory import theory
from sdm.commands.train import train

INTERRUPTED = 130


class InOrder(typer.core.TyperGroup):
    """Commands in the order of this file, also those with commands of their own."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        return [name for name in ORDER if name in self.commands]


app = typer.Typer(
    cls=InOrder, no_args_is_help=True, add_completion=False, rich_markup_mode="markdown"
)
ORDER: list[str] = []


def _show_version(requested: bool) -> bool:
    if requested:
        typer.echo(__version__)
        raise typer.Exit
    return requested


@app.callback()
def sdm(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Version of sdm."
        ),
    ] = False,
) -> None:
    """Solve decision tasks, fine-tune language models on them and evaluate policies."""


FIRST = "Start here"
SOLVE = "Solve and act"
TRAIN = "Train and evaluate"
LOGS = "Logged data"
RESULTS = "Experiments and theory"
STUDIES = "Judges, exploration and forgetting"


def _add(panel: str, name: str, about: str, command: Any, **options: Any) -> None:
    """Add a command or a group of commands, with one line for the list."""
    ORDER.append(name)
    described = {"rich_help_panel": panel, "short_help": about, **options}
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name, **described)
    else:
        app.command(name, **described)(command)


_add(FIRST, "demo", "Train and compare eight policies, in 20 minutes.", demo)
_add(FIRST, "doctor", "Check versions, devices, memory and disk.", doctor)
_add(SOLVE, "solve", "Solve sampled tasks or your model.", solve, cls=SolveCommand)
_add(SOLVE, "export", "Write a policy or a dataset for other programs.", export)
_add(TRAIN, "finetune", "Fine-tune on oracle data.", finetune, cls=FinetuneCommand)
_add(TRAIN, "train", "Train a baseline: dpt, cql.", train)
_add(TRAIN, "eval", "Measure gaps in unseen tasks.", evaluate, cls=EvalCommand)
_add(TRAIN, "selftrain", "Train without an oracle.", selftrain, cls=SelfTrainCommand)
_add(TRAIN, "merge", "Merge an adapter into its base model.", merge)
_add(LOGS, "estimate", "Estimate models from logs.", estimate, cls=EstimateCommand)
_add(LOGS, "plan", "Plan on logs, and bound the value.", plan, cls=PlanCommand)
_add(
    LOGS,
    "demonstrate",
    "Make a dataset of the best logged episodes.",
    demonstrate,
    cls=DemonstrateCommand,
)
_add(LOGS, "ope", "Estimate a policy's value from logs.", ope, cls=OpeCommand)
_add(RESULTS, "experiment", "Run and report the paper's experiments.", experiment)
_add(RESULTS, "theory", "Check the theory of linear self-attention.", theory)
_add(STUDIES, "feedback", "Rewards from a judge.", feedback, cls=FeedbackCommand)
_add(STUDIES, "novelty", "A bonus for new states.", novelty, cls=NoveltyCommand)
_add(STUDIES, "forgetting", "What tuning forgets.", forgetting, cls=ForgettingCommand)


def main() -> None:
    """Run the command line, and print a usage error as one line."""
    # Ctrl-C ends the process at once while C++ libraries load: an exception raised
    # during that may be lost, or crash the process.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        # Recognise usage errors by their public method: typer has moved their classes.
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        if message := describe():  # empty if typer has shown the help instead
            say(f"error: {message}", "red")
            path = getattr(getattr(error, "ctx", None), "command_path", "sdm")
            say(f"\nhint: {path} --help", "cyan")
        code = 2
    if code == INTERRUPTED:  # typer turns Ctrl-C into this exit code
        more = "; `--resume` continues" if _can_resume(sys.argv[1:]) else ""
        say(f"interrupted{more}", "red")
        # Threads of C++ libraries may still compute, and crash an orderly exit.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _can_resume(words: Sequence[str]) -> bool:
    """Return whether a command keeps what it has done: by `--resume` and a folder.

    Args:
        words: words of the command line after `sdm`.

    """
    command: Any = typer.main.get_command(app)
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    options = {name: each for each in command.params for name in each.opts}
    out = options.get("--out")
    given = any(word.partition("=")[0] == "--out" for word in words)
    return "--resume" in options and (out is None or bool(out.default) or given)


if __name__ == "__main__":
    main()
