"""`sdm demo`."""

import dataclasses
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdm.commands.console import emit, say, start_jax, start_torch, user_faults
from sdm.commands.options import Json, Overwrite, Resume, Seed
from sdm.commands.progress import Bar, doing, duration, progress_bars

if TYPE_CHECKING:
    from sdm.experiments.demo_steps import StepsLeft


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer tasks and episodes, to save minutes.")
    ] = False,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Run the demo: generate oracle data, fine-tune, and compare optimality gaps.

    An interrupted demo continues with `--resume`, at the step that it had reached.

    Example: `sdm demo`
    """
    steps = _Steps()
    with user_faults(), progress_bars(steps.line) as bar:
        from sdm.storage.ownership import check_absent

        check_absent(out, overwrite=overwrite)  # before a line about what it does
        say("This demo solves tasks, trains two language models on them, and compares")
        say(f"eight policies in unseen tasks. It writes `{out}`.")
        start_jax()
        from sdm.experiments.demo_steps import (
            QUICK,
            DemoConfig,
            StepsLeft,
            expected_seconds,
        )

        config = dataclasses.replace(QUICK if quick else DemoConfig(), seed=seed)
        steps.plan(StepsLeft(expected_seconds(config)), resume=resume)
        start_torch()
        from sdm.evaluation.gap_table import gap_table
        from sdm.experiments.demo import paper_values, run_demo
        from sdm.llm.bases import smollm2_folder

        doing("preparing the base model SmolLM2, in half a minute the first time")
        smollm2_folder()  # fail before training if the base model is unavailable
        report = run_demo(
            config, out, resume=resume, overwrite=overwrite, progress=steps.watch(bar)
        )
    emit(report, as_json, lambda: gap_table(report["policies"], paper_values(config)))
    say(f"`{out}` contains this table, its figure, the data and the fine-tuned models")
    say("\nWhat to do next:")
    for command in next_commands(out):
        say(f"  {command}", "cyan")


def next_commands(out: Path) -> list[str]:
    """Return three commands that continue with the folder of a demo."""
    data, tiny = (shlex.quote(str(out / name)) for name in ("data", "tiny"))
    dpt = shlex.quote(str(out.with_name(f"{out.name}-dpt")))
    return [
        f"sdm eval --policy {tiny} --policy ce --p-min 0.05 --p-max 0.2  "
        "# tasks unlike those of the training",
        f"sdm train dpt --data {data} --out {dpt}  # another way to learn from it",
        f"sdm eval --policy dpt:{dpt} --policy {tiny} --reference {tiny}",
    ]


class _Steps:
    """Lines about the steps of the demo: which, and how long."""

    left: "StepsLeft"

    def __init__(self) -> None:
        self._now, self._since, self._whole = "", 0.0, True

    def plan(self, left: "StepsLeft", *, resume: bool) -> None:
        """Print the steps and their time on the machine of the published run."""
        self.left = left
        kinds: dict[str, list[str]] = {}
        for step in left.expected:
            kinds.setdefault(step.split()[0], []).append(step)
        say("Steps, with their time in a published run on one core:")
        for steps in kinds.values():
            first, rest = steps[0], len(steps) > 2
            shown = f"{first.split()[0]} {len(steps)} policies" if rest else ""
            for name in [shown] if rest else steps:
                seconds = sum(left.expected[s] for s in (steps if rest else [name]))
                say(f"  {name}: about {duration(seconds)}")
        total = duration(sum(left.expected.values()))
        say("Finished steps are skipped." if resume else f"In all: about {total}.")

    def watch(self, bar: Bar) -> Bar:
        """Return a function that times the steps and moves their bars."""

        def update(step: str, done: int, total: int) -> None:
            if step != self._now:
                self._now, self._since = step, time.monotonic()
                self._whole = done == 0  # a resumed step starts later
            bar(step, done, total)
            if done == total and self._whole:
                self.left.finish(step, time.monotonic() - self._since)
                self._whole = False

        return update

    def line(self, step: str) -> str:
        """Return a line about a step that begins."""
        names = list(self.left.expected)
        place = f"step {names.index(step) + 1} of {len(names)}: {step}"
        here, all_ = self.left.seconds(step), self.left.from_step(step)
        return f"{place}, about {duration(here)}; all done in about {duration(all_)}"
