"""The report on an estimate, in Markdown."""

from collections.abc import Mapping
from typing import Any

NAMES = {
    "class": "class of the models",
    "states": "states",
    "actions": "actions",
    "observations": "observations",
    "episodes": "episodes",
    "tasks": "tasks, with a model each",
    "horizon": "horizon that the longest episode needs",
    "discount": "discount factor",
    "pairs": "pairs of state and action, in all tasks",
    "unvisited": "unvisited pairs",
    "held_out_log_likelihood": "held-out log likelihood per decision, nats",
}


def report_text(
    report: Mapping[str, Any], plan: Mapping[str, Any], figure: str | None
) -> str:
    """Return the report.

    Args:
        report: the report of `estimate_models`, with `models`.
        plan: how the estimate was made.
        figure: file name of the figure; None for none.

    """
    chosen = ", ".join(
        f"{name} {value}" for name, value in plan["estimator"].items() if name != "name"
    )
    lines = [
        f"# Estimate `{report['estimator']}` from `{plan['logs']['path']}`",
        "",
        f"Options: {chosen or 'none'}; seed {plan['seed']}. `config.json` has all.",
        "",
        "| quantity | value |",
        "|---|---:|",
        *(f"| {text} | {_shown(report[name])} |" for name, text in NAMES.items()),
    ]
    if report["radius"]:
        ends = ", ".join(f"{k} {_shown(v)}" for k, v in report["radius"].items())
        lines.append(f"| radius of visited rows | {ends} |")
    lines += ["", "## Assumptions", "", *(f"- {note}" for note in report["notes"])]
    if report["warnings"]:
        lines += ["", "## Warnings", "", *(f"- {x}" for x in report["warnings"])]
    if "candidates" in report:
        lines += ["", "## Number of hidden states", ""]
        lines += ["| states | held-out log likelihood | training |", "|---:|---:|---:|"]
        lines += [
            f"| {row['states']} | {_shown(row['held_out'])} | {_shown(row['train'])} |"
            for row in report["candidates"]
        ]
    if figure is not None:
        lines += ["", f"![Visits, radii and returns]({figure})"]
    lines += ["", "## Models", ""]
    for task, file in report["models"].items():
        lines.append(
            f"- task `{task}`: `sdm solve --model {file} --horizon {report['horizon']}`"
        )
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
