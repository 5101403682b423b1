"""Tasks around a tabular Gymnasium environment."""

import sys

import gymnasium
import jax
import numpy as np
import pytest
from tolerances import ROUNDING, SINGLE

from sdm.tasks import FamilyError, load_family
from sdm.tasks.families.gymnasium import GymnasiumFamily
from sdm.tasks.gymnasium_tables import read_table

LAKE = "FrozenLake-v1"
# The same environment, before and since Gymnasium 1.1.
CLIFFS = next(
    f"CliffWalking-v{n}" for n in (1, 0) if f"CliffWalking-v{n}" in gymnasium.registry
)


def tasks(family, n, split="train"):
    params = family.parameters(jax.random.key(5), n, split=split)
    return jax.jit(lambda p: family.model(p, "mdp"))(params)


@pytest.fixture(scope="module")
def lakes():
    return tasks(GymnasiumFamily(LAKE), 2000)


def test_the_module_of_that_name_is_not_the_package():
    module = sys.modules[GymnasiumFamily.__module__]
    assert module.__name__ == "sdm.tasks.families.gymnasium" != gymnasium.__name__
    assert sys.modules["gymnasium"] is gymnasium is not module
    family = load_family(f"gymnasium:{LAKE}")
    assert family == GymnasiumFamily(LAKE) and family.spaces.states == 16


def test_tasks_are_drawn_around_the_table(lakes):
    # A component of Dirichlet(c p) has mean p and variance p (1 - p) / (c + 1).
    table, c = read_table(gymnasium.make(LAKE)).transition, 20.0
    drawn = np.asarray(lakes.transition)
    assert np.array_equal(drawn > 0, np.broadcast_to(table > 0, drawn.shape))
    assert (drawn[:, table == 1] == 1).all()
    possible = (table > 0) & (table < 1)
    variance = (table * (1 - table) / (c + 1))[possible]
    error = drawn.mean(0)[possible] - table[possible]
    # 112 means: the largest of them is below five standard errors.
    assert (np.abs(error) < 5 * np.sqrt(variance / len(drawn))).all()
    # The relative standard error of a variance of 2000 is 3 %.
    assert drawn.var(0)[possible] == pytest.approx(variance, rel=0.15)


def test_rewards_follow_the_tasks_own_transitions(lakes):
    env = gymnasium.make(LAKE).unwrapped
    transition, reward = np.asarray(lakes.transition[7]), np.asarray(lakes.reward[7])
    for s, actions in env.P.items():
        for a, rows in actions.items():
            pays = {following: paid for _, following, paid, _ in rows}
            expected = sum(transition[s, a, n] * paid for n, paid in pays.items())
            assert reward[s, a] == pytest.approx(expected, abs=ROUNDING)
    assert np.ptp(np.asarray(lakes.reward[:, 14, 2])) > 0.1


def test_an_episode_that_ends_pays_where_it_ends():
    rows = [(0.5, 0, 2.0, True), (0.25, 0, 4.0, False), (0.25, 1, 0.0, False)]
    stays = [(1.0, 1, 0.0, True)]
    table = read_table({0: {0: rows}, 1: {0: stays}}, initial=[1.0, 0.0])
    assert table.transition[0, 0].tolist() == [0.25, 0.25, 0.5]
    assert table.paid[0, 0].tolist() == [1.0, 0.0, 1.0]
    assert table.transition[2, 0].tolist() == [0.0, 0.0, 1.0]
    assert table.initial.tolist() == [1.0, 0.0, 0.0]


def test_slipping_replaces_actions_with_a_probability_of_each_task():
    family = GymnasiumFamily(CLIFFS, concentration=1e12, slip=0.4)
    certain = read_table(gymnasium.make(CLIFFS))
    transition = certain.transition
    model = tasks(family, 3)
    shares = []
    for drawn, reward in zip(model.transition, model.reward, strict=True):
        # From state 36, the start, action 0 goes up, and others do not.
        share = (1 - float(drawn[36, 0, 24])) * 4 / 3
        mixed = (1 - share) * transition + share * transition.mean(1, keepdims=True)
        # Drawn in single precision, with a concentration that leaves nothing else.
        assert np.asarray(drawn) == pytest.approx(mixed, abs=1e-5)
        paid = (1 - share) * certain.paid + share * certain.paid.mean(1, keepdims=True)
        # Falling off the cliff costs 100, so that errors are up to 100 times larger.
        assert np.asarray(reward) == pytest.approx(paid.sum(-1), abs=1e-3)
        shares.append(share)
    assert min(shares) >= 0 and max(shares) <= 0.4 and np.ptp(shares) > 0.01


def test_every_precision_draws_the_same_tasks(lakes):
    family = GymnasiumFamily(LAKE)
    params = family.parameters(jax.random.key(5), 3, split="train")
    with jax.enable_x64(False):
        single = jax.jit(lambda p: family.model(p, "mdp"))(params)
    assert single.transition.dtype == np.float32
    assert np.asarray(single.transition) == pytest.approx(
        np.asarray(lakes.transition[:3]), abs=SINGLE
    )


def test_a_small_concentration_keeps_every_outcome_possible():
    model = tasks(GymnasiumFamily(LAKE, concentration=1e-3), 50)
    table = read_table(gymnasium.make(LAKE)).transition
    drawn = np.asarray(model.transition)
    assert np.array_equal(drawn > 0, np.broadcast_to(table > 0, drawn.shape))


def test_no_table_is_for_training_and_for_tests():
    family = GymnasiumFamily(LAKE)
    key = jax.random.key(0)
    seeds = [
        family.parameters(key, 50, split=s)["table"] % 2 for s in ("train", "test")
    ]
    assert not seeds[0].any() and seeds[1].all()


@pytest.mark.parametrize(
    ("env", "options", "message", "hint"),
    [
        (
            "CartPole-v1",
            {},
            "CartPoleEnv: no transition table `P`",
            "such as FrozenLake-v1",
        ),
        ("FrozenLak-v1", {}, "`FrozenLak-v1` cannot be created: .* doesn't exist", ""),
        ("nowhere:Lake-v1", {}, "No module named 'nowhere'", "registered environment"),
        (CLIFFS, {}, "is deterministic", "--slip 0.2"),
    ],
)
def test_an_environment_that_makes_no_tasks_is_refused(env, options, message, hint):
    with pytest.raises(FamilyError, match=message) as caught:
        load_family(f"gymnasium:{env}", options)
    assert hint in caught.value.hint and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discount": 2.0}, "discount = 2"),
        ({"slip": -0.1}, "slip = -0.1"),
        ({"concentration": 0.0}, "concentration = 0"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GymnasiumFamily(LAKE, **options)


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(FamilyError, match="needs the package `gymnasium`") as caught:
        load_family(f"gymnasium:{LAKE}")
    assert caught.value.hint == "pip install 'sdm-llm[gym]'"
