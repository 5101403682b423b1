"""Command line. Commands import heavy packages only when they run, for a fast `--help`.

Results go to files or stdout; messages go to stderr. Exit codes: 0 for success, 1 for a
failure, 2 for a usage error or invalid input. A failure prints one line and, where
possible, a hint; `SDM_DEBUG=1` shows the traceback instead.
"""

import signal
import sys
from typing import Annotated

import typer

from sdm import __version__
from sdm.commands.console import say
from sdm.commands.demo import demo
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

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="markdown"
)


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


app.command(cls=SolveCommand)(solve)
app.command(cls=FinetuneCommand)(finetune)
app.command(cls=SelfTrainCommand)(selftrain)
app.command()(merge)
app.command()(export)
app.command("eval", cls=EvalCommand)(evaluate)
app.command(cls=EstimateCommand)(estimate)
app.command(cls=PlanCommand)(plan)
app.command(cls=OpeCommand)(ope)
app.command(cls=FeedbackCommand)(feedback)
app.command(cls=NoveltyCommand)(novelty)
app.command(cls=ForgettingCommand)(forgetting)
app.command()(demo)
app.command()(doctor)
app.add_typer(train, name="train")
app.add_typer(theory, name="theory")
app.add_typer(experiment, name="experiment")


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
        say("interrupted; `--resume` continues, if the command has it", "red")
    sys.exit(code)


if __name__ == "__main__":
    main()
