"""What experiments there are: cells to be run, from frozen configurations.

`profiles.toml` says what each profile tests with and trains, and `NAME/config.toml`
what an experiment varies: every list in a grid's `test`, `data` and `learn` is an axis,
and the grid holds a cell for each combination, policy and seed. What a cell is stands
in the cell itself, as plain numbers and names; nothing else decides its result but the
code and the versions that its row records.
"""

import hashlib
import itertools
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PUBLISHED = HERE / "published"
PROFILES = ("smoke", "laptop", "paper")
SETTINGS = ("mdp", "pomdp", "apomdp", "darkroom")
WORDS = {
    "test.horizon": "T",
    "test.q": "q",
    "test.models": "K",
    "test.alpha": "α",
    "data.q": "trained at q",
}

# What a test has without being told: the same test, whether it is spelled or not.
UNSPELLED = {"support": 2, "demonstrations": "optimal"}

Options = dict[str, Any]


class CatalogueError(ValueError):
    """An experiment or a profile that there is not, or a configuration gone wrong."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep what is wrong and what to do about it apart."""
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Grid:
    """Some cells of an experiment, as its configuration writes them.

    Attributes:
        test: of `EvaluationConfig` and of the tasks' family.
        data: of the oracle dataset, where it differs from the test.
        learn: of whatever learns.
        policies: names in the profile, or of policies without learning, and what to
            call them here.
        texts: training texts in all, to be shared out among the tasks; None for what
            the learner has.
        theory: of a check of Proposition 1, instead of a test.
        profiles: where the grid belongs.

    """

    policies: Mapping[str, str] = field(default_factory=dict)
    test: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    learn: Mapping[str, Any] = field(default_factory=dict)
    texts: int | None = None
    theory: Mapping[str, Any] = field(default_factory=dict)
    profiles: tuple[str, ...] = PROFILES


@dataclass(frozen=True)
class Experiment:
    """A figure to be reproduced, or one of our own.

    Attributes:
        name: of its folder.
        title: what it is about.
        paper: the paper's figure; "" for our own.
        question: that it answers.
        x: what is on the axis: the dotted name of a cell's value, or `condition` for
            the test in a few words.
        x_title: what the axis says.
        grids: its cells.
        x_scale: log or nominal.
        facet: what the panels differ in, as `x`; "" for one panel.
        facet_title: what stands before its value.
        remark: to be read with the figure.
        columns: of the table, besides the gap.
        goal: a gap in per cent, marked in the figure; the report says what number on
            the axis it takes each policy. None for no such question.

    """

    name: str
    title: str
    paper: str
    question: str
    x: str
    x_title: str
    grids: tuple[Grid, ...]
    x_scale: str = "nominal"
    facet: str = ""
    facet_title: str = ""
    remark: str = ""
    columns: tuple[str, ...] = ()
    goal: float | None = None


@dataclass(frozen=True)
class Cell:
    """The smallest thing that is run: one policy, one test, one seed.

    Attributes:
        experiment: its experiment's name.
        profile: of what size it is.
        policy: what it is called in figures.
        name: of the policy, in the profile or of those without learning.
        kind: finetune, icl, dpt, cql, baseline, or theory.
        seed: of tasks, episodes, weights and texts.
        test: of the test.
        data: of the dataset that is learned from; of other policies, the family of
            tasks that they believe in, where it is another than the test's.
        learn: of what learns.

    """

    experiment: str
    profile: str
    policy: str
    name: str
    kind: str
    seed: int
    test: Options
    data: Options
    learn: Options

    @property
    def spec(self) -> Options:
        """What decides the result, but for code and versions."""
        names = ("policy", "kind", "seed", "test", "data", "learn")
        return {name: getattr(self, name) for name in names}

    @property
    def key(self) -> str:
        """A name for the spec, the same however much of it is spelled."""
        test = {k: x for k, x in self.test.items() if UNSPELLED.get(k) != x}
        return key_of({**self.spec, "test": test})

    def value(self, name: str) -> Any:
        """A value of the spec by its dotted name; None where it has none."""
        if name == "condition":
            return self.condition
        part, _, rest = name.partition(".")
        found = getattr(self, part)
        return found.get(rest) if rest else found

    @property
    def condition(self) -> str:
        """The test in a few words."""
        if self.kind == "theory":
            return "κ, M and N"
        wanted = {
            "mdp": ("test.horizon",),
            "pomdp": ("test.q", "data.q"),
            "apomdp": ("test.models", "test.alpha"),
            "darkroom": (),
        }[self.test["setting"]]
        if self.kind == "baseline":
            wanted = tuple(name for name in wanted if name != "data.q")
        parts = [
            f"{WORDS[name]} = {value:g}"
            for name in wanted
            if (value := self.value(name)) is not None
        ]
        return ", ".join(parts) or str(self.test.get("pays", "stay"))


def key_of(spec: Mapping[str, Any]) -> str:
    """A short hash of plain numbers and names."""
    text = json.dumps(spec, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def profiles() -> dict[str, Options]:
    """All profiles, as written."""
    return tomllib.loads((HERE / "profiles.toml").read_text(encoding="utf-8"))


@cache
def experiments() -> dict[str, Experiment]:
    """All experiments by name, the paper's in the order of its figures first."""
    found = [_read(path) for path in sorted((HERE / "configs").glob("*.toml"))]
    order = sorted(found, key=lambda e: (not e.paper, _figure(e.paper), e.name))
    return {experiment.name: experiment for experiment in order}


def _figure(paper: str) -> tuple[int, int]:
    """A figure's number and place, to be sorted by."""
    number = int(paper.split()[1]) if paper else 0
    places = ("left", "centre", "right")
    return number, next((i for i, p in enumerate(places) if p in paper), 0)


def experiment_named(name: str) -> Experiment:
    """An experiment by its name.

    Raises:
        CatalogueError: if there is none.

    """
    if name not in experiments():
        raise CatalogueError(
            f"there is no experiment `{name}`", f"there are {', '.join(experiments())}"
        )
    return experiments()[name]


def _read(path: Path) -> Experiment:
    """An experiment from its configuration."""
    options = tomllib.loads(path.read_text(encoding="utf-8"))
    try:
        grids = tuple(_grid(grid) for grid in options.pop("cells"))
        options["columns"] = tuple(options.pop("columns", ()))
        found = Experiment(name=path.stem, grids=grids, **options)
    except (TypeError, KeyError) as error:
        raise CatalogueError(f"{path}: {error}") from error
    if found.goal is not None and (found.facet or found.x_scale != "log"):
        raise CatalogueError(f"{path}: a goal wants one panel and numbers on its axis")
    return found


def _grid(options: Options) -> Grid:
    policies = options.get("policies", {})
    named = policies if isinstance(policies, dict) else {p: p for p in policies}
    own = {**options, "policies": named}
    if "profiles" in own:
        own["profiles"] = tuple(own["profiles"])
    return Grid(**own)


def cells(experiment: Experiment, profile: str) -> list[Cell]:
    """The cells of an experiment in a profile, those with the same test together.

    A policy that the profile does not know how to train is left out.

    Raises:
        CatalogueError: if there is no such profile.

    """
    if profile not in profiles():
        raise CatalogueError(
            f"there is no profile `{profile}`", f"there are {', '.join(profiles())}"
        )
    found = {
        cell.key: cell
        for grid in experiment.grids
        if profile in grid.profiles
        for cell in _expand(experiment.name, profile, grid)
    }
    tests = {key_of(cell.test): None for cell in found.values()}
    order = {test: at for at, test in enumerate(tests)}
    return sorted(found.values(), key=lambda cell: order[key_of(cell.test)])


def _expand(experiment: str, profile: str, grid: Grid) -> Iterator[Cell]:
    """Every cell of a grid in a profile."""
    sizes = profiles()[profile]
    corner = sizes.get("corner", False)
    if grid.theory:
        what, learn = "linear attention", dict(grid.theory)
        yield Cell(experiment, profile, what, what, "theory", 0, {}, {}, learn)
        return
    for seed in sizes["seeds"]:
        parts = {"test": grid.test, "data": grid.data, "learn": grid.learn}
        for chosen in _product(parts, corner=corner):
            for name, label in grid.policies.items():
                cell = _cell(sizes, grid, chosen, name, label, seed)
                if cell is not None:
                    yield Cell(experiment, profile, **cell)


def _cell(
    sizes: Options,
    grid: Grid,
    chosen: dict[str, Options],
    name: str,
    label: str,
    seed: int,
) -> Options | None:
    """One policy in one test; None if the profile does not train it."""
    from sdm.policies.by_name import MAKERS

    setting = chosen["test"]["setting"]
    learner = _in_setting(sizes["learners"].get(name, {}), setting)
    test = {
        **_in_setting(sizes["test"], setting),
        **learner.pop("test", {}),
        **chosen["test"],
    }
    if not learner:
        if name not in MAKERS:
            return None
        believed = {k: x for k, x in chosen["data"].items() if k.startswith("p_")}
        kind, data, learn = "baseline", believed, {}
    else:
        kind = learner.pop("kind")
        data = {
            **_in_setting(sizes["data"], setting),
            **learner.pop("data", {}),
            **chosen["data"],
        }
        learn = {**learner, **chosen["learn"]}
        if kind == "icl":
            data = {}
        if grid.texts and kind == "finetune":
            learn["texts_per_task"], rest = divmod(grid.texts, data["tasks"])
            if rest:
                raise CatalogueError(
                    f"{grid.texts} texts cannot be shared out among {data['tasks']} "
                    "tasks evenly"
                )
    for options, most in ((test, "test"), (data, "data"), (learn, "learn")):
        for name_of, cap in sizes.get("most", {}).get(most, {}).items():
            if options is test or name_of in options:
                options[name_of] = min(cap, options.get(name_of, cap))
    return {
        "policy": label,
        "name": name,
        "kind": kind,
        "seed": seed,
        "test": test,
        "data": data,
        "learn": learn,
    }


def _in_setting(options: Mapping[str, Any], setting: str) -> Options:
    """Options, those of this setting in the place of the general ones."""
    general = {k: x for k, x in options.items() if k not in SETTINGS}
    return {**general, **options.get(setting, {})}


def _product(
    parts: Mapping[str, Mapping[str, Any]], *, corner: bool
) -> Iterator[dict[str, Options]]:
    """Every combination of the values that are lists; only the first of each."""
    axes = [
        [(part, name, value) for value in (values[:1] if corner else values)]
        for part, options in parts.items()
        for name, values in options.items()
        if isinstance(values, list)
    ]
    for combination in itertools.product(*axes):
        chosen = {part: dict(options) for part, options in parts.items()}
        for part, name, value in combination:
            chosen[part][name] = value
        yield chosen
