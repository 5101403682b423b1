"""Comparison of fine-tuning recipes that differ in one option each.

Every cell trains one base on the same oracle dataset and measures its optimality gap in
the same unseen tasks. A cell is a row of `experiments/published/recipes/rows.jsonl`,
with the configuration that reproduces it; cells that have a row are skipped. `python
benchmarks/recipes.py --report` prints the rows as a Markdown table.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax

from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.data.generation import write_oracle_dataset
from sdm.data.request import OracleConfig
from sdm.evaluation.evaluate import evaluate
from sdm.evaluation.tables import result_row
from sdm.llm.finetune import finetune
from sdm.llm.recipes import recipe
from sdm.solvers_jax import EnergyFamily
from sdm.storage.provenance import provenance

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "experiments" / "published" / "recipes" / "rows.jsonl"
# Options of all cells of a base; `CELLS` overrides them. All cells have as many texts.
COMMON: dict[str, dict[str, Any]] = {
    "tiny": {"batch_size": 16, "learning_rate": 2e-3, "loss": "all"},
    "smollm2": {"batch_size": 8, "learning_rate": 1e-3, "loss": "actions"},
}
FEW_TEXTS = "5 texts each of three times the tasks"
CELLS: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": {
        "batch 16, learning rate 2e-3, loss on all tokens": {},
        "batch 16, learning rate 1e-3": {"learning_rate": 1e-3},
        "batch 16, learning rate 4e-3": {"learning_rate": 4e-3},
        "batch 16, loss on actions only": {"loss": "actions"},
        "batch 8": {"batch_size": 8},
        "batch 32": {"batch_size": 32},
        "batch 64": {"batch_size": 64},
        "batch 64, learning rate 1e-3": {"batch_size": 64, "learning_rate": 1e-3},
        "batch 64, learning rate 4e-3": {"batch_size": 64, "learning_rate": 4e-3},
        "batch 64, loss on actions only": {"batch_size": 64, "loss": "actions"},
        f"batch 64, {FEW_TEXTS}": {"batch_size": 64, "texts_per_task": 5},
        "paper's schema": {"schema": "paper"},
    },
    "smollm2": {
        "batch 8, learning rate 1e-3, loss on actions, rank 16": {},
        "learning rate 5e-4": {"learning_rate": 5e-4},
        "learning rate 2e-3": {"learning_rate": 2e-3},
        "batch 4": {"batch_size": 4},
        "batch 16": {"batch_size": 16},
        "loss on all tokens": {"loss": "all"},
        "rank 4": {"lora_rank": 4, "lora_alpha": 8},
        "rank 64": {"lora_rank": 64, "lora_alpha": 128},
        FEW_TEXTS: {"texts_per_task": 5},
        "paper's schema": {"schema": "paper"},
    },
}


def main() -> None:
    """Run the missing cells, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", choices=sorted(CELLS), default="tiny")
    parser.add_argument("--cell", action="append", help="Cell to run; repeatable.")
    parser.add_argument(
        "--horizon", type=int, default=10, help="Decisions per episode."
    )
    parser.add_argument("--texts", type=int, default=24_000, help="Training texts.")
    parser.add_argument("--per-task", type=int, default=15, help="Texts per task.")
    parser.add_argument("--test-tasks", type=int, default=100, help="Test tasks.")
    parser.add_argument("--work", type=Path, default=Path("recipes"), help="Folder.")
    parser.add_argument("--report", action="store_true", help="Print the table.")
    options = parser.parse_args()
    if options.report:
        print(report())
        return
    jax.config.update("jax_enable_x64", True)
    for name in options.cell or CELLS[options.base]:
        run(options, name)


def run(options: argparse.Namespace, name: str) -> None:
    """Train and evaluate one cell, unless it has a row."""
    changes = CELLS[options.base][name]
    per_task = changes.get("texts_per_task", options.per_task)
    cell = {
        "base": options.base,
        "cell": name,
        "horizon": options.horizon,
        "texts": options.texts,
        "texts_per_task": per_task,
        "test_tasks": options.test_tasks,
    }
    rows = read()
    if any(cell.items() <= row.items() for row in rows):
        return
    tasks = options.texts // per_task
    data = options.work / f"data-{options.horizon}-{tasks}"
    if not data.is_dir():
        made = OracleConfig(EnergyFamily(), options.horizon, tasks, 15)
        write_oracle_dataset(made, data, overwrite=True)
    config = recipe(
        str(data),
        options.base,
        **{**COMMON[options.base], "texts_per_task": per_task, **changes},
    )
    out = options.work / f"{options.base}-{len(rows)}"
    trained = finetune(config, out, overwrite=True)
    bed = make_benchmark(
        EvaluationConfig(EnergyFamily(), options.horizon, options.test_tasks, seed=1)
    )
    (result,) = evaluate([str(out)], bed)
    row = {
        **cell,
        "training_seconds": trained.seconds,
        "tokens_per_second": trained.tokens_per_second,
        "eval_loss": trained.eval_loss,
        **{k: x for k, x in result_row(result).items() if k != "seconds"},
        "evaluation_seconds": result.seconds,
        "finetune": {**dataclasses.asdict(config), "data": "the dataset above"},
        "environment": provenance(by_torch=True),
    }
    with ROWS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(f"{options.base}, {name}: {row['gap_percent']:.2f} %", flush=True)


def read() -> list[dict[str, Any]]:
    """Return the rows of all cells that were run."""
    if not ROWS.exists():
        return []
    return [json.loads(line) for line in ROWS.read_text("utf-8").splitlines()]


def report() -> str:
    """Return a table, sorted by gap within a base, horizon and number of texts."""
    lines = [
        "| base | T | texts | changed | gap, % | 95 % interval | seconds | tokens/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(
        read(),
        key=lambda r: (r["base"], r["horizon"], r["texts"], r["gap_percent"]),
    ):
        interval = f"{row['ci_low']:.2f} … {row['ci_high']:.2f}"
        lines.append(
            f"| {row['base']} | {row['horizon']} | {row['texts']} | {row['cell']} | "
            f"{row['gap_percent']:.2f} | {interval} | {row['training_seconds']:.0f} | "
            f"{row['tokens_per_second']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
