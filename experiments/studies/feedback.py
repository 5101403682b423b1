"""`feedback`: what plans for the reward of a judge lose, see `sdm.feedback.study`.

Options: `judge`, family, horizon, tasks, uses, weights, lookaheads, those of
`RewardConfig` and those of the family. A row is one judge and one seed. With `policy`,
it also has the gap of a policy that acts in the same tasks.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdm.experiments.claims import case
from sdm.experiments.feedback_claims import (
    DIRECT,
    LISTS,
    NAMES,
    Group,
    Plan,
    groups,
    sentences,
)
from sdm.experiments.spec import Cell, Options
from sdm.experiments.study import Row, Step, register_study
from sdm.experiments.study_options import (
    SIZES,
    condition_of,
    fields_of,
    needed,
    split_options,
)
from sdm.experiments.text_table import NOT_RUN, Line, Table
from sdm.feedback.config import FeedbackConfig
from sdm.feedback.judge import parse_judge
from sdm.feedback.reward_model import RewardConfig

if TYPE_CHECKING:
    import altair as alt


@register_study
class Feedback:
    """Gaps of plans for a learned reward, by judge, use, weight and lookahead."""

    name = "feedback"
    label = "judge"
    lists = LISTS
    seeds: tuple[int, ...] = ()

    def condition(self, options: Options) -> str:
        """Return the judge, the tasks, and what else differs from defaults."""
        return (
            f"{condition_of(options, 'tasks', *NAMES, *LISTS)}, {options.get('judge')}"
        )

    def needs_torch(self, options: Options) -> bool:
        """Return whether PyTorch computes the judge."""
        return parse_judge(needed(self.name, options, "judge")).needs_torch

    def run(self, cell: Cell, work: Path, step: Step) -> Row:
        """Fit a reward to the judge's answers, and evaluate the plans for it."""
        from sdm.feedback.study import run_cell

        judge = parse_judge(needed(self.name, cell.learn, "judge"))
        config = config_of(cell.learn)
        work.mkdir(parents=True, exist_ok=True)
        progress = partial(step, "judging")
        found = run_cell(judge, config, cell.seed, work, progress=progress)
        if (policy := cell.learn.get("policy")) is not None:
            from sdm.feedback.run import policy_cell

            found[DIRECT] = policy_cell(
                policy, config, cell.seed, work, progress=partial(step, "playing")
            )
        return {"feedback": json.loads(json.dumps(found))}

    def result(self, row: Row) -> str:
        """Return the rank correlation and the largest gap of a row."""
        found = row["feedback"]
        rank = found["rank_correlation"]
        most = max(each["gap_percent"] for each in found["rows"])
        shown = "" if rank is None else f"rank correlation {rank:.2f}, "
        text = f"{shown}gap up to {most:.2f} %"
        if (direct := found.get(DIRECT)) is not None:
            text += f", as a policy {direct['gap_percent']:.2f} %"
        return text

    def table(self, rows: Sequence[Row]) -> Table:
        """Return a table with a line per judge and lookahead, a column per plan."""
        found = groups(rows)
        plans = list(dict.fromkeys(plan[:2] for group in found for plan in group.plans))
        head = ["tasks", "judge", "planner sees", "right answers, %"]
        head += ["rank correlation", *(f"{plan_text(*plan)}, gap, %" for plan in plans)]
        direct = any(group.direct(judge) for group in found for judge in group.rows)
        head += [*["policy in its place, gap, %"] * direct, "seeds"]
        if not found:
            empty = ["any", "", "", NOT_RUN, *[""] * (len(head) - 4)]
            return Table(head, 3, [Line(empty, False)])
        lines = [
            Line(_line(group, judge, lookahead, plans, direct=direct), True)
            for group in found
            for lookahead in group.lookaheads
            for judge in group.judges
        ]
        return Table(head, 3, lines)

    def figure(self, rows: Sequence[Row]) -> "alt.TopLevelMixin":
        """Draw gaps against the judge's right answers, with a line per plan."""
        from sdm.experiments.figures import gap_lines

        records = [
            {
                "x": 100 * accuracy,
                "line": plan_text(use, weight),
                "panel": f"{group.name}, planner sees {_seen(lookahead)}",
                "judge": judge,
                "gap": one.mean,
                "low": one.mean if one.low is None else one.low,
                "high": one.mean if one.high is None else one.high,
            }
            for group in groups(rows)
            for use, weight, lookahead in group.plans
            for judge in group.judges
            if (accuracy := group.measure(judge, "judge_accuracy")) is not None
            for one in [case("", group.gaps(judge, (use, weight, lookahead)))]
        ]
        return gap_lines(records, "right answers of the judge, %")

    def conclusion(self, rows: Sequence[Row]) -> list[str]:
        """Return the verdicts on the published claims."""
        return sentences(groups(rows))


def config_of(options: Options) -> FeedbackConfig:
    """Return the configuration of a cell without its judge.

    Raises:
        ValueError: if an option is unknown or its value is invalid.

    """
    parts = {
        "names": frozenset({"judge", "policy"}),
        "study": LISTS.union(SIZES),
        "reward": fields_of(RewardConfig),
    }
    family, found = split_options(Feedback.name, options, parts)
    default = family.defaults
    sizes: dict[str, Any] = {
        "horizon": default.horizon,
        "tasks": default.test_tasks or family.available("test") or 1,
    }
    lists = {name: tuple(options[name]) for name in LISTS if name in options}
    return FeedbackConfig(
        family=family,
        reward=RewardConfig(**found["reward"]),
        **{**sizes, **found["study"], **lists},
    )


def plan_text(use: str, weight: float) -> str:
    """Return the use of a reward with its weight."""
    return f"{use}, w = {weight:g}" if weight else "without the reward"


def _seen(lookahead: int) -> str:
    """Return the decisions that a planner sees."""
    return f"next {lookahead}" if lookahead else "all"


def _line(
    group: Group,
    judge: str,
    lookahead: int,
    plans: Sequence[tuple[str, float]],
    *,
    direct: bool,
) -> list[str]:
    """Return the fields of a judge with one lookahead.

    With `direct`, they include the gap of the policy that acts in its place.
    """
    right, rank = (
        group.measure(judge, name) for name in ("judge_accuracy", "rank_correlation")
    )
    texts = [group.name, judge, _seen(lookahead)]
    texts += ["" if right is None else f"{100 * right:.1f}"]
    texts += ["" if rank is None else f"{rank:.3f}"]
    for use, weight in plans:
        plan: Plan = (use, weight, lookahead)
        texts.append(_gap(group.gaps(judge, plan)) if plan in group.plans else "")
    if direct:
        gaps = group.direct(judge)
        texts.append(_gap(gaps) if gaps and not lookahead else "")
    return [*texts, str(len(group.seeds(judge)))]


def _gap(gaps: Sequence[float]) -> str:
    """Return the mean of a gap over seeds with its interval."""
    one = case("", gaps)
    mean = f"{round(one.mean, 2) + 0.0:.2f}"  # adding zero turns -0.0 to 0.0
    if one.low is None or one.high is None:
        return mean
    ends = [f"{round(end, 2) + 0.0:.2f}" for end in (one.low, one.high)]
    return mean if {*ends} == {mean} else f"{mean} ({' … '.join(ends)})"
