"""Treatment in intensive care: published values, and the laws of the hospitals."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import ROUNDING

from sdm.commands.eval_benchmarks import usable_families
from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.data.request import OracleConfig, bytes_per_task
from sdm.policies.registry import check_rule, prepare
from sdm.solvers_jax import MDP, check_model, solve
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.tasks import FamilyError, families, icu_sepsis_tables
from sdm.tasks.families import icu_sepsis
from sdm.tasks.families.energy import EnergyFamily
from sdm.tasks.families.icu_sepsis import CENTRE, IcuSepsisFamily
from sdm.tasks.families.sepsis import SepsisFamily
from sdm.tasks.icu_sepsis_tables import (
    ACTIONS,
    DEATH,
    ENDED,
    STATES,
    SURVIVAL,
    icu_tables,
)
from sdm.tasks.transitions import SparseTransition, dense, take_tasks

HORIZON, LONG = 20, 300
# Episodes have 10 decisions on average; after 500, a share below 1e-9 goes on.
LONGEST = 500


@pytest.fixture(scope="module")
def package():
    """The package's arrays, read here once more."""
    spec = importlib.util.find_spec("icu_sepsis")
    folder = Path(spec.submodule_search_locations[0]) / "envs" / "assets"
    first, *lists = (folder / "admissible_actions.txt").read_text().splitlines()
    allowed = [[int(a) for a in line.split()] for line in lists[:STATES]]
    assert [len(x) for x in allowed] == [int(n) for n in first.split()]
    with np.load(folder / "dynamics.npz") as arrays:
        return dict(arrays), allowed


@pytest.fixture(scope="module")
def published():
    return IcuSepsisFamily().published()


@pytest.fixture(scope="module")
def optimum(published):
    return solve(published, horizon=LONG)


def hospitals(family, seeds, groups=None):
    """The models of hospitals of these seeds."""
    params = {"table": jnp.asarray(seeds, jnp.uint32)}
    if groups is not None:
        params["group"] = jnp.asarray(groups, jnp.int32)
    return jax.jit(lambda p: family.model(p, "mdp"))(params)


def assert_others_are_the_mean(rows, allowed):
    """Actions that are not admissible have the mean row of those that are."""
    mean = rows[allowed].mean(0)
    for action in np.setdiff1d(np.arange(ACTIONS), allowed):
        np.testing.assert_allclose(rows[action], mean, atol=ROUNDING)


def one_action(model, probabilities):
    """The model of a stationary policy, whose single action takes the policy's."""
    chance = jnp.einsum("sa,san->sn", probabilities, model.transition.probabilities)
    lists = model.transition.successors[:, :1]
    reward = (probabilities * model.reward).sum(-1, keepdims=True)
    return MDP(SparseTransition(lists, chance[:, None]), reward, model.initial, 1.0)


def value(model, probabilities, horizon):
    """The value of a stationary policy."""
    shape = (horizon, STATES, 1)
    return float(evaluate_policy(one_action(model, probabilities), jnp.ones(shape)))


def length(model, probabilities):
    """The mean number of decisions of an episode."""
    alone = one_action(model, probabilities)
    going = (jnp.arange(STATES) < DEATH).astype(float)[:, None]
    counted = dataclasses.replace(alone, reward=going)
    return float(evaluate_policy(counted, jnp.ones((LONGEST, STATES, 1))))


def test_the_model_is_the_packages(published, package):
    arrays, allowed = package
    check_model(published)
    moves = np.asarray(dense(published.transition))
    np.testing.assert_allclose(moves, arrays["tx_mat"], atol=ROUNDING)
    paid = (arrays["tx_mat"] * arrays["r_mat"]).sum(-1)
    np.testing.assert_allclose(published.reward, paid, atol=ROUNDING)
    np.testing.assert_array_equal(published.initial, arrays["d_0"])
    assert published.discount == 1 and published.admissible is None
    for s in (0, 100, 712):
        assert_others_are_the_mean(moves[s], allowed[s])
    for s in (DEATH, SURVIVAL, ENDED):
        assert (moves[s, :, ENDED] == 1).all() and not published.reward[s].any()
    assert "icu_sepsis" not in sys.modules


# Six digits, by independent code.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("horizon", "wanted"),
    [(10, 0.636392), (20, 0.792216), (50, 0.869139), (100, 0.875047), (300, 0.875142)],
)
def test_optimum_of_the_published_model(published, optimum, horizon, wanted):
    # The model is stationary: with 20 stages left, it has the value of T = 20.
    found = optimum.state_value[LONG - horizon] @ published.initial
    assert float(found) == pytest.approx(wanted, abs=1e-6)


def test_policies_of_the_published_model(published, optimum):
    # By independent code, six digits. The publication's mean lengths, 9.45, 9.22 and
    # 10.99, are those of simulated episodes.
    family = IcuSepsisFamily()
    random = jnp.full((STATES, ACTIONS), 1 / ACTIONS)
    first = jax.nn.one_hot(jnp.zeros(STATES, int), ACTIONS)
    best = jax.nn.one_hot(optimum.policy[0], ACTIONS)
    for policy, earned, decisions in (
        (random, 0.780071, 9.462296),
        (family.expert(), 0.781845, 9.237950),
        (first, 0.782439, None),
        (best, 0.875142, 10.991744),
    ):
        assert value(published, policy, LONGEST) == pytest.approx(earned, abs=1e-6)
        if decisions:
            assert length(published, policy) == pytest.approx(decisions, abs=1e-6)


def test_experts_act_as_published(package):
    found = np.asarray(IcuSepsisFamily().expert())
    np.testing.assert_allclose(found.sum(-1), 1, atol=ROUNDING)
    treated = package[0]["expert_policy"][:DEATH]
    np.testing.assert_allclose(found[:DEATH], treated, atol=ROUNDING)
    assert (found[DEATH:, 0] == 1).all()


def test_a_hospital_keeps_the_support_and_the_means_of_other_actions(package):
    arrays, allowed = package
    (moves,) = np.asarray(dense(hospitals(IcuSepsisFamily(), [7]).transition))
    np.testing.assert_array_equal(moves > 0, arrays["tx_mat"] > 0)
    assert np.abs(moves - arrays["tx_mat"]).max() > 0.1
    for s in range(0, DEATH, 20):
        assert_others_are_the_mean(moves[s], allowed[s])


def rows_of(model):
    """The rows of the admissible actions that can lead to several states, [B, R, N]."""
    tables = icu_tables()
    several = (tables.chance > 0).sum(-1) > 1
    place = np.array([np.argwhere(tables.row == r)[0] for r in np.nonzero(several)[0]])
    chance = np.asarray(model.transition.probabilities)[:, place[:, 0], place[:, 1]]
    return chance, tables.chance[several]


def standardized(rows, centre, share):
    """(x - p) / √(share p (1 - p)) of one entry of each row, the largest."""
    best = centre.argmax(-1)[:, None]
    x, p = (np.take_along_axis(a, best, -1)[:, 0] for a in (rows, centre))
    return (x - p) / np.sqrt(share * p * (1 - p))


def test_rows_have_the_dirichlet_mean_and_variance():
    chance, centre = rows_of(hospitals(IcuSepsisFamily(concentration=30.0), [2, 5]))
    z = standardized(chance[0], centre, 1 / 31)
    other = standardized(chance[1], centre, 1 / 31)
    # Independent rows; squares have a standard deviation below 2: five standard errors.
    assert len(z) > 2000 and abs(z.mean()) < 5 / np.sqrt(len(z))
    assert abs((z**2).mean() - 1) < 10 / np.sqrt(len(z))
    assert abs((z * other).mean()) < 5 / np.sqrt(len(z))


@pytest.fixture(scope="module")
def grouped():
    """Two hospitals of group 1, one of group 2, and the tables of both groups."""
    family = IcuSepsisFamily(concentration=200.0, groups=3)
    return hospitals(family, [2, 4, 6, CENTRE, CENTRE], [1, 1, 2, 1, 2])


@pytest.mark.slow
def test_hospitals_of_a_group_share_its_table(grouped):
    chance, centre = rows_of(grouped)
    # The law of total variance: between groups 1/21, within them 1/201 of what is left.
    between, within = 1 / 21, 1 / 201
    share = between + (1 - between) * within
    one, same, other, group, _ = (standardized(x, centre, share) for x in chance)
    error = 5 / np.sqrt(len(one))
    assert abs(one.mean()) < error and abs((one**2).mean() - 1) < 2 * error
    assert abs((group**2).mean() - between / share) < 2 * error
    # Between what two hospitals have in common, and what they do not, is a small
    # difference: the products are compared, whose standard error is a tenth of `error`.
    assert abs((one * same - group**2).mean()) < error / 2
    assert abs((one * group - group**2).mean()) < error / 2
    assert abs((one * other).mean()) < error


@pytest.mark.slow
def test_a_large_concentration_is_the_limit_of_no_draw():
    # Standard deviations are below 1e-5.
    published = IcuSepsisFamily(groups=2).published().transition.probabilities
    (near,) = hospitals(
        IcuSepsisFamily(concentration=1e10), [8]
    ).transition.probabilities
    np.testing.assert_allclose(near, published, atol=1e-4)


@pytest.mark.slow
def test_hospitals_depend_on_their_index_and_splits_are_disjoint():
    family, key = IcuSepsisFamily(groups=4), jax.random.key(3)
    whole = family.parameters(key, 400, split="train")
    part = family.parameters(key, 3, split="train", first=jnp.int32(4))
    for name in ("table", "group"):
        np.testing.assert_array_equal(whole[name][4:7], part[name])
    table = np.asarray(whole["table"])
    assert len(np.unique(table)) == 400 and (table % 2 == 0).all() and table.min() > 0
    # 100 expected of each group, with a standard deviation of 9.
    assert np.abs(np.bincount(whole["group"], minlength=4) - 100).max() < 45
    tested = family.parameters(key, 5, split="test")["table"]
    assert (np.asarray(tested) % 2 == 1).all()
    plain = IcuSepsisFamily().parameters(key, 2, split="train")
    assert set(plain) == {"table"}


def test_the_prior_has_the_tables_of_all_groups():
    params, weight = IcuSepsisFamily(groups=3).prior()
    np.testing.assert_array_equal(params["group"], np.arange(3))
    assert (np.asarray(params["table"]) == CENTRE).all() and weight.tolist() == [
        1 / 3
    ] * 3
    params, weight = IcuSepsisFamily().prior()
    assert params["table"].tolist() == [CENTRE] and weight.tolist() == [1.0]


@pytest.mark.slow
def test_hospitals_are_worth_different_treatments(grouped, optimum):
    hospital, group, other = (take_tasks(grouped, i) for i in (0, 3, 4))
    best = solve(hospital, horizon=HORIZON).value

    def lost(plan):
        earned = evaluate_policy(hospital, jax.nn.one_hot(plan, ACTIONS))
        return 1 - float(earned / best)

    own = lost(solve(group, horizon=HORIZON).policy)
    # With 20 stages left, the plan for the published model at any horizon.
    published = lost(optimum.policy[-HORIZON:])
    assert 0 < own < published / 4 and published > 0.03
    assert lost(solve(other, horizon=HORIZON).policy) > published


def test_the_memory_of_a_task_is_that_of_its_lists(published):
    family = IcuSepsisFamily()
    needed = bytes_per_task(OracleConfig(family, 3, 1, 0))
    size = published.transition.probabilities.nbytes
    assert size < needed < 1.05 * size
    # As dense transitions, 256 MB hold two tasks of the one and one of the other.
    assert OracleConfig(family, HORIZON, 100, 15).together == 8
    assert OracleConfig(SepsisFamily(), HORIZON, 100, 15).together >= 32


@dataclasses.dataclass(frozen=True)
class Practised(EnergyFamily):
    """A small family with experts."""

    def expert(self):
        """Return the same action probabilities in every state."""
        return jnp.array([[0.2, 0.3, 0.5]] * self.spaces.states)


@pytest.mark.slow
def test_experts_act_in_benchmarks():
    bed = make_benchmark(EvaluationConfig(Practised(), 3, tasks=2, trajectories=1))
    model = bed.tasks.model
    table = jnp.broadcast_to(Practised().expert(), (2, 3, *model.reward.shape[1:]))
    found, wanted = prepare("expert", bed), evaluate_policy(model, table)
    np.testing.assert_allclose(found.value, wanted, rtol=ROUNDING)
    np.testing.assert_array_equal(found.policy.probabilities, table)
    with pytest.raises(ValueError, match="the family has no experts"):
        check_rule("expert", EnergyFamily(), "mdp")
    with pytest.raises(ValueError, match="experts observe the state"):
        check_rule("expert", Practised(), "pomdp")


def test_words_name_severity_and_doses():
    spaces = families()["icu-sepsis"]().spaces
    (patient,) = spaces.state
    assert patient.values[4] == "in cluster 4 with SOFA score 13"
    assert patient.values[DEATH:] == ("died", "survived", "left")
    assert len(set(patient.values)) == STATES == spaces.states
    assert len(set(spaces.actions)) == ACTIONS
    assert spaces.actions[0] == "no fluids and no vasopressors"
    assert spaces.actions[17] == "fluids level 3 and vasopressors level 2"


def test_actions_without_vasopressors_are_the_most_recorded(package):
    # Which index is which drug: nearly all patients get fluids, few get vasopressors.
    recorded = np.zeros(ACTIONS)
    for actions in package[1][:DEATH]:
        recorded[actions] += 1
    fluids, vasopressors = recorded.reshape(5, 5).sum(1), recorded.reshape(5, 5).sum(0)
    assert vasopressors[0] > 4 * vasopressors[1:].sum() and fluids[0] < fluids[1:].min()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"concentration": 0.0}, "concentration = 0: must be positive"),
        ({"group_concentration": np.inf}, "group_concentration = inf"),
        ({"groups": -1}, "groups = -1"),
        ({"discount": 1.5}, "discount = 1.5: must lie between 0 and 1"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        IcuSepsisFamily(**options)


def test_only_the_kind_mdp_is_published():
    with pytest.raises(ValueError, match="kind = 'pomdp'"):
        IcuSepsisFamily().published("pomdp")


@pytest.fixture
def unread():
    """Read the files again, in this test and after it."""
    for cached in (icu_tables, icu_sepsis._spaces):
        cached.cache_clear()
    yield
    for cached in (icu_tables, icu_sepsis._spaces):
        cached.cache_clear()


def test_without_the_package_the_error_says_how_to_install_it(unread, monkeypatch):
    monkeypatch.setattr(icu_sepsis_tables, "PACKAGE", "icu_sepsis_missing")
    family = IcuSepsisFamily()
    assert family.available("test") is None and family.config()["groups"] == 0
    with pytest.raises(FamilyError, match="needs the package `icu-sepsis`") as caught:
        _ = family.spaces
    assert caught.value.hint == "pip install --no-deps 'icu-sepsis>=2,<3'"


def test_all_families_are_evaluated_but_those_without_their_package(
    unread, monkeypatch, capsys
):
    monkeypatch.setattr(icu_sepsis_tables, "PACKAGE", "icu_sepsis_missing")
    names = {each.name for each in usable_families()}
    assert "energy" in names and "icu-sepsis" not in names
    said = capsys.readouterr().err
    assert "skipped: family `icu-sepsis`: needs the package" in said
    assert "pip install --no-deps" in said


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x, text: (x, None), "No such file"),
        (lambda x, text: (x, text.replace("\n", " ", 1)), "actions of 716 states"),
        (lambda x, text: ({"d_0": x["d_0"]}, text), "tx_mat"),
        (lambda x, text: ({**x, "tx_mat": x["tx_mat"][:9]}, text), r"tx_mat has shape"),
        (lambda x, text: ({**x, "d_0": x["d_0"] / 2}, text), "d_0.*sum to 0.5"),
    ],
)
def test_other_files_are_refused(unread, package, monkeypatch, tmp_path, spoil, words):
    assets = icu_sepsis_tables._assets()
    names = ("tx_mat", "d_0", "expert_policy", "sofa_scores")
    arrays = {name: package[0][name] for name in names}
    arrays, text = spoil(arrays, (assets / "admissible_actions.txt").read_text())
    np.savez(tmp_path / "dynamics.npz", **arrays)
    if text is not None:
        (tmp_path / "admissible_actions.txt").write_text(text)
    monkeypatch.setattr(icu_sepsis_tables, "_assets", lambda: tmp_path)
    with pytest.raises(FamilyError, match=words) as caught:
        icu_tables()
    assert "install version 2 of the package" in caught.value.hint
