"""Configurations of a cell: its test, its dataset and its training.

An option of a test or a dataset belongs to `EvaluationConfig` or `OracleConfig` if it
has a field of that name, and to the family otherwise.
"""

import dataclasses
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sdm.data.benchmark import EvaluationConfig
from sdm.data.request import OracleConfig
from sdm.experiments.spec import UNSPELLED, Cell, ExperimentError, Options
from sdm.llm.recipes import recipe
from sdm.policies.learner import learners
from sdm.tasks.family import HIDDEN, TaskFamily
from sdm.tasks.registry import find_family, load_family, option_names

# Option in `learn` of a language model's actions in the test, not of its training.
ACTING_TEMPERATURE = "acting_temperature"


def _names(config: type, *others: str) -> frozenset[str]:
    """Return the options of a configuration that a cell can set, without `others`."""
    return frozenset(each.name for each in dataclasses.fields(config)) - {*others}


TEST = _names(EvaluationConfig, "training_family", "seed")
DATA = _names(OracleConfig, "horizon", "kind", "seed", "observes_reward")


def evaluation_of(cell: Cell) -> EvaluationConfig:
    """Return the test of a cell.

    Raises:
        ValueError: if an option is unknown or its value is invalid.

    """
    family = test_family(cell.test)
    options = {k: x for k, x in cell.test.items() if k in TEST}
    options |= {
        "family": family,
        "training_family": training_family(cell.test, cell.data),
        "horizon": cell.test.get("horizon", family.defaults.horizon),
    }
    return EvaluationConfig(**options, seed=cell.seed)


def dataset_of(cell: Cell) -> OracleConfig:
    """Return the training dataset of a cell's policy.

    Raises:
        ValueError: if an option is unknown or its value is invalid.

    """
    test, family = evaluation_of(cell), training_family(cell.test, cell.data)
    random = 0 if test.kind in HIDDEN else family.defaults.random_trajectories
    options = {
        "believe": test.believe,
        "random_trajectories": random,
        **{k: x for k, x in cell.data.items() if k in DATA},
        "family": family,
    }
    return OracleConfig(
        **options,
        horizon=test.horizon,
        seed=cell.seed,
        kind=test.kind,
        observes_reward=test.observes_reward,
    )


def test_family(test: Mapping[str, Any]) -> TaskFamily:
    """Return the family of a test.

    Raises:
        ValueError: if the family or an option is unknown, or a value is invalid.

    """
    reference = str(test.get("family", UNSPELLED["family"]))
    return _load(reference, _own("test", reference, test, TEST))


def training_family(test: Mapping[str, Any], data: Mapping[str, Any]) -> TaskFamily:
    """Return the family of a dataset: the test's, with the options in `data`.

    If `data` selects another family, the options of the test's family do not apply.

    Raises:
        ValueError: as in `test_family`.

    """
    own: Options = {}
    reference = str(test.get("family", UNSPELLED["family"]))
    if data.get("family", reference) == reference:
        own = _own("test", reference, test, TEST)
    reference = str(data.get("family", reference))
    return _load(reference, {**own, **_own("data", reference, data, DATA)})


def _own(
    part: str, reference: str, options: Mapping[str, Any], others: frozenset[str]
) -> Options:
    """Return the options that belong to a family, by name."""
    names = option_names(find_family(reference)[0])
    own = {k: x for k, x in options.items() if k not in others}
    if unknown := sorted(own.keys() - set(names)):
        raise ExperimentError(
            f"{part}: unknown option `{unknown[0]}`",
            f"options are {', '.join(sorted(others))}; options of family "
            f"`{reference}` are {', '.join(names) or 'none'}",
        )
    return own


def _load(reference: str, options: Options) -> TaskFamily:
    return _loaded(reference, json.dumps(options, sort_keys=True))


@lru_cache(maxsize=32)
def _loaded(reference: str, options: str) -> TaskFamily:
    """Create each family once, since reading a folder of models is slow."""
    return load_family(reference, json.loads(options))


def first_stage(cell: Cell) -> Cell | None:
    """Return the first training stage of a cell with two stages, else None.

    `first` in its `learn` holds the stage's horizon and the other options that differ.
    Short episodes provide a training signal that repetitions dilute in long ones.
    """
    if "first" not in cell.learn:
        return None
    learn = {name: x for name, x in cell.learn.items() if name != "first"}
    other = dict(cell.learn["first"])
    test = {**cell.test, "horizon": other.pop("horizon")}
    return dataclasses.replace(cell, test=test, learn={**learn, **other})


def training_of(cell: Cell, data: str) -> Any:
    """Return the training configuration of a cell's policy, in its last stage.

    Raises:
        ValueError: if the learner or an option is unknown, or a value is invalid.

    """
    learn = {"support": evaluation_of(cell).support, **cell.learn}
    learn.pop("first", None)
    learn.pop(ACTING_TEMPERATURE, None)
    try:
        if cell.learner == "finetune":
            return recipe(data, learn.pop("base"), seed=cell.seed, **learn)
        if cell.learner not in learners():
            known = ("untrained", "icl", "finetune", *learners())
            raise ExperimentError(
                f"unknown learner `{cell.learner}`", f"learners are {', '.join(known)}"
            )
        config = learners()[cell.learner].config
        if "support" not in {each.name for each in dataclasses.fields(config)}:
            learn.pop("support")  # the learner uses no demonstrations
        return config(data=data, seed=cell.seed, **learn)
    except (TypeError, KeyError) as error:
        raise ExperimentError(f"learn, policy `{cell.policy}`: {error}") from error
