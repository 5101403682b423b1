"""`from-logs`: policies from logged episodes, their true values and their claims.

Options: `planner` (a name and its options, such as `support min_visits=20`),
`episodes`, family and horizon, `unseen` (components of the state that the logs lack),
`folds` of the bounds, and those of the family. A row is one planner on the logs of one
seed; see `sdm.data.planning` and `sdm.experiments.logged_world`.
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdm.experiments.spec import Cell, Options
from sdm.experiments.study import Row, Step, register_study
from sdm.experiments.study_options import condition_of, needed, split_options
from sdm.experiments.text_table import NOT_RUN, Line, Table
from sdm.storage.checks import check_count

if TYPE_CHECKING:
    import altair as alt

    from sdm.experiments.logged_world import LoggedWorld

OWN = frozenset({"planner", "episodes", "unseen", "folds", "horizon"})
HEAD = ["logs", "planner", "true value", "smallest", "expert", "claimed"]
HEAD += ["estimate of other episodes", "lower bound", "holds, %"]
HEAD += ["bound if missing actions are worst", "holds, %"]
HEAD += ["bound if states are hidden", "holds, %", "seeds"]
Group = tuple[str, str]  # logs, and the planner


@register_study
class FromLogs:
    """True value of policies from logs, against what is claimed for them."""

    name = "from-logs"
    label = "plan from logs"
    lists: frozenset[str] = frozenset({"unseen"})
    seeds: tuple[int, ...] = ()

    def condition(self, options: Options) -> str:
        """Return the logs and the planner."""
        return f"{_logs_name(options)}, {options.get('planner')}"

    def needs_torch(self, options: Options) -> bool:
        """Return False."""
        return False

    def run(self, cell: Cell, work: Path, step: Step) -> Row:
        """Plan on the logs of a seed, and measure the policy in the true model."""
        from sdm.data.planning import cross_fitted_bounds, evidence_of
        from sdm.data.planning.planner import parse_planner

        planner = parse_planner(needed(self.name, cell.learn, "planner"))
        episodes, folds = cell.learn.get("episodes"), cell.learn.get("folds", 5)
        check_count("episodes", episodes, 2)
        world = _world(cell.learn)
        step("planning", 0, 2)
        logs = world.logs(int(episodes), cell.seed)  # type: ignore[arg-type]
        discount = float(world.model.discount)
        made = planner.plan(
            evidence_of(logs, discount=discount), horizon=world.horizon, seed=cell.seed
        )
        step("planning", 1, 2)
        bounds = cross_fitted_bounds(
            logs,
            planner,
            horizon=world.horizon,
            discount=discount,
            folds=folds,
            seed=cell.seed,
        )
        found = {
            "true": world.value(made.probabilities),
            "claimed": made.value,
            **asdict(bounds),
            **world.references,
        }
        return {"from_logs": found}

    def result(self, row: Row) -> str:
        """Return the true and the claimed value."""
        found = row["from_logs"]
        return f"true {found['true']:.3f}, claimed {found['claimed']:.3f}"

    def table(self, rows: Sequence[Row]) -> Table:
        """Return a table with a line for each planner and logs."""
        lines = [Line(_line(each, of), True) for each, of in _groups(rows).items()]
        empty = ["any", "", NOT_RUN, *[""] * (len(HEAD) - 3)]
        return Table(HEAD, 2, lines or [Line(empty, False)])

    def figure(self, rows: Sequence[Row]) -> "alt.TopLevelMixin":
        """Draw claimed against true values, with the diagonal."""
        from sdm.experiments.claimed_figure import claimed_figure

        records = [
            {
                "panel": _logs_name(row["learn"]),
                "planner": row["learn"]["planner"],
                "seed": row["seed"],
                "true": row["from_logs"]["true"],
                "y": row["from_logs"][field],
                "claim": name,
            }
            for row in rows
            for field, name in (("claimed", "own claim"), ("lower", "lower bound"))
        ]
        return claimed_figure(records)

    def conclusion(self, rows: Sequence[Row]) -> list[str]:
        """Return the best planner of each log, and whose claims hold."""
        groups = _groups(rows)
        found = []
        for name in dict.fromkeys(logs for logs, _ in groups):
            mine = {p: of for (logs, p), of in groups.items() if logs == name}
            best = max(mine, key=lambda p: _mean(mine[p], "true"))
            high = [p for p, of in mine.items() if _holds(of, "claimed") < HELD]
            fail = [p for p, of in mine.items() if _holds(of, "lower") < HELD]
            worth, expert = (_mean(mine[best], x) for x in ("true", "expert"))
            found.append(
                f"{name}: the best plan is `{best}`, worth {worth:.3f} (expert "
                f"{expert:.3f}). Own claims exceed the truth in more than 5 % of the "
                f"seeds for {_listed(high)}; lower bounds do so for {_listed(fail)}."
            )
        return found


HELD = 0.95  # share of the seeds in which a claim of 95 % should hold


@cache
def _cached(family: str, own: tuple[Any, ...], horizon: int, unseen: Any) -> Any:
    from sdm.experiments.logged_world import logged_world
    from sdm.tasks.registry import load_family

    return logged_world(load_family(family, dict(own)), horizon, unseen)


def _world(options: Options) -> "LoggedWorld":
    """Return the world of a cell; cells with the same one share it."""
    family, found = split_options(FromLogs.name, options, {"own": OWN})
    horizon = found["own"].get("horizon", family.defaults.horizon)
    own = {k: x for k, x in options.items() if k not in OWN | {"family"}}
    unseen = tuple(found["own"].get("unseen", ()))
    world: LoggedWorld = _cached(family.name, tuple(own.items()), horizon, unseen)
    return world


def _logs_name(options: Options) -> str:
    """Return family, horizon, hidden components and number of episodes in words."""
    shown = {k: x for k, x in options.items() if k not in ("planner", "folds")}
    unseen, episodes = shown.pop("unseen", ()), shown.pop("episodes", None)
    hidden = f", {' and '.join(unseen)} hidden" if unseen else ""
    return f"{condition_of(shown)}{hidden}, {episodes} episodes"


def _groups(rows: Sequence[Row]) -> dict[Group, list[Row]]:
    """Return the results of the seeds of each planner and logs."""
    found: dict[Group, list[Row]] = {}
    for row in rows:
        key = (_logs_name(row["learn"]), row["learn"]["planner"])
        found.setdefault(key, []).append(row["from_logs"])
    return found


def _mean(results: Sequence[Row], name: str) -> float:
    return float(np.mean([each[name] for each in results]))


def _holds(results: Sequence[Row], name: str) -> float:
    """Return the share of the seeds in which a claim is at most the truth."""
    return float(np.mean([each[name] <= each["true"] + ROUNDING for each in results]))


ROUNDING = 1e-9  # of values that are equal, such as bounds on the smallest return


def _line(group: Group, results: Sequence[Row]) -> list[str]:
    """Return the fields of a planner and logs."""
    texts = [f"{_mean(results, 'true'):.4f}"]
    texts += [f"{min(each['true'] for each in results):.4f}"]
    texts += [f"{_mean(results, x):.4f}" for x in ("expert", "claimed", "estimate")]
    for name in ("lower", "lower_observed", "lower_confounded"):
        if all(name in each for each in results):
            held = 100 * _holds(results, name)
            texts += [f"{_mean(results, name):.4f}", f"{held:.0f}"]
        else:  # rows of an older version
            texts += [NOT_RUN, ""]
    return [*group, *texts, str(len(results))]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "no planner"
