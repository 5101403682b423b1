"""What rows of the study `feedback` say about the claims on rewards from AI feedback.

A potential does not change optimal plans (Ng, Harada and Russell, 1999). Klissarov et
al. (2024) add rewards from the feedback of language models to those of the task; what
that costs in optimality is measured here against exact optima. They also compare a
language model as a policy with a planner for its reward.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from sdm.experiments.claims import Case, case, claim_text, ruled
from sdm.experiments.study import Row
from sdm.experiments.study_options import setting_names
from sdm.feedback.cells import mean_of
from sdm.feedback.effects import NOT_USED
from sdm.feedback.uses import ADDED

Plan = tuple[str, float, int]  # use, weight and lookahead
NAMES = ("judge", "policy")  # options that name a judge and a policy to compare
DIRECT = "direct"  # entry of a row with the result of the policy
LISTS = frozenset({"uses", "weights", "lookaheads"})  # options that define plans only
PERFECT = 0.99  # least rank correlation of a reward that orders states as V* does
RANKED = f"(rank correlation ≥ {PERFECT:g})"
ROUNDING = 1e-6  # gap in per cent that double precision explains in any such task
POTENTIAL = "potential"


@dataclass
class Group:
    """Rows that differ in judge and seed only.

    Attributes:
        name: the tasks in words.
        rows: the rows of each judge, by seed.

    """

    name: str
    rows: dict[str, dict[int, Row]] = field(default_factory=dict)

    @property
    def judges(self) -> list[str]:
        """Names of the judges, from the least to the most accurate."""
        return sorted(self.rows, key=lambda x: self.measure(x, "judge_accuracy") or 0.0)

    @property
    def plans(self) -> list[Plan]:
        """Plans of the rows, in their order."""
        every = (
            _plan(each)
            for mine in self.rows.values()
            for row in mine.values()
            for each in row["rows"]
        )
        return list(dict.fromkeys(every))

    @property
    def lookaheads(self) -> list[int]:
        """Lookaheads of the plans, in their order."""
        return list(dict.fromkeys(plan[2] for plan in self.plans))

    def seeds(self, *judges: str) -> list[int]:
        """Return the seeds that all judges were run with."""
        every = (set(self.rows[judge]) for judge in judges)
        return sorted(set.intersection(*every))

    def measure(self, judge: str, name: str) -> float | None:
        """Return the mean of a measurement over seeds; None if it is not known."""
        return mean_of([row[name] for row in self.rows[judge].values()])

    def gaps(self, judge: str, plan: Plan, *others: str) -> list[float]:
        """Return the gap in each seed that the other judges were run with, too."""
        return [
            float(each["gap_percent"])
            for seed in self.seeds(judge, *others)
            for each in self.rows[judge][seed]["rows"]
            if _plan(each) == plan
        ]

    def direct(self, judge: str) -> list[float]:
        """Return the gap of the policy that acts in its place, in each seed.

        Seeds without a policy are left out.
        """
        rows = (self.rows[judge][seed] for seed in self.seeds(judge))
        return [row[DIRECT]["gap_percent"] for row in rows if DIRECT in row]

    @property
    def perfect(self) -> str | None:
        """The judge of highest rank correlation, if that is at least `PERFECT`."""
        ranks = {x: self.measure(x, "rank_correlation") or 0.0 for x in self.rows}
        best = max(ranks, key=ranks.__getitem__)
        return best if ranks[best] >= PERFECT else None


def groups(rows: Sequence[Row]) -> list[Group]:
    """Return the rows of the study by tasks."""
    found: dict[str, Group] = {}
    names = setting_names(rows, {*NAMES, *LISTS})
    for name, row in zip(names, rows, strict=True):
        group, cell = found.setdefault(name, Group(name)), row["feedback"]
        of_judge = group.rows.setdefault(cell["judge"], {})
        before = of_judge.get(row["seed"], {"rows": []})["rows"]
        of_judge[row["seed"]] = {**cell, "rows": _union(before, cell["rows"])}
    return list(found.values())


def _union(first: Sequence[Row], second: Sequence[Row]) -> list[Row]:
    """Return the plans of both, each once."""
    return [*first, *(row for row in second if _plan(row) not in map(_plan, first))]


def _plan(row: Row) -> Plan:
    return row["use"], row["weight"], row["lookahead"]


def sentences(found: Sequence[Group]) -> list[str]:
    """Return a sentence with the verdicts on each claim that the rows can test."""
    claim = f"A reward in the order of V* {RANKED} costs optimality if added"
    texts = _claim(claim, _costs, found)
    texts += _claim("The larger its weight, the more it costs", _weight, found)
    texts += _nothing(found)
    claim = "As a potential, it helps a planner that sees few decisions"
    texts += _claim(claim, partial(_helps, use=POTENTIAL), found)
    texts += _claim("Added, it helps such a planner", partial(_helps, use=ADDED), found)
    texts += _claim("A more accurate judge costs less", _accuracy, found)
    claim = "A planner with the model's reward loses less than the model as a policy"
    return ruled([*texts, *_claim(claim, _direct, found)])


def _claim(
    claim: str, cases: Callable[[Group], list[Case]], found: Sequence[Group]
) -> list[str]:
    every = {group.name: cases(group) for group in found}
    return claim_text(claim, every, "points", ROUNDING)


def _costs(group: Group) -> list[Case]:
    """Return the gaps of the perfect reward, added with each weight."""
    judge = group.perfect
    plans = _of_use(group, ADDED)
    return [
        case(f"w = {plan[1]:g}", group.gaps(judge, plan)) for plan in plans if judge
    ]


def _weight(group: Group) -> list[Case]:
    """Return the gap at the largest weight minus that at the smallest."""
    judge = group.perfect
    plans = sorted(_of_use(group, ADDED), key=lambda plan: plan[1])
    if judge is None or len(plans) < 2:
        return []
    ends = f"w = {plans[-1][1]:g} against {plans[0][1]:g}"
    return [_difference(ends, *(group.gaps(judge, plans[i]) for i in (-1, 0)))]


def _accuracy(group: Group) -> list[Case]:
    """Return gaps with the least accurate judge minus those with the most accurate."""
    worst, best = group.judges[0], group.judges[-1]
    if not group.seeds(worst, best) or worst == best:
        return []
    cases = []
    for plan in group.plans:
        use, weight, lookahead = plan
        if use == NOT_USED or (use == POTENTIAL and not lookahead):
            continue  # no judge changes these plans
        where = f"{use} w = {weight:g}" + f", seeing {lookahead}" * bool(lookahead)
        ours = (group.gaps(worst, plan, best), group.gaps(best, plan, worst))
        cases.append(_difference(where, *ours))
    return cases


def _helps(group: Group, *, use: str) -> list[Case]:
    """Return gaps of planners that see few decisions, minus those with the reward."""
    judge = group.perfect
    return [
        _difference(
            f"w = {plan[1]:g}, seeing {plan[2]}",
            group.gaps(judge, (NOT_USED, 0.0, plan[2])),
            group.gaps(judge, plan),
        )
        for plan in group.plans
        if judge and plan[0] == use and plan[2]
    ]


def _direct(group: Group) -> list[Case]:
    """Return gaps of the model as a policy minus those of plans for its reward."""
    cases = []
    for judge in group.judges:
        mine = {seed: row for seed, row in group.rows[judge].items() if DIRECT in row}
        both = Group(group.name, {judge: mine})
        plans = [plan for plan in both.plans if plan[0] not in (NOT_USED, POTENTIAL)]
        for plan in plans:
            where = f"{plan[0]}, w = {plan[1]:g}" + f", seeing {plan[2]}" * bool(
                plan[2]
            )
            cases.append(_difference(where, both.direct(judge), both.gaps(judge, plan)))
    return cases


def _of_use(group: Group, use: str) -> list[Plan]:
    """Return the plans of a use that see all decisions."""
    return [plan for plan in group.plans if plan[0] == use and not plan[2]]


def _difference(where: str, first: Sequence[float], second: Sequence[float]) -> Case:
    return case(where, [a - b for a, b in zip(first, second, strict=True)])


def _nothing(found: Sequence[Group]) -> list[str]:
    """Return the sentence on potentials of every judge, if a planner sees all."""
    largest: Mapping[str, list[float]] = {
        group.name: [
            abs(gap)
            for plan in _of_use(group, POTENTIAL)
            for judge in group.rows
            for gap in group.gaps(judge, plan)
        ]
        for group in found
    }
    parts = [
        f"in {name}, {'confirmed' if max(gaps) <= ROUNDING else 'refuted'} (at most "
        f"{max(gaps):.1g} % in {len(gaps)} plans)"
        for name, gaps in largest.items()
        if gaps
    ]
    claim = "As a potential, the reward of any judge costs nothing"
    return [f"{claim}: {'; '.join(parts)}."] if parts else []
