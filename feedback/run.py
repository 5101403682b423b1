"""Run a study of judges over seeds, and report it."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sdm.data.benchmark import make_benchmark
from sdm.evaluation.evaluate import check_policy, evaluate
from sdm.feedback.cells import Cell, half_width, mean_of, run_cells, seeds_text
from sdm.feedback.config import FeedbackConfig, benchmark_of
from sdm.feedback.judge import Judge
from sdm.feedback.study import run_cell
from sdm.storage.checks import check_count

# Measurements of a cell whose mean over seeds is reported, and those that add up.
MEASURES = (
    *("judge_accuracy", "accuracy", "log_loss", "calibration_error"),
    *("rank_correlation", "ties", "separable", "converged"),
)
TOTALS = ("asked", "outside")
KEYS = ("use", "weight", "lookahead")
EPISODES = 10  # of a policy in each task


def run_feedback(
    judges: Sequence[Judge],
    config: FeedbackConfig,
    *,
    seeds: Sequence[int],
    policies: Sequence[str] = (),
    out: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> dict[str, Any]:
    """Run every judge with every seed, and return the report.

    Args:
        judges: the judges.
        config: the study.
        seeds: random seeds of tasks, comparisons and answers.
        policies: names of policies that act in the same tasks, as in `sdm eval`.
        out: folder to write; None to write nothing.
        resume: continue an unfinished run.
        overwrite: replace `out`.
        progress: called with the name of a step, tasks done and all tasks.

    Raises:
        ValueError: if a seed is invalid, or two judges have one name.
        DegeneratePreferences: if no task has preferences that determine a reward.
        JudgeError: if a judge answers outside of its choices.
        StorageError: if `out` cannot be written.

    """
    names = [judge.name for judge in judges]
    if len(set(names)) < len(names):
        raise ValueError(f"judges: must differ, found {', '.join(names)}")
    for seed in seeds:
        check_count("seed", seed, 0, 2**32 - 1)

    cells: dict[str, Cell] = {
        f"{i}-{seed}": partial(
            run_cell,
            judge,
            config,
            seed,
            progress=partial(progress, f"judge {judge.name}, seed {seed}"),
        )
        for i, judge in enumerate(judges)
        for seed in seeds
    }
    for i, policy in enumerate(policies):
        check_policy(policy, benchmark_of(config, seeds[0]))
        for seed in seeds:
            step = partial(progress, f"policy {policy}, seed {seed}")
            cells[f"policy-{i}-{seed}"] = partial(
                policy_cell, policy, config, seed, progress=step
            )
    return run_cells(
        cells,
        partial(report_of, config),
        card,
        {
            "feedback": config.describe(),
            "judges": names,
            "policies": list(policies),
            "seeds": list(seeds),
        },
        out,
        resume=resume,
        overwrite=overwrite,
    )


def report_of(
    config: FeedbackConfig, cells: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return means over seeds, with intervals.

    The measurements of the first judge, and its gap by weight in the first use without
    a limited lookahead, are also at the top.
    """
    judges: dict[str, Any] = {}
    judged = [cell for cell in cells if "judge" in cell]
    for name in dict.fromkeys(cell["judge"] for cell in judged):
        mine = [cell for cell in judged if cell["judge"] == name]
        rows = zip(*(cell["rows"] for cell in mine), strict=True)
        judges[name] = {
            "seeds": len(mine),
            **{each: mean_of([cell.get(each) for cell in mine]) for each in MEASURES},
            **{total: sum(cell[total] for cell in mine) for total in TOTALS},
            "unusable": sum(len(cell["unusable"]) for cell in mine),
            "gaps": [_over_seeds(each) for each in rows],
        }
    first = next(iter(judges.values()))
    return {
        "family": config.family.name,
        "horizon": config.horizon,
        "tasks": config.tasks,
        **{name: first[name] for name in MEASURES},
        "gap_by_weight": {
            f"{row['use']} {row['weight']:g}": row["gap_percent"]
            for row in first["gaps"]
            if row["lookahead"] == config.lookaheads[0]
        },
        "judges": judges,
        "policies": {
            name: _over_seeds([c for c in cells if c.get("policy") == name])
            for name in dict.fromkeys(c["policy"] for c in cells if "policy" in c)
        },
    }


def policy_cell(
    name: str,
    config: FeedbackConfig,
    seed: int,
    folder: Path | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Return the gap of a policy that acts in the tasks of a seed.

    It sees as many demonstrations as the judges. A language model as a policy does not
    know the transitions, which a planner with a learned reward does.

    Args:
        name: name of the policy.
        config: the study.
        seed: random seed of tasks, demonstrations and episodes.
        folder: folder that stores episodes for a resumed run; None to store nothing.
        progress: called with the number of tasks done and of all tasks.

    """
    bed = make_benchmark(benchmark_of(config, seed, EPISODES))
    (found,) = evaluate(
        [name],
        bed,
        kept=None if folder is None else folder / "episodes",
        progress=lambda step, done, total: progress(done, total),
    )
    gap = found.exact_gap or found.gap
    return {
        **dict.fromkeys(KEYS),
        "policy": name,
        "seed": seed,
        "gap_percent": 100 * gap.mean,
        "ci_low": 100 * gap.low if config.tasks > 1 else None,
        "ci_high": 100 * gap.high if config.tasks > 1 else None,
    }


def _over_seeds(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of one gap over seeds with its 95 % interval.

    The interval is the wider of Student's t over the means of the seeds, and that of
    the mean over the tasks of all seeds.
    """
    means = [row["gap_percent"] for row in rows]
    mean = float(np.mean(means))
    low: float | None = None
    high: float | None = None
    if all(row["ci_low"] is not None for row in rows):
        ends = (row["ci_high"] - row["gap_percent"] for row in rows)
        half = max(math.hypot(*ends) / len(rows), half_width(means) or 0.0)
        low, high = mean - half, mean + half
    return {
        **{key: rows[0][key] for key in KEYS},
        "gap_percent": mean,
        "ci_low": low,
        "ci_high": high,
        "seeds": means,
    }


def card(report: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    judges = report["judges"]
    seeds = next(iter(judges.values()))["seeds"]
    lines = [
        f"# Feedback of {len(judges)} judges in tasks of `{report['family']}`",
        "",
        f"{report['tasks']} tasks of {report['horizon']} decisions, "
        f"{seeds_text(seeds)}. Made by `sdm feedback`; `config.json` has the options.",
        "",
        "| judge | correct, % | held-out accuracy, % | rank correlation with V* |",
        "|---|---|---|---|",
    ]
    for name, found in judges.items():
        cells = (
            _shown(found["judge_accuracy"], 100.0),
            _shown(found["accuracy"], 100.0),
            _shown(found["rank_correlation"], digits=3),
        )
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    lines += [
        "",
        "| judge | use | weight | lookahead | gap, % | 95 % interval |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in judges.items():
        for row in found["gaps"]:
            ends = f"{_shown(row['ci_low'])}, {_shown(row['ci_high'])}"
            lines.append(
                f"| `{name}` | {row['use']} | {row['weight']:g} | "
                f"{row['lookahead'] or 'all'} | {_shown(row['gap_percent'])} | {ends} |"
            )
    if report["policies"]:
        head = "| policy in the same tasks | gap, % | 95 % interval |"
        lines += ["", head, "|---|---|---|"]
    for name, row in report["policies"].items():
        ends = f"{_shown(row['ci_low'])}, {_shown(row['ci_high'])}"
        lines.append(f"| `{name}` | {_shown(row['gap_percent'])} | {ends} |")
    return "\n".join(lines) + "\n"


def _shown(value: float | None, factor: float = 1.0, digits: int = 2) -> str:
    # Adding zero turns -0.0 to 0.0.
    return "" if value is None else f"{round(factor * value, digits) + 0.0:.{digits}f}"
