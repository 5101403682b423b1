"""Command line. Heavy imports wait until a command runs, so `--help` is instant.

Results go to files or stdout; messages go to stderr. Exit codes: 0 done, 1 could not be
done, 2 called wrongly or bad input. A failure is one line, and a hint where one helps;
`SDM_DEBUG=1` shows the traceback instead.
"""

import dataclasses
import enum
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from sdm.solvers_jax.families import EnergyFamily

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="markdown"
)

SETTINGS = ("mdp",)


class Schema(enum.StrEnum):
    """Ways to write an episode."""

    paper = "paper"
    compact = "compact"


class Quantize(enum.StrEnum):
    """Ways to shrink a base model."""

    nf4 = "nf4"


class Loss(enum.StrEnum):
    """Tokens that the training loss counts."""

    all = "all"
    actions = "actions"


Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, help="Decides every random number.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Overwrite = Annotated[bool, typer.Option(help="Replace an existing output.")]
Resume = Annotated[bool, typer.Option(help="Go on with an unfinished run.")]
Setting = Annotated[str, typer.Option(help=f"Task type: {', '.join(SETTINGS)}.")]
Horizon = Annotated[int, typer.Option(help="Decisions per episode, T.")]
Discount = Annotated[float, typer.Option(help="Factor per stage, in [0, 1].")]
PMin = Annotated[float, typer.Option(help="Smallest success probability of a move.")]
PMax = Annotated[float, typer.Option(help="Largest success probability of a move.")]


@app.callback()
def sdm() -> None:
    """Sequential decisions: solve them, teach them to language models, measure both."""


def say(message: str, colour: str | None = None) -> None:
    """One message to stderr."""
    typer.secho(message, fg=colour, err=True)


def fail(message: str, hint: str = "", *, code: int = 2) -> NoReturn:
    """Say what is wrong and what to do about it, and exit."""
    say(f"error: {message}", "red")
    if hint:
        say(f"\nhint: {hint}", "cyan")
    raise typer.Exit(code)


@contextmanager
def user_faults() -> Iterator[None]:
    """Turn what the package raises into messages and exit codes, without traceback."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("SDM_DEBUG") == "1" or isinstance(error, typer.Exit):
            raise
        first = (str(error).strip() or repr(error)).splitlines()[0]
        code = 2 if isinstance(error, ValueError) else 1
        fail(first, getattr(error, "hint", ""), code=code)
    except Exception as error:
        if os.environ.get("SDM_DEBUG") == "1":
            raise
        fail(
            f"{type(error).__name__}: {(str(error) or '?').splitlines()[0]}",
            "set `SDM_DEBUG=1` to see where",
            code=1,
        )


def start_jax() -> None:
    """Solve in double precision, and leave an accelerator's memory to PyTorch."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    jax.config.update("jax_enable_x64", True)


def start_torch() -> None:
    """Fail kindly where the `llm` extra is missing; keep its libraries quiet."""
    import logging
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    for name in ("bitsandbytes", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        import bitsandbytes  # noqa: F401
        import peft  # noqa: F401
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        fail(
            f"this needs the package `{error.name}`, which is not installed",
            "pip install 'sdm-llm[llm]'",
            code=1,
        )
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def energy_family(
    setting: str, p_min: float, p_max: float, discount: float
) -> "EnergyFamily":
    """The task family that the options describe."""
    if setting not in SETTINGS:
        fail(f"unknown setting `{setting}`", f"settings are: {', '.join(SETTINGS)}")
    from sdm.solvers_jax.families import EnergyFamily

    return EnergyFamily(p_min=p_min, p_max=p_max, discount=discount)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Bars with the time left on a terminal; elsewhere a line as each step begins."""
    from rich.console import Console
    from rich.progress import Progress, TaskID, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn())
    bars: dict[str, TaskID] = {}
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as shown:

        def update(step: str, done: int, total: int) -> None:
            if step not in bars:
                bars[step] = shown.add_task(step, total=total)
                if not console.is_terminal:
                    say(f"{step} …")
            shown.update(bars[step], completed=done, total=total)

        yield update


def emit(report: dict[str, Any], as_json: bool, table: "Callable[[], Table]") -> None:
    """Print one JSON object, or a table for people."""
    if as_json:
        typer.echo(json.dumps(report, allow_nan=False))
        return
    from rich.console import Console

    # Without a terminal there is no width to fit.
    Console(width=None if sys.stdout.isatty() else 160).print(table())


def pairs_table(report: dict[str, Any]) -> "Table":
    """A two-column table of names and values."""
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in report.items():
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        table.add_row(name, shown)
    return table


@app.command()
def solve(
    setting: Setting = "mdp",
    tasks: Annotated[int, typer.Option(help="Number of tasks.")] = 3200,
    horizon: Horizon = 10,
    discount: Discount = 0.95,
    p_min: PMin = 0.2,
    p_max: PMax = 0.9,
    trajectories: Annotated[
        int, typer.Option(help="Optimal episodes per task, where `--out` is given.")
    ] = 15,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the oracle dataset.")
    ] = None,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Sample energy tasks and solve them; with `--out`, write the oracle's episodes.

    Example: `sdm solve --tasks 3200 --horizon 10 --out data`
    """
    with user_faults(), progress_bars() as bar:
        family = energy_family(setting, p_min, p_max, discount)
        start_jax()
        import jax

        from sdm.solvers_jax.oracle_data import (
            OracleConfig,
            solve_tasks,
            write_oracle_dataset,
        )

        config = OracleConfig(family, horizon, tasks, trajectories, seed)

        def progress(done: int) -> None:
            bar("solving", done, tasks)

        if out is None:
            summary = solve_tasks(config, progress=progress)
        else:
            summary = write_oracle_dataset(
                config, out, resume=resume, overwrite=overwrite, progress=progress
            )
    report = {
        "setting": setting,
        "tasks": tasks,
        "horizon": horizon,
        **dataclasses.asdict(summary),
        "tasks_per_second": tasks / summary.seconds,
        "device": str(jax.devices()[0].device_kind),
        "out": str(out) if out else None,
    }
    emit(report, as_json, lambda: pairs_table(report))


@app.command()
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
    batch_size: Annotated[int | None, typer.Option(help="Texts per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its peak.")] = None,
    loss: Annotated[Loss | None, typer.Option(help="Tokens that count.")] = None,
    quantize: Annotated[
        Quantize | None, typer.Option(help="4-bit base weights (QLoRA).")
    ] = None,
    lora_rank: Annotated[
        int | None, typer.Option(help="Rank of the adapter; 0 trains all weights.")
    ] = None,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Teach a language model to act, from an oracle dataset.

    What is not given comes from the base's recipe.

    Example: `sdm finetune --data data --base tiny --out runs/tiny`
    """
    given = {
        "schema": schema and schema.value,
        "support": support,
        "texts_per_task": texts_per_task,
        "tasks": tasks,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "loss": loss and loss.value,
        "quantize": quantize and quantize.value,
        "lora_rank": lora_rank,
    }
    with user_faults():
        start_torch()
        from sdm.llm.finetune import finetune as run
        from sdm.llm.recipes import recipe

        config = recipe(str(data), base, seed=seed, **given)
        with progress_bars() as bar:
            done = run(
                config,
                out,
                resume=resume,
                overwrite=overwrite,
                progress=lambda step, steps: bar(f"fine-tuning {base}", step, steps),
            )
    report = {"out": str(out), "base": base, **dataclasses.asdict(done)}
    emit(report, as_json, lambda: pairs_table(report))


@app.command("eval")
def evaluate(
    policy: Annotated[
        list[str],
        typer.Option(
            help="`oracle`, `random`, `always-work`, `mean-plan`, `ce`, `icl:BASE`, or "
            "a run folder. Repeat it for more."
        ),
    ],
    setting: Setting = "mdp",
    tasks: Annotated[int, typer.Option(help="Number of unseen tasks.")] = 100,
    trajectories: Annotated[int, typer.Option(help="Episodes per task.")] = 30,
    support: Annotated[int, typer.Option(help="Demonstrations shown.")] = 2,
    horizon: Horizon = 10,
    discount: Discount = 0.95,
    p_min: PMin = 0.2,
    p_max: PMax = 0.9,
    schema: Annotated[
        Schema | None, typer.Option(help="Wording for `icl:` policies.")
    ] = None,
    quantize: Annotated[
        Quantize | None, typer.Option(help="4-bit weights for `icl:` policies.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Let policies act in the same unseen tasks and measure their optimality gaps.

    Example: `sdm eval --policy ce --policy runs/tiny --tasks 100`
    """
    with user_faults(), progress_bars() as bar:
        if out is not None and out.exists() and not overwrite:
            fail(f"`{out}` exists already", "pass `--overwrite` to replace it")
        family = energy_family(setting, p_min, p_max, discount)
        start_jax()
        from sdm.llm.evaluate import (
            BASELINES,
            EvaluationConfig,
            check_policy_name,
            make_test_bed,
        )
        from sdm.llm.evaluate import evaluate as run
        from sdm.llm.results import gap_table, result_row
        from sdm.solvers_jax.shards import write_atomically

        for name in policy:
            check_policy_name(name)
        config = EvaluationConfig(
            family, horizon, tasks, trajectories, support, seed=seed
        )
        if not set(policy) <= set(BASELINES):
            start_torch()
        results = run(
            policy,
            make_test_bed(config),
            schema=schema and schema.value,
            quantize=quantize and quantize.value,
            progress=bar,
        )
        rows = {result.policy: result_row(result) for result in results}
        report = {
            "setting": setting,
            "config": dataclasses.asdict(config),
            "policies": rows,
        }
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(out, json.dumps(report, indent=2) + "\n")
    for result in results:
        if missing := result.gap.undefined_tasks:
            say(
                f"warning: `{result.policy}`: tasks {list(missing)} have an optimal "
                "return of 0 and so no gap: they are left out",
                "yellow",
            )
    emit(report, as_json, lambda: gap_table(rows))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("demo"),
    quick: Annotated[bool, typer.Option(help="Less training: minutes less.")] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show the main job, end to end: oracle data, fine-tuning, a table of gaps.

    Example: `sdm demo`
    """
    with user_faults(), progress_bars() as progress:
        start_jax()
        start_torch()
        from sdm.llm.bases import smollm2_folder
        from sdm.llm.demo import PAPER, QUICK, DemoConfig, run_demo
        from sdm.llm.results import gap_table

        smollm2_folder()  # fail now, not after the training, if it cannot be had
        config = dataclasses.replace(QUICK if quick else DemoConfig(), seed=seed)
        report = run_demo(config, out, overwrite=overwrite, progress=progress)
    emit(report, as_json, lambda: gap_table(report["policies"], PAPER))
    say(f"`{out}` has this table, its figure, the data and the fine-tuned models")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is installed, what computes, and what is missing and how to get it."""
    from sdm.llm.doctor import examine

    report = examine()
    emit(
        report,
        as_json,
        lambda: pairs_table({**report["versions"], **report["devices"]}),
    )
    for name, cure in report["missing"].items():
        say(f"missing: {name}, {cure}", "yellow")


def main() -> None:
    """Run the command line; a wrong call is one line too."""
    try:
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        say("interrupted", "red")
        code = 130
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
    sys.exit(code)


if __name__ == "__main__":
    main()
