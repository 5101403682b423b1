"""Solver methods as values: dispatch, options, and methods of other packages."""

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from random_models import random_apomdp, random_mdp, random_pomdp

from sdm.data.request import OracleConfig
from sdm.data.solved_tasks import method_of
from sdm.solvers_jax import (
    APOMDP,
    MDP,
    POMDP,
    BackwardInduction,
    DepthFirst,
    DiscretisedBeliefs,
    IncrementalPruning,
    PointBased,
    methods_for,
    register_method,
    solve,
)
from sdm.solvers_jax import methods as module
from sdm.solvers_jax.backward_induction import backward_induction
from sdm.storage.docstrings import field_texts
from sdm.tasks.families.energy import EnergyFamily

HIDDEN = random_pomdp(0)


def test_every_type_of_model_has_a_default_and_names():
    assert methods_for(POMDP) == {
        "points": PointBased,
        "search": DepthFirst,
        "exact": IncrementalPruning,
    }
    assert methods_for(APOMDP) == {"points": DiscretisedBeliefs}
    assert methods_for(MDP) == {"backward-induction": BackwardInduction}


def test_a_value_a_name_and_plain_keywords_are_one_method():
    wanted = solve(HIDDEN, horizon=3, method=PointBased(gap=1e-3, points=8))
    for options in (
        {"gap": 1e-3, "points": 8},
        {"method": "points", "gap": 1e-3, "points": 8},
    ):
        found = solve(HIDDEN, horizon=3, **options)
        assert (found.lower, found.upper) == (wanted.lower, wanted.upper)
    exact = solve(HIDDEN, horizon=3, method=IncrementalPruning())
    assert exact.lower == solve(HIDDEN, horizon=3, method="exact").lower
    assert wanted.lower <= exact.upper and exact.lower <= wanted.upper


def test_fields_are_documented_for_the_command_line():
    for model in (MDP, POMDP, APOMDP):
        for method in methods_for(model).values():
            names = {field.name for field in dataclasses.fields(method)}
            assert names == field_texts(method).keys()


@pytest.mark.parametrize(
    ("model", "options", "error", "words"),
    [
        (
            HIDDEN,
            {"method": "guess"},
            ValueError,
            "POMDP models, whose methods are points, search, exact",
        ),
        (
            random_mdp(0),
            {"method": "exact"},
            ValueError,
            "methods are backward-induction",
        ),
        (
            random_mdp(0),
            {"method": PointBased()},
            ValueError,
            "solves POMDP models; methods of MDP models are",
        ),
        (random_mdp(0), {"gap": 0.1}, TypeError, "'gap' .* options are none"),
        (HIDDEN, {"colour": "red"}, TypeError, "'colour' .* are gap, points"),
        (HIDDEN, {"method": "exact", "gap": 1.0}, TypeError, "'gap' of method 'exact'"),
        (HIDDEN, {"method": PointBased(), "gap": 1.0}, TypeError, "its fields, found"),
        (HIDDEN, {"method": PointBased}, TypeError, "must be a method"),
        (HIDDEN, {"gap": -1.0}, ValueError, "gap = -1.0: must be 0 or more"),
        (HIDDEN, {"points": 0}, ValueError, "points = 0"),
        (random_apomdp(0, 0.5), {"points": 3}, ValueError, "points = 3"),
        ("a model", {}, TypeError, "no method solves str"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_exists(model, options, error, words):
    with pytest.raises(error, match=words):
        solve(model, horizon=2, **options)


@pytest.fixture
def registry(monkeypatch):
    """A registry that forgets what a test registers."""
    methods_for(MDP)  # loads all that there is
    monkeypatch.setattr(module, "_defaults", [*module._defaults])
    monkeypatch.setattr(module, "_others", [*module._others])
    yield
    module._load_all.cache_clear()


@dataclass(frozen=True)
class TakeTheFirst:
    """A method of another package.

    Attributes:
        stages: decisions that are planned.

    """

    stages: int = 1

    name: ClassVar[str] = "first"
    handles: ClassVar[tuple[type, ...]] = (MDP,)

    def solve(self, model, *, horizon):  # noqa: D102
        return backward_induction(model, horizon=self.stages)


def test_a_method_of_another_package_is_found_by_its_entry_point(registry, monkeypatch):
    point = SimpleNamespace(
        name="first", value="its.module", load=lambda: register_method(TakeTheFirst)
    )
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: [point])
    module._load_all.cache_clear()
    assert list(methods_for(MDP)) == ["backward-induction", "first"]
    model = random_mdp(0)
    found = solve(model, horizon=5, method="first", stages=2)
    np.testing.assert_array_equal(found.value, solve(model, horizon=2).value)
    point.load = lambda: 1 / 0
    module._load_all.cache_clear()
    with pytest.raises(ValueError, match="`first`: its package cannot be loaded"):
        methods_for(MDP)


def test_datasets_take_their_options_to_the_method():
    config = {"horizon": 2, "tasks": 1, "trajectories": 1, "gap": 0.2, "points": 7}
    for kind, model, wanted in (
        ("mdp", MDP, BackwardInduction()),
        ("pomdp", POMDP, PointBased(gap=0.2, points=7)),
        ("apomdp", APOMDP, DiscretisedBeliefs(points=7)),
    ):
        made = method_of(
            OracleConfig(family=EnergyFamily(), kind=kind, **config), model
        )
        assert made == wanted
