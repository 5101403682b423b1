"""The main job, end to end: oracle data, fine-tuning, and a table of optimality gaps.

Uses the calibrated energy MDPs at T = 10, `tiny` from scratch and the embedded SmolLM2.
The evaluation is one test for all policies: the same unseen tasks, demonstrations and
luck. Everything is written into one folder.
"""

import csv
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.data.generation import OracleConfig, write_oracle_dataset
from sdm.evaluation import paper
from sdm.evaluation.evaluate import evaluate
from sdm.evaluation.tables import Row, result_row, save_gap_figure
from sdm.llm.finetune import finetune
from sdm.llm.recipes import recipe
from sdm.llm.runs import environment
from sdm.storage.files import PLAN, folder_in_progress, write_atomically
from sdm.tasks.families import EnergyFamily

HORIZON = 10
# What the paper has the like of.
PAPER = {
    "random": paper.MDP[HORIZON]["random"],
    "icl:smollm2": f"{paper.MDP[HORIZON]['icl']} (Llama-2-7B)",
    "smollm2 fine-tuned": f"{paper.MDP[HORIZON]['sft']} (Llama-2-7B)",
    "oracle": paper.MDP[HORIZON]["oracle"],
}


@dataclass(frozen=True)
class DemoConfig:
    """How much of everything.

    Attributes:
        tasks: oracle tasks to train on.
        tiny_texts_per_task: training texts of each task for `tiny`.
        smollm2_tasks: tasks for `smollm2`, with one text each.
        test_tasks: unseen tasks.
        test_trajectories: episodes of each.
        seed: of everything.

    """

    tasks: int = 3200
    tiny_texts_per_task: int = 15
    smollm2_tasks: int = 800
    test_tasks: int = 100
    test_trajectories: int = 10
    seed: int = 0


QUICK = DemoConfig(
    tasks=1600,
    tiny_texts_per_task=8,
    smollm2_tasks=128,
    test_tasks=20,
    test_trajectories=3,
)

# A step's name, and how many of how many parts are done.
Progress = Callable[[str, int, int], None]


def run_demo(
    config: DemoConfig, out: Path, *, overwrite: bool, progress: Progress
) -> dict[str, Any]:
    """Run the whole path and write its folder.

    Args:
        config: how much of everything.
        out: the folder; `out.partial` until all is done.
        overwrite: replace `out`, and an unfinished one too.
        progress: called with a step's name and how far it is.

    Returns:
        The evaluation: `policies`, one row a policy in the order of the table, and how
        it was made.

    """
    about = {"demo": dataclasses.asdict(config)}
    with folder_in_progress(out, about, overwrite=overwrite, resumable=False) as folder:
        data = folder / "data"
        write_oracle_dataset(
            OracleConfig(EnergyFamily(), HORIZON, config.tasks, 15, config.seed),
            data,
            progress=lambda done: progress("oracle data", done, config.tasks),
        )
        training = {
            "tiny": {"texts_per_task": config.tiny_texts_per_task},
            "smollm2": {"texts_per_task": 1, "tasks": config.smollm2_tasks},
        }
        reports = {
            base: finetune(
                recipe(str(data), base, seed=config.seed, **options),
                folder / base,
                progress=lambda done, steps, base=base: progress(  # type: ignore[misc]
                    f"fine-tuning {base}", done, steps
                ),
            )
            for base, options in training.items()
        }
        report = {
            "setting": "mdp",
            "horizon": HORIZON,
            **about,
            "environment": environment(),
            "finetune": {base: dataclasses.asdict(r) for base, r in reports.items()},
            "policies": _evaluate(config, folder, progress),
        }
        _write_results(folder, report)
        for run in training:
            for name in ("config.yaml", "README.md", PLAN):
                text = (folder / run / name).read_text(encoding="utf-8")
                named = text.replace(str(data), str(out / "data"))
                write_atomically(folder / run / name, named)
    return report


def _evaluate(config: DemoConfig, folder: Path, progress: Progress) -> dict[str, Row]:
    """Rows of all policies, by the names shown."""
    bed = make_benchmark(
        EvaluationConfig(
            EnergyFamily(),
            HORIZON,
            config.test_tasks,
            config.test_trajectories,
            seed=config.seed,
        )
    )
    names = {
        "random": "random",
        "always-work": "always-work",
        "icl:smollm2": "icl:smollm2",
        "smollm2 fine-tuned": str(folder / "smollm2"),
        "tiny": str(folder / "tiny"),
        "mean-plan": "mean-plan",
        "ce": "ce",
        "oracle": "oracle",
    }
    rows = {}
    for shown, policy in names.items():
        (result,) = evaluate(
            [policy],
            bed,
            progress=lambda _, done, tasks, shown=shown: progress(  # type: ignore[misc]
                f"playing {shown}", done, tasks
            ),
        )
        rows[shown] = result_row(result)
    return rows


def _write_results(folder: Path, report: dict[str, Any]) -> None:
    """The evaluation as JSON and CSV, and the figure of the gaps."""
    rows = report["policies"]
    text = json.dumps(report, indent=2) + "\n"
    write_atomically(folder / "results.json", text)
    columns = ("gap_percent", "ci_low", "ci_high", "exact_gap_percent", "seconds")
    with (folder / "gaps.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["policy", *columns, "paper"])
        for name, row in rows.items():
            writer.writerow(
                [name, *(row[column] for column in columns), PAPER.get(name, "")]
            )
    title = f"Energy MDPs, T = {report['horizon']}, two demonstrations"
    save_gap_figure(rows, title, folder / "gaps")
