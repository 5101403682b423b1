"""Exploration with the bonuses of several judges, over seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sdm.data.request import OracleConfig, family_header
from sdm.data.solved_tasks import sample_tasks
from sdm.feedback.cells import interval, run_cells, seeds_text
from sdm.feedback.judge import Judge
from sdm.feedback.judges.synthetic import SyntheticJudge
from sdm.feedback.novelty import explore, measures
from sdm.feedback.subjects import captions_of
from sdm.storage.checks import check_count, check_finite, check_positive
from sdm.tasks.family import TaskFamily
from sdm.tasks.models import MDP, check_horizon

NO_BONUS = "none"
NAMES = ("found_percent", "steps_mean", "return_mean", "states_mean")
RATES = ("hits", "false_alarms")


@dataclass(frozen=True)
class NoveltyConfig:
    """Configuration of a study of exploration.

    Attributes:
        family: family of the tasks.
        horizon: decisions per episode.
        tasks: number of unseen tasks.
        bonus: bonus of a new state, in units of reward.

    """

    family: TaskFamily
    horizon: int
    tasks: int
    bonus: float

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        check_horizon(self.horizon)
        check_count("tasks", self.tasks, 1)
        check_finite("bonus", self.bonus)
        check_positive("bonus", self.bonus)
        if "mdp" not in self.family.kinds:
            raise ValueError(
                f"family `{self.family.name}`: agents must observe their states, found "
                f"the kinds {', '.join(sorted(self.family.kinds))}"
            )
        if self.family.spaces.states < 2:
            raise ValueError(
                f"family `{self.family.name}`: has one state, so that nothing is new"
            )


def novelty_cell(
    judge: Judge | None, config: NoveltyConfig, seed: int, folder: Path | None
) -> dict[str, Any]:
    """Return the result of one judge and seed; without a judge, of no bonus."""
    drawn = OracleConfig(config.family, config.horizon, config.tasks, 1, seed)
    mdp = sample_tasks(0, config=drawn, size=config.tasks, split="test").world
    assert isinstance(mdp, MDP)
    found = explore(
        judge or SyntheticJudge(1.0),
        mdp,
        captions_of(config.family.spaces, "mdp"),
        horizon=config.horizon,
        bonus=0.0 if judge is None else config.bonus,
        seed=seed,
    )
    name = NO_BONUS if judge is None else judge.name
    return {"judge": name, "seed": seed, **measures(found, config.horizon)}


def run_novelty(
    judges: Sequence[Judge],
    config: NoveltyConfig,
    *,
    seeds: Sequence[int],
    out: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> dict[str, Any]:
    """Explore without a bonus, and with that of every judge, and return the report.

    Args:
        judges: the judges.
        config: the study.
        seeds: random seeds of tasks, ties and answers.
        out: folder to write; None to write nothing.
        resume: continue an unfinished run.
        overwrite: replace `out`.
        progress: called with the name of the step, and cells done and in all.

    Raises:
        ValueError: if two judges have one name.
        StorageError: if `out` cannot be written.

    """
    names = [judge.name for judge in judges]
    if len(set(names)) < len(names):
        raise ValueError(f"judges: must differ, found {', '.join(names)}")
    everyone: list[Judge | None] = [None, *judges]
    total, done = len(everyone) * len(seeds), [0]

    def counted(cell: Any, folder: Path | None) -> dict[str, Any]:
        found: dict[str, Any] = cell(folder)
        done[0] += 1
        progress("exploring", done[0], total)
        return found

    cells = {
        f"{i}-{seed}": partial(counted, partial(novelty_cell, judge, config, seed))
        for i, judge in enumerate(everyone)
        for seed in seeds
    }
    plan = {
        "novelty": {
            **family_header(config.family, "mdp"),
            "horizon": config.horizon,
            "tasks": config.tasks,
            "bonus": config.bonus,
        },
        "judges": names,
        "seeds": list(seeds),
    }
    return run_cells(
        cells,
        partial(novelty_report, config),
        novelty_card,
        plan,
        out,
        resume=resume,
        overwrite=overwrite,
    )


def novelty_report(
    config: NoveltyConfig, cells: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the means over seeds of every judge."""
    judges = {}
    for name in dict.fromkeys(cell["judge"] for cell in cells):
        mine = [cell for cell in cells if cell["judge"] == name]
        judges[name] = {
            each: interval([cell[each] for cell in mine]) for each in (*NAMES, *RATES)
        }
        for each, most in (("found_percent", 100.0), ("steps_mean", config.horizon)):
            _clip(judges[name][each], float(most))
    return {
        "family": config.family.name,
        "horizon": config.horizon,
        "tasks": config.tasks,
        "bonus": config.bonus,
        "seeds": len({cell["seed"] for cell in cells}),
        "judges": judges,
    }


def _clip(found: dict[str, Any], most: float) -> None:
    """Limit an interval, which may exceed them, to the values that are possible."""
    if found["ci_low"] is not None:
        found["ci_low"] = max(found["ci_low"], 0.0)
        found["ci_high"] = min(found["ci_high"], most)


def novelty_card(report: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    lines = [
        f"# Exploration of `{report['family']}` with a bonus of {report['bonus']:g}",
        "",
        f"{report['tasks']} tasks of {report['horizon']} decisions, "
        f"{seeds_text(report['seeds'])}. Made by `sdm novelty`.",
        "",
        "| judge | tasks with a reward, % | stage of the first | return | states |",
        "|---|---|---|---|---|",
    ]
    for name, found in report["judges"].items():
        means = " | ".join(f"{found[each]['mean']:.1f}" for each in NAMES)
        lines.append(f"| `{name}` | {means} |")
    return "\n".join(lines) + "\n"
