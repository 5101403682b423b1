"""Plan on logs, and write the policy to a folder with its bounds.

policy.npz     probabilities [T, S, A] with names, which `sdm ope --policy` reads
config.json    how it was made
results.json   the report
README.md      the report in words
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sdm.data.estimation.files import digest_of
from sdm.data.logs import NOTHING, Logs
from sdm.data.off_policy.policies.table_files import POLICY
from sdm.data.planning.bounds import Bounds, cross_fitted_bounds
from sdm.data.planning.config import PlanningConfig
from sdm.data.planning.evidence import Evidence, evidence_of
from sdm.data.planning.planner import LogPlan, Planner
from sdm.storage.files import folder_in_progress, write_atomically
from sdm.storage.provenance import provenance

RARELY = 0.05  # agreement of a plan with logged episodes that says little of it
OFTEN = 0.1  # share of a plan's episodes with actions that held-out episodes lack
SELDOM, SHARE = 100, 0.05  # decisions with an action, and share of them that matters
UNHEARD = 3  # in n episodes, of what has happened to nobody: e^-3 is 5 %


def plan_from_logs(
    logs: Logs, planner: Planner, config: PlanningConfig, *, seed: int
) -> tuple[LogPlan, dict[str, Any]]:
    """Return a plan, and a report as values that JSON can represent.

    Args:
        logs: the episodes; all tasks count as one.
        planner: makes the plan.
        config: options.
        seed: random seed of folds and draws.

    Raises:
        LogsError: if the logs do not suffice.

    """
    horizon = logs.horizon if config.horizon is None else config.horizon
    evidence = evidence_of(logs, discount=config.discount)
    made = planner.plan(evidence, horizon=horizon, seed=seed)
    bounds = cross_fitted_bounds(
        logs,
        planner,
        horizon=horizon,
        discount=config.discount,
        folds=config.folds,
        confidence=config.confidence,
        worst=config.worst,
        seed=seed,
    )
    decided = evidence.visits.sum(1) > 0
    support = (made.probabilities * evidence.visits)[:, decided].sum(-1)
    report = {
        "planner": planner.name,
        "episodes": logs.episodes,
        "observations": len(logs.observations),
        "actions": len(logs.actions),
        "horizon": horizon,
        "claimed": made.value,
        **asdict(bounds),
        "confidence": config.confidence,
        "least_visits": float(support.min()),
        "warnings": [
            *_warnings(made, bounds, logs),
            *_of_rare(made, evidence, bounds, stated=config.worst is not None),
        ],
    }
    return made, report


def _warnings(made: LogPlan, bounds: Bounds, logs: Logs) -> list[str]:
    """Return what a reader must know of the results."""
    found = []
    if bounds.cut:
        found.append(
            f"{bounds.cut} of {logs.episodes} episodes were cut off before decision "
            f"{len(made.probabilities)}: `behavior` is the value of the logged "
            "frequencies in the model of all episodes, and `lower_confounded` counts "
            "those that were cut off as the worst return"
        )
    if len(np.unique(logs.action[logs.action != NOTHING])) == 1:
        found.append("the logs have one action only, and say nothing of others")
    if np.ptp(logs.reward.sum(1)) == 0:
        found.append(
            "all episodes have the same return: intervals without width do not mean "
            "that others are impossible; state the smallest with `--worst`"
        )
    if made.value > bounds.estimate + 2 * bounds.error:
        found.append(
            f"the planner claims {made.value:.4g}, other episodes say "
            f"{bounds.estimate:.4g}: the claim is too high"
        )
    if bounds.unseen >= OFTEN:
        found.append(
            f"{bounds.unseen:.0%} of the plan's episodes have an action that the "
            "episodes of its estimate lack after that observation: `estimate` and "
            "`lower` take the average of the observation's actions, which is too high "
            "if those who acted chose well; `lower_observed` takes the worst return"
        )
    if bounds.lower < bounds.behavior or np.isclose(bounds.lower, bounds.behavior):
        found.append(
            f"the lower bound {bounds.lower:.4g} is not above the value of the logged "
            f"policy, {bounds.behavior:.4g}: an improvement is not shown"
        )
    if bounds.agreement < RARELY:
        found.append(
            f"the plan takes all actions of {bounds.agreement:.1%} of the logged "
            "episodes: its value rests on combining parts of different episodes, which "
            "is wrong if states are hidden"
        )
    if len(logs.tasks) > 1:
        found.append(
            f"the plan is one for all {len(logs.tasks)} tasks of the logs, and all "
            "bounds but `lower_confounded` count them as one: if tasks differ in what "
            "was done and in how it ends, they can be too high; keep the rows of one "
            "task for a plan of its own"
        )
    return found


def _of_rare(
    made: LogPlan, evidence: Evidence, bounds: Bounds, *, stated: bool
) -> list[str]:
    """Return what a reader must know of actions and returns that are rare or missing.

    The share of decisions is that of the logged ones, in which the plan would take an
    action that was taken seldom after the same observation.
    """
    found, visits = [], evidence.visits
    rare = (visits > 0) & (visits < SELDOM)
    taken = (made.probabilities * rare).sum(-1).mean(0)
    share = float((visits.sum(-1) * taken).sum() / visits.sum())
    if share >= SHARE:
        found.append(
            f"in {share:.0%} of the logged decisions, the plan takes an action with "
            f"fewer than {SELDOM} decisions after that observation: what these did not "
            "have counts as impossible, so that `estimate`, `lower` and "
            "`lower_observed` may be too high"
        )
    if not stated:
        found.append(
            f"returns below {bounds.worst:.4g} are not in the logs, and count as "
            f"impossible: what happens in one of {evidence.episodes / UNHEARD:.0f} "
            "episodes may be missing; state the worst possible return with `--worst`"
        )
    return found


def write_plan(
    out: Path,
    source: Path,
    logs: Logs,
    planner: Planner,
    config: PlanningConfig,
    *,
    seed: int,
    overwrite: bool,
) -> dict[str, Any]:
    """Plan, write the folder, and return the report.

    Args:
        out: the folder to write.
        source: file or folder of the logs.
        logs: the episodes.
        planner: makes the plan.
        config: options.
        seed: random seed.
        overwrite: whether to replace `out`.

    Raises:
        StorageError: if the folder exists or cannot be written.

    """
    plan = {
        "command": "plan",
        "logs": {"path": str(source), "sha256": digest_of(source)},
        "planner": {"name": planner.name, **asdict(planner)},  # type: ignore[call-overload]
        "config": asdict(config),
        "seed": seed,
    }
    with folder_in_progress(
        out, plan, inputs=(source,), overwrite=overwrite, resumable=False
    ) as folder:
        made, report = plan_from_logs(logs, planner, config, seed=seed)
        np.savez_compressed(
            folder / POLICY,
            probabilities=made.probabilities,
            observations=np.array(logs.observations),
            actions=np.array(logs.actions),
        )
        kept = {**plan, "provenance": provenance(by_torch=False)}
        for name, text in (
            ("config.json", json.dumps(kept, indent=2) + "\n"),
            ("results.json", json.dumps(report, indent=2) + "\n"),
            ("README.md", _card(report)),
        ):
            write_atomically(folder / name, text)
    return report


def _card(report: dict[str, Any]) -> str:
    """Return the report in words."""
    percent = f"{100 * report['confidence']:g} %"
    lines = [
        f"# Plan `{report['planner']}` from {report['episodes']} logged episodes",
        "",
        f"`{POLICY}` has the probabilities of {report['actions']} actions after each "
        f"of {report['observations']} observations, for {report['horizon']} decisions.",
        "",
        "| value | |",
        "|---|---:|",
        f"| claimed by the planner | {report['claimed']:.4g} |",
        f"| estimated from other episodes | {report['estimate']:.4g} |",
        f"| lower bound ({percent}), if observations are states, and missing actions "
        f"average | {report['lower']:.4g} |",
        f"| the same with missing actions of the worst return | "
        f"{report['lower_observed']:.4g} |",
        f"| lower bound ({percent}), whatever is hidden | "
        f"{report['lower_confounded']:.4g} |",
        f"| logged policy | {report['behavior']:.4g} |",
        "",
        "This is not a medical device. The bounds assume that future episodes are like "
        "the logged ones.",
        *(f"\n**Warning:** {text}." for text in report["warnings"]),
        "",
    ]
    return "\n".join(lines)
