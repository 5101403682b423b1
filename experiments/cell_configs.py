"""Configurations of a cell: its test, and the dataset of its policy.

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
from sdm.tasks.family import HIDDEN, TaskFamily
from sdm.tasks.registry import find_family, load_family, option_names


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
