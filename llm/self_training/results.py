"""Results of the iterations of self-training, as rows of JSON values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from sdm.evaluation.result import PolicyResult
from sdm.evaluation.tables import result_row
from sdm.llm.self_training.config import SelfTrainConfig
from sdm.storage.provenance import provenance

Row = dict[str, Any]
GAP = ("gap_percent", "ci_low", "ci_high")


def tested_row(result: PolicyResult, greedy: PolicyResult) -> Row:
    """Return the results of a policy in the test.

    Args:
        result: results at the temperature of the test.
        greedy: results with the most probable actions.

    Returns:
        The entries of `result`, and the gap of `greedy` under other names.
    `regret` is the mean lost return in units of reward, with a 95 % interval over
    tasks in `ci`; both are None for ambiguous tasks. `exponent` and `exponent_ci` are
    those of the regret's growth, None in families that do not measure it.

    """
    row, best = result_row(result), result_row(greedy)
    row.pop("lost_by_state", None)
    regret: float | None = None
    ends: list[float | None] = [None, None]
    if result.regrets is not None:
        regret, ends = mean_with_interval(result.regrets)
    names = ("regret_exponent_low", "regret_exponent_high")
    return {
        **row,
        "regret": regret,
        "ci": ends,
        "exponent": row.get("regret_exponent"),
        "exponent_ci": [row.get(name) for name in names],
        **{f"greedy_{name}": best[name] for name in GAP},
        "seconds": result.seconds + greedy.seconds,
    }


def mean_with_interval(
    values: np.ndarray,
) -> tuple[float, list[float | None]]:
    """Return a mean over replicates and its 95 % interval (Student's t)."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, [None, None]
    half = float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))
    return mean, [mean - half, mean + half]


def iteration_row(
    iteration: int,
    tested: Mapping[str, Any],
    selection: Mapping[str, Any],
    training: Mapping[str, Any] | None,
) -> Row:
    """Return the results of an iteration; 0 is the start.

    Args:
        iteration: number of the iteration.
        tested: results of the test.
        selection: what the dataset records of its selection; empty if there is none.
        training: report of the training; None if nothing was trained.

    """
    played = {k: x for k, x in selection.items() if k not in ("iteration", "seconds")}
    trained = training or {}
    return {
        "iteration": iteration,
        **tested,
        "selection": played,
        "train_loss": trained.get("train_loss"),
        "eval_loss": trained.get("eval_loss"),
        "seconds": {
            "play": selection.get("seconds", 0.0),
            "train": trained.get("seconds", 0.0),
            "test": tested["seconds"],
        },
    }


def report_of(
    config: SelfTrainConfig, rows: Sequence[Row], reference: Row | None
) -> Row:
    """Return the report of all iterations.

    With a reference, `closed_percent` of an iteration is the share of the distance in
    gap between the start and the reference that it has closed.
    """
    start = rows[0]["gap_percent"]
    found = []
    for row in rows:
        closed = None
        if reference is not None and start != reference["gap_percent"]:
            distance = start - reference["gap_percent"]
            closed = 100 * (start - row["gap_percent"]) / distance
        found.append({**row, "closed_percent": closed})
    return {
        "family": config.family.name,
        "setting": config.kind,
        "horizon": config.horizon,
        "config": config.describe(),
        "iterations": found,
        "reference": reference,
        "seconds": math.fsum(sum(row["seconds"].values()) for row in rows),
        "environment": provenance(by_torch=True),
    }
