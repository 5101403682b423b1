"""Run a study of judges over seeds, and write its folder.

config.json    how it was made
rows.jsonl     one result per judge and seed
report.json    means over seeds with intervals
env.json       versions, commit and device
README.md      a table of the results
"""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from sdm.feedback.judge import Judge
from sdm.feedback.study import FeedbackConfig, run_cell
from sdm.storage.checks import check_count
from sdm.storage.files import folder_in_progress, write_atomically
from sdm.storage.provenance import provenance

CELLS = "cells"
# Measurements of a cell whose mean over seeds is reported, and those that add up.
MEASURES = (
    *("judge_accuracy", "accuracy", "log_loss", "calibration_error"),
    *("rank_correlation", "ties", "separable", "converged"),
)
TOTALS = ("asked", "outside")
KEYS = ("use", "weight", "lookahead")


def run_feedback(
    judges: Sequence[Judge],
    config: FeedbackConfig,
    *,
    seeds: Sequence[int],
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

    def cells(folder: Path | None) -> list[dict[str, Any]]:
        return [
            run_cell(
                judge,
                config,
                seed=seed,
                folder=None if folder is None else folder / CELLS / f"{i}-{seed}",
                progress=partial(progress, f"judge {judge.name}, seed {seed}"),
            )
            for i, judge in enumerate(judges)
            for seed in seeds
        ]

    if out is None:
        return report_of(cells(None), config)
    plan = {"feedback": config.describe(), "judges": names, "seeds": list(seeds)}
    with folder_in_progress(out, plan, resume=resume, overwrite=overwrite) as folder:
        found = cells(folder)
        report = report_of(found, config)
        _write(folder, plan, found, report)
    shutil.rmtree(out / CELLS)
    return report


def _write(
    folder: Path,
    plan: dict[str, Any],
    found: list[dict[str, Any]],
    report: dict[str, Any],
) -> None:
    """Write the results of a study into its folder."""
    rows = "".join(json.dumps(cell) + "\n" for cell in found)
    made = json.dumps(provenance(by_torch=False), indent=2) + "\n"
    for name, text in (
        ("config.json", json.dumps(plan, indent=2) + "\n"),
        ("rows.jsonl", rows),
        ("report.json", json.dumps(report, indent=2) + "\n"),
        ("env.json", made),
        ("README.md", card(report)),
    ):
        write_atomically(folder / name, text)


def report_of(
    cells: Sequence[dict[str, Any]], config: FeedbackConfig
) -> dict[str, Any]:
    """Return means over seeds, with intervals.

    The measurements of the first judge, and its gap by weight in the first use without
    a limited lookahead, are also at the top.
    """
    judges: dict[str, Any] = {}
    for name in dict.fromkeys(cell["judge"] for cell in cells):
        mine = [cell for cell in cells if cell["judge"] == name]
        rows = zip(*(cell["rows"] for cell in mine), strict=True)
        judges[name] = {
            "seeds": len(mine),
            **{each: _mean([cell.get(each) for cell in mine]) for each in MEASURES},
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
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _over_seeds(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of one gap over seeds with its 95 % interval.

    The interval is the wider of Student's t over the means of the seeds, and that of
    the mean over the tasks of all seeds.
    """
    means = np.array([row["gap_percent"] for row in rows])
    low: float | None = None
    high: float | None = None
    if all(row["ci_low"] is not None for row in rows):
        half = np.sqrt(sum((row["ci_high"] - row["gap_percent"]) ** 2 for row in rows))
        half = float(half) / len(rows)
        if len(rows) > 1:
            free = len(rows) - 1
            spread = float(stats.sem(means) * stats.t.ppf(0.975, free))
            half = max(half, spread)
        low, high = float(means.mean()) - half, float(means.mean()) + half
    return {
        **{key: rows[0][key] for key in KEYS},
        "gap_percent": float(means.mean()),
        "ci_low": low,
        "ci_high": high,
        "seeds": means.tolist(),
    }


def card(report: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    judges = report["judges"]
    seeds = next(iter(judges.values()))["seeds"]
    lines = [
        f"# Feedback of {len(judges)} judges in tasks of `{report['family']}`",
        "",
        f"{report['tasks']} tasks of {report['horizon']} decisions, {seeds} seed"
        + "s" * (seeds > 1)
        + ". Made by `sdm feedback`; `config.json` has the options.",
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
    return "\n".join(lines) + "\n"


def _shown(value: float | None, factor: float = 1.0, digits: int = 2) -> str:
    return "" if value is None else f"{factor * value + 0.0:.{digits}f}"
