"""What is checked of a family, by mistakes that people make, and on every family."""

import json
import sys

import numpy as np
import pytest
from own_module import PAGE, how_to_family, working_folder
from random_models import random_apomdp, random_pomdp
from tolerances import ROUNDING

from sdm.solvers_jax import save_npz
from sdm.tasks import FamilyError, check_family, families, load_family
from sdm.tasks.families.folder import FolderFamily
from sdm.tasks.registry import reference_of

PARAMETERS = "    def parameters(self, key, n, *, split, first=0):\n        return "
UNIFORM = "UniformFamily.parameters(self, key, n, split=split, first=first)"
MODEL = "    def model(self, params, kind):\n"
PRIOR = "    def prior(self):\n        return UniformFamily.prior(self)"
BY_INDEX = (
    '{"a": (first + jnp.arange(n, dtype=jnp.int32)).astype(float) / 9,'
    ' "b": jnp.full(n, 0.5)}'
)
LISTED = "    def available(self, split):\n        return "

# What the how-to page's family has, what stands there instead, and what is said.
MISTAKES = [
    ('    name = "treatment"\n', "", "`name` is missing"),
    ('name = "treatment"', "name = 3", "`name` must be a string, found 3"),
    ('name = "treatment"', "name = ''", "`name` must be a string, found ''"),
    ("cells = (12, 12)", "covers = 3", "`covers` must be a method, found 3"),
    ("cells = (12, 12)", 'kinds = {"mpd"}', "`kinds` must be a set of mdp, pomdp"),
    ("    @property\n", "", "`spaces` must be `sdm.tasks.Spaces`, found <bound"),
    ("state=(condition,)", "state=()", "`spaces.state` must have a component"),
    ('"treat B")', '"treat A")', "`spaces.actions` must be a tuple of distinct"),
    (', "treat B")', ")", "must have 2 actions as in `spaces`, found 3"),
    (
        "(condition,)",
        "(condition, condition)",
        "have 36 states as in `spaces`, found 6",
    ),
    ('"treat B")', '"treat B"), duplicates=((0, 5),)', "actions from 0 to 2, found"),
    ('"treat B")', '"treat B"), duplicates=((1, 1),)', "distinct actions from 0 to"),
    ('"treat B")', '"treat B"), duplicates=((1, 2),)', "between actions 1 and 2"),
    ('"treat B")', '"treat B"), rewards=(0.0,)', "found reward[0, 0, 1] = -0.1"),
    ("cells = (12, 12)", "defaults = 10", "`defaults` must be `sdm.tasks.Defaults`"),
    ("a_min: float = 0.0", "a_min: complex = 0j", "`config` must be serializable"),
    (MODEL, f"{MODEL}        return None\n", "must return MDP for kind 'mdp', found"),
    (MODEL, f"{MODEL}        params['c']\n", "`model` raised KeyError: 'c'"),
    (
        MODEL,
        f"{MODEL}        if params['a'].max() > 2:\n            return None\n",
        "`model` raised TracerBoolConversionError",
    ),
    (
        MODEL,
        f"{MODEL}        params = {{x: y[:1] for x, y in params.items()}}\n",
        "must return 2 models for 2 tasks, found batch axes (1,)",
    ),
    (
        "0.6 * same",
        "0.5 * same",
        "transition[0, 0, 0]: probabilities sum to 0.9, not 1",
    ),
    (
        "level = jnp.arange(self.levels)",
        "self.__dict__['levels'] = self.levels + 1; level = jnp.arange(self.levels)",
        "shapes and dtypes in every call, found transition float64[7, 3, 7] and",
    ),
    ("discount=0.95", "discount=1.5", "discount = 1.5: must lie between 0 and 1"),
    (
        MODEL,
        f"{PARAMETERS}[0.1] * n\n\n{MODEL}",
        "must return arrays by name, found [0",
    ),
    (
        MODEL,
        f"{PARAMETERS}{{'a': [0.1] * n}}\n\n{MODEL}",
        "must return arrays, found a = [0.1",
    ),
    (
        MODEL,
        f"{PARAMETERS}{{'a': jnp.zeros(2), 'b': jnp.zeros(2)}}\n\n{MODEL}",
        "must return arrays with 16 tasks on axis 0, found a of shape (2,)",
    ),
    (
        MODEL,
        f"{PARAMETERS}{UNIFORM.replace('first=first', 'first=0')}\n\n{MODEL}",
        "must return the same task 15 with n = 16 and with n = 1, first = 15",
    ),
    (
        MODEL,
        f"{PARAMETERS}{UNIFORM.replace('key', 'jax.random.key(0)', 1)}\n\n{MODEL}",
        "different tasks for the two splits, found the same 16 tasks in both",
    ),
    (
        MODEL,
        f"{PARAMETERS}{BY_INDEX}\n\n{LISTED}3\n\n{MODEL}",
        "found test task 0 equal to training task 0",
    ),
    (
        MODEL,
        f"{PARAMETERS}{BY_INDEX.replace('/ 9', '* jnp.nan')}\n\n{MODEL}",
        "`parameters` must be finite, found a[0] = nan",
    ),
    (MODEL, f"{LISTED}0\n\n{MODEL}", "`available` must be None or a positive number"),
    (
        MODEL,
        f"{PRIOR}._replace(weight=jnp.ones(144))\n\n{MODEL}",
        "`prior` must have weights that sum to 1, found 144",
    ),
    (
        MODEL,
        f"{PRIOR}._replace(weight=jnp.ones(()))\n\n{MODEL}",
        "`prior` must have one weight per candidate, found shape ()",
    ),
    (
        MODEL,
        f"{PRIOR}._replace(params={{'a': jnp.ones(144)}})\n\n{MODEL}",
        "shapes and dtypes in every call, found b float64[] and nothing[]",
    ),
    (
        MODEL,
        f"{PRIOR}._replace(params={{'a': jnp.full(144, 2.0), 'b': jnp.ones(144)}})"
        f"\n\n{MODEL}",
        "`model of the prior` is not a valid mdp: transition[0, 0, 1, 0]",
    ),
    (
        MODEL,
        f"    def covers(self, trained_on):\n        return 'all'\n\n{MODEL}",
        "`covers` must return None for the family itself, found 'all'",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("there", "instead", "message"), MISTAKES)
def test_a_mistake_is_named_in_one_line(tmp_path, there, instead, message):
    source = how_to_family()
    assert there in source
    with working_folder(tmp_path, treatment=source.replace(there, instead, 1)):
        with pytest.raises(FamilyError) as caught:
            check_family(load_family("treatment:Treatment"), "mdp")
    assert message in str(caught.value)
    assert str(caught.value).startswith("family `") and "\n" not in str(caught.value)


@pytest.fixture
def treatment(tmp_path):
    with working_folder(tmp_path, treatment=how_to_family()):
        load_family("treatment:Treatment")
        yield sys.modules["treatment"].Treatment


@pytest.mark.parametrize("part", ["state", "symbol"])
def test_components_must_be_a_tuple(treatment, monkeypatch, part):
    spaces = treatment().spaces
    object.__setattr__(spaces, part, spaces.state[0])  # as without type checks
    monkeypatch.setattr(treatment, "spaces", spaces)
    with pytest.raises(FamilyError, match=rf"`spaces.{part}` must be a tuple"):
        check_family(treatment(), "mdp")


def test_a_family_that_cannot_be_hashed_is_refused(treatment, monkeypatch):
    monkeypatch.setattr(treatment, "__hash__", None)
    with pytest.raises(FamilyError, match="unhashable type: 'Treatment'") as caught:
        check_family(treatment(), "mdp")
    assert "frozen dataclass" in caught.value.hint


def test_a_config_of_another_family_is_refused(treatment, monkeypatch):
    monkeypatch.setattr(treatment, "config", lambda self: {"levels": self.levels + 1})
    with pytest.raises(FamilyError, match="must reconstruct the same family"):
        check_family(treatment(), "mdp")


def test_a_family_inside_a_function_is_refused(treatment):
    class Local(treatment):
        pass

    with pytest.raises(FamilyError, match="must not be defined inside a function"):
        check_family(Local(), "mdp")


def test_every_kind_of_a_family_is_checked(treatment, monkeypatch):
    monkeypatch.setattr(treatment, "kinds", frozenset({"mdp", "pomdp"}))
    check_family(treatment(), "mdp")
    with pytest.raises(FamilyError, match="must return POMDP or MOMDP for kind"):
        check_family(treatment(), "pomdp")


def test_a_name_that_stands_for_another_class_is_refused(treatment, monkeypatch):
    family = treatment()
    other = type("Other", (treatment,), {"__module__": "treatment"})
    monkeypatch.setattr(sys.modules["treatment"], "Treatment", other)
    with pytest.raises(FamilyError, match="must reconstruct the same family"):
        check_family(family, "mdp")


def test_a_kind_that_the_family_does_not_pose_is_refused(treatment):
    with pytest.raises(ValueError, match="kind must be one of mdp, found"):
        check_family(treatment(), "pomdp")


def test_an_object_without_methods_is_refused():
    with pytest.raises(FamilyError, match="family `dict`: `name` is missing"):
        check_family({}, "mdp")


def test_the_error_on_the_how_to_page_is_true(tmp_path):
    source = how_to_family().replace("0.6 * same", "0.5 * same")
    with working_folder(tmp_path, treatment=source):
        with pytest.raises(FamilyError) as caught:
            check_family(load_family("treatment:Treatment"), "mdp")
    assert f"error: {caught.value}" in PAGE.read_text()


class Miscounted(FolderFamily):
    """Says that there is one model of each task, where there are two."""

    models = 1


class Misjudged(FolderFamily):
    """Gives one divergence for each task, where there are two."""

    def divergence(self, params, model):
        """Drop that of the first model."""
        return super().divergence(params, model)[:, 1:]


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Arguments of the families that need one."""
    files = tmp_path_factory.mktemp("models")
    ambiguous = tmp_path_factory.mktemp("ambiguous")
    for seed in range(4):
        save_npz(random_pomdp(seed), files / f"{seed}.npz")
        save_npz(random_apomdp(seed, 0.5), ambiguous / f"{seed}.npz")
    return {
        "folder": f"folder:{files}",
        "gymnasium": "gymnasium:FrozenLake-v1",
        "ambiguous": str(ambiguous),
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Miscounted, r"`models` must be the number of models per task, 2, found 1"),
        (Misjudged, r"`divergence` must have shape \(2, 2\).*, found \(2, 1\)"),
    ],
)
def test_ambiguity_sets_are_counted(examples, wrong, message):
    check_family(FolderFamily(examples["ambiguous"]), "apomdp")
    with pytest.raises(FamilyError, match=message):
        check_family(wrong(examples["ambiguous"]), "apomdp")


def posed():
    """Every registered family, and every kind that it poses."""
    for name, factory in families().items():
        kinds = factory.kinds if isinstance(factory.kinds, frozenset) else {"pomdp"}
        yield from ((name, kind) for kind in sorted(kinds))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [*posed()])
def test_every_registered_family_passes(examples, name, kind):
    family = load_family(examples.get(name, name))
    check_family(family, kind)
    assert reference_of(family) == name and family.covers(family) is None
    written = json.loads(json.dumps(family.config()))
    assert load_family(name, written) == family
    _, weight = family.prior()
    assert float(np.sum(weight)) == pytest.approx(1, abs=ROUNDING)
