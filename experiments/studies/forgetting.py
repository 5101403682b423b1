"""`forgetting`: what tuning as a judge and as a policy costs in language.

Options: `base`, `tuning` (`policy` or `reward`), `weights` (`adapter` or `full`),
family, horizon, tasks, those of `ForgettingConfig` and those of the family. A row is
one training; see `sdm.feedback.forgetting`.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdm.experiments.claims import Case, case, claim_text, ruled
from sdm.experiments.spec import Cell, Options
from sdm.experiments.study import Row, Step, register_study
from sdm.experiments.study_options import (
    SIZES,
    condition_of,
    needed,
    setting_names,
    split_options,
)
from sdm.experiments.text_table import NOT_RUN, Line, Table
from sdm.feedback.config import FeedbackConfig
from sdm.feedback.reward_model import RewardConfig
from sdm.storage.checks import check_count

if TYPE_CHECKING:
    import altair as alt

TUNINGS, WEIGHTS = ("policy", "reward"), ("adapter", "full")
EPISODES = 3  # of the oracle in each text of a policy: two demonstrations and a query
ALWAYS = ("family", "horizon", "base", "tokens")  # options that conditions show
WAY = ("tuning", "weights")
HEAD = ["model and tasks", "tuned as", "weights", "perplexity before"]
HEAD += ["perplexity after", "change", "95 % interval", "right answers before, %"]
HEAD += ["right answers after, %", "tuning loss before", "tuning loss after"]
HEAD += ["training tokens", "seeds"]
Way = tuple[str, str, str]  # model and tasks, tuning and weights
Cells = dict[int, Row]  # results by seed


@register_study
class Forgetting:
    """Held-out perplexity and language tasks before and after a tuning."""

    name = "forgetting"
    label = "tuned model"
    lists: frozenset[str] = frozenset()
    seeds: tuple[int, ...] = ()

    def condition(self, options: Options) -> str:
        """Return the model, the tasks and the way to tune."""
        shown = {name: x for name in ALWAYS if (x := options.get(name)) is not None}
        way = f"{options.get('tuning')}, {options.get('weights')}"
        return f"{condition_of(shown)}, {way}"

    def needs_torch(self, options: Options) -> bool:
        """Return True: language models are trained."""
        return True

    def run(self, cell: Cell, work: Path, step: Step) -> Row:
        """Tune a model in one way, with its tests before and after."""
        from sdm.feedback.forgetting import forgetting_cell
        from sdm.feedback.forgetting_config import ForgettingConfig
        from sdm.llm.base_names import check_base_name

        base = needed(self.name, cell.learn, "base")
        tuning = needed(self.name, cell.learn, "tuning", *TUNINGS)
        weights = needed(self.name, cell.learn, "weights", *WEIGHTS)
        check_base_name(base)
        study, own = study_of(cell.learn)
        work.mkdir(parents=True, exist_ok=True)
        found = forgetting_cell(
            ForgettingConfig(**own),
            study,
            tuning,
            cell.seed,
            work,
            adapter=weights == "adapter",
            progress=lambda name, done, total: step("training", done, total),
        )
        return {"forgetting": json.loads(json.dumps(found))}

    def result(self, row: Row) -> str:
        """Return the perplexity before and after."""
        found = row["forgetting"]
        before, after = (found[when]["perplexity"] for when in ("before", "after"))
        return f"perplexity {before:.2f} → {after:.2f}"

    def table(self, rows: Sequence[Row]) -> Table:
        """Return a table with a line per way to tune."""
        lines = [Line(_line(way, cells), True) for way, cells in _ways(rows).items()]
        empty = ["any", "", "", NOT_RUN, *[""] * (len(HEAD) - 4)]
        return Table(HEAD, 3, lines or [Line(empty, False)])

    def figure(self, rows: Sequence[Row]) -> "alt.TopLevelMixin":
        """Draw the change of perplexity in each seed, and its mean."""
        from sdm.experiments.figures import changes

        records = [
            {"panel": name, "way": tuning, "weights": weights, "seed": seed, "y": y}
            for (name, tuning, weights), cells in _ways(rows).items()
            for seed, y in _changes(cells).items()
        ]
        return changes(records, "change of held-out perplexity")

    def conclusion(self, rows: Sequence[Row]) -> list[str]:
        """Return the verdicts on the published claim, and on adapters."""
        ways = _ways(rows)
        names = dict.fromkeys(way[0] for way in ways)
        tuning, weights = (
            {name: list(make(ways, name)) for name in names}
            for make in (_policy_against_reward, _full_against_adapter)
        )
        claim = "Tuning as a policy raises held-out perplexity more than as a judge"
        other = "Tuning all weights raises it more than an adapter"
        texts = claim_text(claim, tuning, "in perplexity")
        return ruled([*texts, *claim_text(other, weights, "in perplexity")])


def study_of(options: Options) -> tuple[FeedbackConfig, Options]:
    """Return the tasks of a cell's texts, and the options of its training.

    Raises:
        ValueError: if an option is unknown or its value is invalid.

    """
    from sdm.experiments.study_options import fields_of
    from sdm.feedback.forgetting_config import ForgettingConfig

    parts = {
        "way": frozenset(WAY),
        "sizes": frozenset(SIZES),
        "training": fields_of(ForgettingConfig),
    }
    family, found = split_options(Forgetting.name, options, parts)
    most = family.available("train")
    sizes: dict[str, Any] = {
        "horizon": family.defaults.horizon,
        "tasks": min(200, most or 200),
        **found["sizes"],
    }
    check_count("tasks", sizes["tasks"], 1)
    reward = RewardConfig(support=EPISODES)
    return FeedbackConfig(family=family, reward=reward, **sizes), found["training"]


def _ways(rows: Sequence[Row]) -> dict[Way, Cells]:
    """Return the results of each way to tune, by seed."""
    found: dict[Way, Cells] = {}
    names = setting_names(rows, WAY, *ALWAYS)
    for name, row in zip(names, rows, strict=True):
        cell = row["forgetting"]
        way = (name, cell["tuning"], cell["weights"])
        found.setdefault(way, {})[row["seed"]] = cell
    return found


def _changes(cells: Cells, measure: str = "perplexity") -> dict[int, float]:
    """Return the change of a measure by seed."""
    return {
        seed: cell["after"][measure] - cell["before"][measure]
        for seed, cell in cells.items()
    }


def _difference(where: str, first: Cells, second: Cells) -> Iterator[Case]:
    """Yield the first change minus the second over the seeds of both, if any."""
    ours, theirs = _changes(first), _changes(second)
    if seeds := sorted(ours.keys() & theirs.keys()):
        yield case(where, [ours[seed] - theirs[seed] for seed in seeds])


def _policy_against_reward(ways: dict[Way, Cells], name: str) -> Iterator[Case]:
    for weights in WEIGHTS:
        both = (ways.get((name, tuning, weights), {}) for tuning in TUNINGS)
        yield from _difference(weights, *both)


def _full_against_adapter(ways: dict[Way, Cells], name: str) -> Iterator[Case]:
    for tuning in TUNINGS:
        full, adapter = (ways.get((name, tuning, w), {}) for w in ("full", "adapter"))
        yield from _difference(tuning, full, adapter)


def _line(way: Way, cells: Cells) -> list[str]:
    """Return the fields of a way to tune."""
    mean = partial(_mean, cells)
    change = case("", list(_changes(cells).values()))
    ends = ""
    if change.low is not None and change.high is not None:
        ends = f"{change.low:+.2f} … {change.high:+.2f}"
    texts = [f"{mean(when, 'perplexity'):.2f}" for when in ("before", "after")]
    texts += [f"{change.mean:+.2f}", ends]
    for measure, factor, digits in (("accuracy", 100, 1), ("tuning_loss", 1, 3)):
        texts += [
            f"{factor * mean(when, measure):.{digits}f}" for when in ("before", "after")
        ]
    (tokens,) = {cell["tokens"] for cell in cells.values()}
    return [*way, *texts, f"{tokens:,}", str(len(cells))]


def _mean(cells: Cells, when: str, measure: str) -> float:
    """Return the mean of a measure over seeds, before or after the tuning."""
    return case("", [cell[when][measure] for cell in cells.values()]).mean
