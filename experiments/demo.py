"""The demo: oracle data, fine-tuning, and a table of optimality gaps, in one folder.

It trains on energy MDPs at T = 10, `tiny` from scratch and the embedded SmolLM2. All
policies are evaluated on the same unseen tasks, with the same demonstrations and common
random numbers.
"""

import csv
import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.data.generation import write_oracle_dataset
from sdm.data.request import OracleConfig
from sdm.evaluation.evaluate import evaluate
from sdm.evaluation.paper import paper_column, paper_rows
from sdm.evaluation.tables import Row, result_row, save_gap_figure
from sdm.llm.finetune import finetune
from sdm.llm.recipes import recipe
from sdm.storage.files import PLAN, folder_in_progress, write_atomically
from sdm.storage.provenance import provenance
from sdm.tasks.registry import load_family

FAMILY, HORIZON = "energy", 10
# For each displayed name: the policy of `sdm eval`, and the paper's counterpart.
POLICIES = {
    "random": ("random", "random"),
    "always-work": ("always-work", ""),
    "icl:smollm2": ("icl:smollm2", "icl"),
    "smollm2 fine-tuned": ("{folder}/smollm2", "sft"),
    "tiny": ("{folder}/tiny", ""),
    "mean-plan": ("mean-plan", ""),
    "ce": ("ce", ""),
    "oracle": ("oracle", "oracle"),
}
BY_LLAMA = ("icl", "sft")  # the paper's policies that use Llama-2-7B


@dataclass(frozen=True)
class DemoConfig:
    """Sizes of the demo.

    Attributes:
        tasks: number of training tasks.
        tiny_texts_per_task: training texts per task for `tiny`.
        smollm2_tasks: number of training tasks for `smollm2`, with one text each.
        test_tasks: number of unseen test tasks.
        test_trajectories: episodes per test task.
        seed: random seed.

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

# Name of a step, work done, total work.
Progress = Callable[[str, int, int], None]


def run_demo(
    config: DemoConfig, out: Path, *, overwrite: bool, progress: Progress
) -> dict[str, Any]:
    """Generate the data, train, evaluate, and write the folder.

    Args:
        config: sizes.
        out: the folder; `out.partial` until the demo is complete.
        overwrite: whether to replace `out` and an unfinished folder.
        progress: callback with the name of a step, the work done and the total work.

    Returns:
        The report: one row per policy in `policies`, in the order of the table, with
        the configuration and the provenance.

    """
    about = {"demo": dataclasses.asdict(config)}
    with folder_in_progress(out, about, overwrite=overwrite, resumable=False) as folder:
        reports = _train(config, folder, progress)
        report = {
            "family": FAMILY,
            "setting": "mdp",
            "horizon": HORIZON,
            **about,
            "environment": provenance(by_torch=True),
            "finetune": reports,
            "policies": _evaluate(config, folder, progress),
        }
        _write_results(config, folder, report)
        _rename_data(folder, out)
    return report


def _train(config: DemoConfig, folder: Path, progress: Progress) -> dict[str, Any]:
    """Generate the oracle data and fine-tune both base models; return the reports."""
    data = folder / "data"
    write_oracle_dataset(
        OracleConfig(load_family(FAMILY), HORIZON, config.tasks, 15, config.seed),
        data,
        progress=lambda done: progress("oracle data", done, config.tasks),
    )
    training = {
        "tiny": {"texts_per_task": config.tiny_texts_per_task},
        "smollm2": {"texts_per_task": 1, "tasks": config.smollm2_tasks},
    }
    reports = {}
    for base, options in training.items():
        report = finetune(
            recipe(str(data), base, seed=config.seed, **options),
            folder / base,
            progress=partial(progress, f"fine-tuning {base}"),
        )
        reports[base] = dataclasses.asdict(report)
    return reports


def _test(config: DemoConfig) -> EvaluationConfig:
    return EvaluationConfig(
        load_family(FAMILY),
        HORIZON,
        config.test_tasks,
        config.test_trajectories,
        seed=config.seed,
    )


def _evaluate(config: DemoConfig, folder: Path, progress: Progress) -> dict[str, Row]:
    """Return the rows of all policies by displayed name."""
    bed, rows = make_benchmark(_test(config)), {}
    for shown, (name, _) in POLICIES.items():
        policy = name.replace("{folder}", str(folder))

        def step(_: str, done: int, tasks: int, shown: str = shown) -> None:
            progress(f"evaluating {shown}", done, tasks)

        (result,) = evaluate([policy], bed, progress=step)
        rows[shown] = result_row(result)
    return rows


def paper_values(config: DemoConfig) -> Mapping[str, str]:
    """Return the paper's gaps, with the model behind them, by displayed name."""
    rows = {
        name: f"{gap} (Llama-2-7B)" if name in BY_LLAMA else gap
        for name, gap in paper_rows(_test(config)).items()
    }
    return paper_column(rows, {shown: like for shown, (_, like) in POLICIES.items()})


def _write_results(config: DemoConfig, folder: Path, report: dict[str, Any]) -> None:
    """Write the evaluation as JSON and CSV, and the figure of the gaps."""
    rows, paper = report["policies"], paper_values(config)
    text = json.dumps(report, indent=2) + "\n"
    write_atomically(folder / "results.json", text)
    columns = ("gap_percent", "ci_low", "ci_high", "exact_gap_percent", "seconds")
    with (folder / "gaps.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["policy", *columns, "paper"])
        for name, row in rows.items():
            values = (row[column] for column in columns)
            writer.writerow([name, *values, paper.get(name, "")])
    title = f"Energy MDPs, T = {HORIZON}, two demonstrations"
    save_gap_figure(rows, title, folder / "gaps")


def _rename_data(folder: Path, out: Path) -> None:
    """Replace the partial folder's path of the data by the final one."""
    for base in ("tiny", "smollm2"):
        for name in ("config.yaml", "README.md", PLAN):
            text = (folder / base / name).read_text(encoding="utf-8")
            named = text.replace(str(folder / "data"), str(out / "data"))
            write_atomically(folder / base / name, named)
