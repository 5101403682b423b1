"""Families of a user's own: references to them, and the how-to page."""

import json
import tomllib
import warnings

import jax
import numpy as np
import pytest
from own_module import blocks, how_to_family, installed, working_folder
from tolerances import ROUNDING
from typer.testing import CliRunner

from sdm.cli import app
from sdm.data.shards import read_manifest
from sdm.solvers_jax import solve
from sdm.tasks import FamilyError, check_family, families, load_family
from sdm.tasks.families.energy import EnergyFamily
from sdm.tasks.registry import GROUP, reference_of

OBJECTS = (
    how_to_family()
    + """

def smaller(levels: int = 3, **others):
    return Treatment(levels=levels, **others)


def raises():
    return {}["nothing"]


def needs(patients):
    return Treatment()


class Nested:
    Inner = Treatment


@dataclass(frozen=True)
class Weighted(Treatment):
    weights: tuple[float, ...] = (1.0, 2.0)


mild = Treatment(cost=0.0)
number = 3


def local():
    @dataclass(frozen=True)
    class Local(Treatment):
        pass

    return Local()
"""
)


@pytest.fixture
def here(tmp_path):
    sources = {
        "own": OBJECTS,
        "divides": "x = 1 / 0",
        "imports": "import not_there_at_all",
        "syntax": "def f(:",
        "leaves": "raise SystemExit(3)",
        "takes": "from sdm.tasks import Family, register\n\n\n"
        "@register\nclass Mine(Family):\n    name = 'energy'\n",
    }
    with working_folder(tmp_path, **sources):
        yield tmp_path


def written_and_read(family):
    """The family that another command makes from a file."""
    return load_family(reference_of(family), json.loads(json.dumps(family.config())))


@pytest.mark.parametrize(
    ("reference", "options", "expected"),
    [
        ("own:Treatment", {}, {"levels": 6, "cost": 0.1}),
        ("own:Treatment", {"levels": 4}, {"levels": 4}),
        ("own:mild", {}, {"cost": 0.0}),
        ("own:mild", {"levels": 4}, {"levels": 4, "cost": 0.0}),
        ("own:smaller", {"cost": 0.2}, {"levels": 3, "cost": 0.2}),
        ("own:Nested.Inner", {}, {"levels": 6}),
    ],
)
def test_a_reference_is_followed_and_files_lead_back(
    here, reference, options, expected
):
    family = load_family(reference, options)
    assert expected.items() <= family.config().items()
    assert reference_of(family) == "own:Treatment"
    assert written_and_read(family) == family


@pytest.mark.parametrize(
    ("reference", "field", "value"),
    [("energy", "p_min", 0.2), ("energy:0.3", "p_min", 0.3), ("garnet:7", "states", 7)],
)
def test_a_name_may_have_an_argument(reference, field, value):
    family = load_family(reference)
    assert getattr(family, field) == value and type(getattr(family, field)) is type(
        value
    )
    assert reference_of(family) == family.name and written_and_read(family) == family


@pytest.mark.parametrize(
    ("reference", "message", "hint"),
    [
        ("energi", "unknown family `energi`", "did you mean `energy`? families are"),
        ("", "unknown family ``", "families are bandit, darkroom, energy"),
        ("models/none", "there is no such folder", "a folder of models"),
        ("nofolder/", "there is no such folder", "families are bandit, darkroom"),
        ("own.py", "it is a file", "sdm solve --model"),
        ("energy:x", "`p_min` must be a number, found `x`", ""),
        ("energy:", "`p_min` is missing, found nothing", ""),
        ("folder", "the option `path` is missing", "folder:PATH"),
        ("nowhere:Own", "no module `nowhere` in", "the folder of `nowhere.py`"),
        ("own.py:Treatment", "no module `own.py`", "without `.py`: own:Treatment"),
        ("own:Treatmen", "`own` has no `Treatmen`", "did you mean `Treatment`?"),
        ("own:number", "`name` is missing, found an object of type int", "subclass"),
        ("own:raises", "cannot be created: KeyError: 'nothing'", "SDM_DEBUG=1"),
        ("own:needs", "the option `patients` is missing", "--patients"),
        ("divides:X", "ZeroDivisionError: division by zero (`divides.py`, line 1)", ""),
        ("imports:X", "No module named 'not_there_at_all'", "correct the module"),
        ("syntax:X", "SyntaxError: invalid syntax (syntax.py, line 1)", ""),
        ("leaves:X", "SystemExit: 3", ""),
        (
            "takes:Mine",
            "the name is taken, found `sdm.tasks.families.energy:",
            "another",
        ),
    ],
)
def test_what_leads_to_no_family_says_why_in_one_line(here, reference, message, hint):
    with pytest.raises(FamilyError) as caught:
        load_family(reference)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert hint in caught.value.hint


def test_a_tuple_is_a_tuple_again_when_read_from_a_file(here):
    family = load_family("own:Weighted", {"weights": (3.0, 4.0)})
    assert written_and_read(family) == family and hash(written_and_read(family))


def test_an_unknown_option_lists_the_options(here):
    with pytest.raises(FamilyError, match="unknown option 'colour'") as caught:
        load_family("own:Treatment", {"colour": "red"})
    assert (
        caught.value.hint == "its options are a_min, a_max, b_min, b_max, levels, cost"
    )


def test_a_family_is_found_from_another_folder_only_where_its_module_is(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with working_folder(tmp_path / "a", own=OBJECTS):
        written = reference_of(load_family("own:mild"))
        # A registered name would mean nothing to another process.
        assert written not in families()
    with working_folder(tmp_path / "b"):
        with pytest.raises(FamilyError, match=r"no module `own` in `.*/b`") as caught:
            load_family(written)
        assert caught.value.hint.startswith("run this in the folder of `own.py`")


def test_a_class_inside_a_function_is_refused_before_anything_is_written(here):
    with pytest.raises(FamilyError, match="defined inside a function"):
        check_family(load_family("own:local"), "mdp")


def test_a_package_registers_a_family(here):
    with installed(here, {"clinic": "own:Treatment"}):
        assert "clinic" in families()
        family = load_family("clinic", {"levels": 4})
        assert reference_of(family) == "clinic" and written_and_read(family) == family


def test_a_broken_package_stops_nobody_else(here):
    points = {"clinic": "own:Treatment", "broken": "divides:X", "energy": "own:mild"}
    with installed(here, points):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert {"clinic", "energy"} <= families().keys()
        assert type(load_family("energy")) is EnergyFamily
        assert ["skipped" in str(w.message) for w in said] == [True, True]
        with pytest.raises(FamilyError, match="ZeroDivisionError") as caught:
            load_family("broken")
        assert "uninstall" in caught.value.hint


def by_hand(family, a, b, horizon):
    """Value of a task of the how-to page, by backward induction in loops."""
    n, value = family.levels, [0.0] * family.levels
    for _ in range(horizon):
        new = []
        for s in range(n):
            best = -np.inf
            for helps, cost in ((0.0, 0.0), (a, family.cost), (b, family.cost)):
                left = 0.4 * value[max(s - 1, 0)] + 0.6 * value[s]
                then = helps * value[min(s + 1, n - 1)] + (1 - helps) * left
                best = max(best, s / (n - 1) - cost + 0.95 * then)
            new.append(best)
        value = new
    return np.mean(value)


def test_the_how_to_page_is_true(tmp_path):
    source, check, *others = blocks("python")
    assert not others and len(source.splitlines()) < 60
    with working_folder(tmp_path, treatment=source):
        exec(check, {})
        family = load_family("treatment:Treatment")
        params = family.parameters(jax.random.key(1), 3, split="test")
        found = solve(family.model(params, "mdp"), horizon=4).value
        for i, value in enumerate(np.asarray(found)):
            a, b = (float(params[name][i]) for name in ("a", "b"))
            assert value == pytest.approx(by_hand(family, a, b, 4), abs=ROUNDING)
        run = CliRunner().invoke
        data = ["--family", "treatment:Treatment", "--tasks", "6", "--horizon", "3"]
        made = run(app, ["solve", *data, "--levels", "3", "--out", "data", "--json"])
        assert made.exit_code == 0, made.output
        header = read_manifest(tmp_path / "data")
        assert header["family"] == "treatment:Treatment"
        assert header["family_config"]["levels"] == 3


def test_the_page_shows_the_entry_point_group():
    (toml,) = blocks("toml")
    assert GROUP in tomllib.loads(toml)["project"]["entry-points"]


def test_a_range_in_the_wrong_order_is_refused(here):
    family = load_family("own:Treatment", {"a_min": 0.9, "a_max": 0.1})
    for use in (
        family.prior,
        lambda: family.parameters(jax.random.key(0), 2, split="test"),
        lambda: check_family(family, "mdp"),
    ):
        with pytest.raises(ValueError, match=r"a_min = 0.9 is larger than a_max = 0.1"):
            use()
