"""Command line. Heavy imports wait until a command runs, so `--help` is instant.

Results go to files or stdout; messages go to stderr. Exit codes: 0 done, 1 could not be
done, 2 called wrongly or bad input. A failure is one line, and a hint where one helps;
`SDM_DEBUG=1` shows the traceback instead.
"""

import signal
import sys
from typing import Annotated

import typer

from sdm import __version__
from sdm.commands.console import say
from sdm.commands.demo import demo
from sdm.commands.doctor import doctor
from sdm.commands.evaluate import EvalCommand, evaluate
from sdm.commands.experiment import experiment
from sdm.commands.finetune import FinetuneCommand, finetune
from sdm.commands.merge import merge
from sdm.commands.solve import SolveCommand, solve
from sdm.commands.theory import theory
from sdm.commands.train import train

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="markdown"
)


def _show_version(asked: bool) -> bool:
    if asked:
        typer.echo(__version__)
        raise typer.Exit
    return asked


@app.callback()
def sdm(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Of sdm."
        ),
    ] = False,
) -> None:
    """Sequential decisions: solve them, teach them to language models, measure both."""


app.command(cls=SolveCommand)(solve)
app.command(cls=FinetuneCommand)(finetune)
app.command()(merge)
app.command("eval", cls=EvalCommand)(evaluate)
app.command()(demo)
app.command()(doctor)
app.add_typer(train, name="train")
app.add_typer(theory, name="theory")
app.add_typer(experiment, name="experiment")


def main() -> None:
    """Run the command line; a wrong call is one line too."""
    # While libraries written in C++ load, Ctrl-C ends the process at once: an exception
    # in the middle of that may be lost, or crash it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        # Usage errors, by their one public trait: typer has moved their classes.
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        if message := describe():  # none where the help was shown instead
            say(f"error: {message}", "red")
            path = getattr(getattr(error, "ctx", None), "command_path", "sdm")
            say(f"\nhint: {path} --help", "cyan")
        code = 2
    if code == INTERRUPTED:  # typer turns the key into this code
        say("interrupted; `--resume`, where a command has it, goes on", "red")
    sys.exit(code)


if __name__ == "__main__":
    main()
