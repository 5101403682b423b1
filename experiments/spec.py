"""Specification of experiments: grids of cells, each one policy, one test and one seed.

A cell's numbers and names determine its result, up to the code and the versions, which
its row records.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sdm.storage.checks import check_finite

PROFILES = ("smoke", "laptop", "paper")

# Measures of a row: the headline gap, and those over all models of ambiguity sets.
MEASURES = ("gap", "worst_model", "alpha_meu", "random_model")

# Defaults of a test: they do not change the key of a cell.
UNSPELLED = {"family": "energy", "support": 2, "demonstrations": "optimal"}

Options = dict[str, Any]


class ExperimentError(ValueError):
    """An unknown experiment or profile, or an invalid configuration or row."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Set the message, and the hint on how to fix it."""
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Grid:
    """A grid of cells in an experiment's configuration.

    Every list in `test`, `data` and `learn` is an axis: the grid has a cell for each
    combination of their values, each policy and each seed.

    Attributes:
        policies: learners of the profile or policies without training, and the label of
            each in figures and tables.
        test: `family` and `kind` of the tasks, options of the family and of
            `EvaluationConfig`.
        data: options of the oracle dataset and of its family that differ from the
            test's.
        learn: options of the learner.
        prior: options in `data` that also change the prior of policies without
            training, which ignore all other options in `data`.
        texts: number of training texts, split evenly among the tasks; None for the
            learner's default.
        study: name of a study whose cells replace policies in tests; see `study`.
        options: its options.
        profiles: profiles that include the grid.
        seeds: random seeds; () for the profile's.
        shows: values that describe a test, by their symbol; the values in `test` if
            empty.
        paper: whether the paper has results of these policies.

    """

    policies: Mapping[str, str] = field(default_factory=dict)
    test: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    learn: Mapping[str, Any] = field(default_factory=dict)
    prior: tuple[str, ...] = ()
    texts: int | None = None
    study: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    profiles: tuple[str, ...] = PROFILES
    seeds: tuple[int, ...] = ()
    shows: Mapping[str, str] = field(default_factory=dict)
    paper: bool = True

    @property
    def shown(self) -> Mapping[str, str]:
        """Dotted names of the values that describe a test, by their symbol."""
        own = (name for name in self.test if name not in ("family", "kind"))
        return self.shows or {name: f"test.{name}" for name in own}


@dataclass(frozen=True)
class Claim:
    """A claim that a measure of one policy is less than that of another, or a number.

    Attributes:
        text: the claim, as a main clause.
        less: the policy whose measure is less, named as in `policy_runs`.
        than: the other policy, or a number.
        measure: number in the result of a row.
        across: dotted name of a value of the test in which the policies may differ,
            such as `test.models`; "" to compare them in the same tests only.

    Raises:
        ValueError: if a value is of the wrong type, empty or not finite, or a policy
            is compared with itself.

    """

    text: str
    less: str
    than: str | float
    measure: str = "gap_percent"
    across: str = ""

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("text", "less", "measure"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise ValueError(f"claim: `{name}` must be a text, found {value!r}")
        if not isinstance(self.than, str):
            check_finite(f"claim `{self.text}`: than", self.than)
        elif self.than == self.less:
            raise ValueError(f"claim `{self.text}`: compares `{self.less}` with itself")


@dataclass(frozen=True)
class Experiment:
    """A figure of the paper to reproduce, or an experiment beyond it.

    Attributes:
        name: name of the configuration file.
        title: title of the experiment.
        question: question that the experiment answers.
        grids: grids of cells.
        paper: the paper's figure; "" for an experiment beyond the paper.
        x: value on the axis: the dotted name of a cell's value, or `condition` for the
            values in `Grid.shows`, or `tasks` for family and kind. A study has its own.
        x_title: title of the axis.
        x_scale: log or nominal.
        facet: dotted name of the value that defines the panels; "" for one panel.
        facet_title: text before the value of a panel.
        remark: note on the figure.
        measure: measure on the vertical axis: `gap`, or `worst_model`, `alpha_meu` or
            `random_model` for tests that play in every model of ambiguity sets.
        columns: additional columns of the table: `training seconds`, `training tokens`,
            or other measures.
        goal: target gap in per cent, marked in the figure; the report states the value
            on the axis at which each policy reaches it. None for no goal.
        lead: policy whose gaps the conclusion states.
        compare: pairs of policies that the conclusion compares, see `comparison`.
        claims: claims on which the conclusion states verdicts.
        learners: learners, by name, that extend or override those of the profiles.
        source: path of a user's configuration; "" for the package's experiments.

    """

    name: str
    title: str
    question: str
    grids: tuple[Grid, ...]
    paper: str = ""
    x: str = ""
    x_title: str = ""
    x_scale: str = "nominal"
    facet: str = ""
    facet_title: str = ""
    remark: str = ""
    measure: str = "gap"
    columns: tuple[str, ...] = ()
    goal: float | None = None
    lead: str = "tiny"
    compare: tuple[tuple[str, str], ...] = ()
    claims: tuple[Claim, ...] = ()
    learners: Mapping[str, Options] = field(default_factory=dict)
    source: str = ""

    @property
    def command(self) -> str:
        """Argument of `sdm experiment run`."""
        return self.source or self.name

    @property
    def study(self) -> str:
        """Name of the study that all its grids are of; "" for policies in tests."""
        return self.grids[0].study if self.grids else ""


@dataclass(frozen=True)
class Cell:
    """One policy in one test with one seed.

    Attributes:
        experiment: name of the experiment.
        profile: name of the profile.
        policy: label of the policy in figures and tables.
        learner: origin of the policy, see `origin`; or the name of a study.
        seed: random seed of tasks, episodes, weights and texts.
        test: options of the test; {} for a study.
        data: options of the training dataset; for policies without training, the
            family options in which their prior differs from the test's.
        learn: options of the learner or the study; for `untrained`, the `name` of the
            policy.
        shows: values that describe the test; see `Grid`.
        paper: whether the paper has results of this policy.
        study: short description of a study's cell; "" for a policy in a test.

    """

    experiment: str
    profile: str
    policy: str
    learner: str
    seed: int
    test: Options
    data: Options
    learn: Options
    shows: Mapping[str, str] = field(default_factory=dict)
    paper: bool = True
    study: str = ""

    @property
    def spec(self) -> Options:
        """Values that determine the result, except code and versions."""
        names = ("learner", "seed", "test", "data", "learn")
        return {name: getattr(self, name) for name in names}

    @property
    def key(self) -> str:
        """Hash of the spec, independent of explicit defaults."""
        test = {k: x for k, x in self.test.items() if UNSPELLED.get(k) != x}
        return key_of({**self.spec, "test": test})

    @property
    def family(self) -> str:
        """Reference of the test's family."""
        return str(self.test.get("family", UNSPELLED["family"]))

    @property
    def tasks(self) -> str:
        """Family and kind of the test's tasks."""
        return f"{self.family} {self.test['kind']}"

    @property
    def made_by(self) -> str:
        """Name of a policy without training, base of a language model, or learner."""
        return str(self.learn.get("name") or self.learn.get("base") or self.learner)

    @property
    def condition(self) -> str:
        """Short description of the test."""
        if self.study:
            return self.study
        shown = {s: self.value(name) for s, name in self.shows.items()}
        parts = [
            f"{symbol} = {plain(value)}" if symbol else plain(value)
            for symbol, value in shown.items()
            if value is not None
        ]
        return ", ".join(parts) or self.tasks

    def value(self, name: str) -> Any:
        """Return a value of the cell by its dotted name; None if it is not set.

        Raises:
            ExperimentError: if the first part of the name is unknown.

        """
        part, _, rest = name.partition(".")
        if not hasattr(self, part):
            raise ExperimentError(
                f"`{self.experiment}`: unknown value `{name}`",
                "values are condition, tasks, test.OPTION, data.OPTION, learn.OPTION",
            )
        found = getattr(self, part)
        return found.get(rest) if rest else found


def key_of(spec: Mapping[str, Any]) -> str:
    """Return a short hash of JSON values; 1 and 1.0 have the same hash."""
    text = json.dumps(_normal(spec), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _normal(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _normal(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_normal(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def plain(value: Any) -> str:
    """Return a number or a name as text for reports."""
    return f"{value:g}" if isinstance(value, float) else str(value)
