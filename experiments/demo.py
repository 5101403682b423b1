"""The demo: oracle data, fine-tuning, and a table of optimality gaps, in one folder.

It trains on energy MDPs at T = 10, `tiny` from scratch and the embedded SmolLM2. All
policies are evaluated on the same unseen tasks, with the same demonstrations and common
random numbers.
"""

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.data.generation import write_oracle_dataset
from sdm.data.request import OracleConfig
from sdm.evaluation.evaluate import evaluate
from sdm.evaluation.paper import paper_column, paper_rows
from sdm.evaluation.tables import Row, result_row, save_gap_figure
from sdm.experiments.demo_steps import DATA, DemoConfig, evaluating, fine_tuning
from sdm.llm.finetune import finetune
from sdm.llm.recipes import recipe
from sdm.storage.files import PLAN, folder_in_progress, partial_folder, write_atomically
from sdm.storage.provenance import provenance
from sdm.tasks.registry import load_family

FAMILY, HORIZON = "energy", 10
FINISHED = "finished-steps"  # folder of results that a resumed demo reads
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


# Name of a step, work done, total work.
Progress = Callable[[str, int, int], None]


def run_demo(
    config: DemoConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress,
) -> dict[str, Any]:
    """Generate the data, train, evaluate, and write the folder.

    Args:
        config: sizes.
        out: the folder; `out.partial` until the demo is complete.
        resume: whether to continue an unfinished demo at the step that it had reached,
            and a training at its checkpoint.
        overwrite: whether to replace `out` and, without `resume`, an unfinished folder.
        progress: callback with the name of a step, the work done and the total work.

    Returns:
        The report: one row per policy in `policies`, in the order of the table, with
        the configuration and the provenance.

    """
    about = {"demo": dataclasses.asdict(config)}
    with folder_in_progress(out, about, resume=resume, overwrite=overwrite) as folder:
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
        shutil.rmtree(folder / FINISHED)
    return report


def _train(config: DemoConfig, folder: Path, progress: Progress) -> dict[str, Any]:
    """Generate the oracle data and fine-tune both base models; return the reports."""
    data = folder / "data"
    if not data.exists():
        progress(DATA, 0, config.tasks)
        write_oracle_dataset(
            OracleConfig(load_family(FAMILY), HORIZON, config.tasks, 15, config.seed),
            data,
            resume=True,
            progress=lambda done: progress(DATA, done, config.tasks),
        )
    training = {
        "tiny": {"texts_per_task": config.tiny_texts_per_task},
        "smollm2": {"texts_per_task": 1, "tasks": config.smollm2_tasks},
    }
    reports = {}
    for base, options in training.items():
        step = fine_tuning(base)
        work = partial(_fine_tune, config, folder, base, options, progress)
        reports[base] = _once(folder, step, work)
    return reports


def _fine_tune(
    config: DemoConfig,
    folder: Path,
    base: str,
    options: Mapping[str, int],
    progress: Progress,
) -> dict[str, Any]:
    """Fine-tune a base, from the checkpoint of an interrupted demo if there is one."""
    out, step = folder / base, fine_tuning(base)
    if not partial_folder(out).exists():
        progress(step, 0, 1)
    report = finetune(
        recipe(str(folder / "data"), base, seed=config.seed, **options),
        out,
        resume=True,
        overwrite=True,  # of a run that was killed before its report was kept
        progress=partial(progress, step),
    )
    return dataclasses.asdict(report)


def _once(folder: Path, step: str, work: Callable[[], dict[str, Any]]) -> Any:
    """Return the result of a step, which is kept for a demo that is resumed."""
    path = folder / FINISHED / f"{step.replace(':', '-').replace(' ', '-')}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    path.parent.mkdir(exist_ok=True)
    result = work()
    write_atomically(path, json.dumps(result) + "\n")
    return result


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
        policy, step = name.replace("{folder}", str(folder)), evaluating(shown)

        def play(policy: str = policy, step: str = step) -> Row:
            progress(step, 0, config.test_tasks)
            (result,) = evaluate(
                [policy],
                bed,
                kept=folder / FINISHED / step.replace(":", "-").replace(" ", "-"),
                progress=lambda _, done, tasks: progress(step, done, tasks),
            )
            return result_row(result, per_task=True)

        rows[shown] = _once(folder, step, play)
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
