"""Gymnasium both ways: its own checker, its own tables, and returns that must agree."""

import warnings

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from random_models import random_apomdp, tiger
from tolerances import ROUNDING

import sdm.environments  # noqa: F401
from sdm.environments import from_gymnasium
from sdm.solvers_jax import APOMDP, EnergyFamily, RobustMDP, save_npz, solve


@pytest.mark.parametrize("kind", ["mdp", "pomdp", "apomdp"])
def test_gymnasium_makes_energy_tasks_and_its_checker_passes(kind):
    env = gymnasium.make("sdm/Energy-v0", kind=kind, horizon=4, models=2)
    with warnings.catch_warnings():  # it warns of every space without bounds
        warnings.filterwarnings("ignore", message=".*render_mode.*")
        check_env(env.unwrapped)
    assert env.action_space.n == 3 and env.observation_space.n == 10
    p = [env.reset(seed=3)[1]["p"] for _ in range(2)] + [env.reset()[1]["p"]]
    assert p[0] == p[1] != p[2] and all(0.2 <= x <= 0.9 for x in p)


def test_a_model_of_ones_own_is_played_and_its_checker_passes(tmp_path):
    save_npz(random_apomdp(2, 0.5), tmp_path / "own.npz")
    path = str(tmp_path / "own.npz")
    check_env(gymnasium.make("sdm/Model-v0", model=path, horizon=3).unwrapped)
    env = gymnasium.make("sdm.environments:sdm/Model-v0", model=tiger(), horizon=2)
    check_env(env.unwrapped)
    seen, info = env.reset(seed=0)
    assert seen == 2 and info["stage"] == 0  # nothing was seen yet
    seen, paid, over, cut, _ = env.step(0)
    assert seen in (0, 1) and paid == -1 and not over and not cut
    assert env.step(0)[2:4] == (True, False)
    with pytest.raises(RuntimeError, match="reset"):
        env.unwrapped.step(0)
    env.reset()
    with pytest.raises(ValueError, match="action = 3"):
        env.unwrapped.step(3)


@pytest.mark.slow
def test_the_optimal_policy_earns_its_value():
    env = gymnasium.make("sdm/Energy-v0", p=0.6, horizon=5).unwrapped
    found, total = solve(env.model, horizon=5), []
    for episode in range(600):
        state, _ = env.reset(seed=episode)
        total.append(0.0)
        for t in range(5):
            state, paid, *_ = env.step(int(found.policy[t, state]))
            total[-1] += env.model.discount**t * paid
    # Four standard errors: one in 16,000 seeds would fail.
    error = np.std(total) / np.sqrt(len(total))
    assert abs(np.mean(total) - float(found.value)) < 4 * error < 0.3


@pytest.mark.slow
def test_symbols_come_with_their_probabilities():
    env = gymnasium.make("sdm/Energy-v0", kind="pomdp", q=0.7, horizon=1).unwrapped
    env.reset(seed=0)
    right = []
    for _ in range(800):
        seen, info = env.reset()
        right.append(seen == info["state"])
        seen, *_, info = env.step(2)
        right.append(seen == info["state"])
    # 1,600 draws: a standard error of 0.0115.
    assert np.mean(right) == pytest.approx(0.7, abs=0.046)


def frozen_lake_value(env, horizon):
    """Backward induction on the table itself, in plain Python."""
    value = dict.fromkeys(env.P, 0.0)
    for _ in range(horizon):
        value = {
            s: max(
                sum(p * (r + (0 if over else 0.9 * value[n])) for p, n, r, over in rows)
                for rows in env.P[s].values()
            )
            for s in env.P
        }
    return sum(chance * value[s] for s, chance in enumerate(env.initial_state_distrib))


# The same environment, before and since Gymnasium 1.1.
CLIFFS = next(
    f"CliffWalking-v{n}" for n in (1, 0) if f"CliffWalking-v{n}" in gymnasium.registry
)


@pytest.mark.parametrize(("name", "states"), [("FrozenLake-v1", 16), (CLIFFS, 48 + 1)])
def test_a_table_of_gymnasium_becomes_a_model_of_the_same_value(name, states):
    env = gymnasium.make(name)
    model = from_gymnasium(env, discount=0.9)
    assert model.reward.shape[0] == states
    value = solve(model, horizon=20).value
    assert float(value) == pytest.approx(
        frozen_lake_value(env.unwrapped, 20), abs=ROUNDING
    )


def test_an_end_in_a_state_that_goes_on_is_an_end():
    # Paid 1 for ever, but that the first step ends the episode.
    table = {0: {0: [(1.0, 0, 1.0, True)]}}
    model = from_gymnasium(table, discount=1.0, initial=[1.0])
    assert float(solve(model, horizon=7).value) == 1.0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({0: {0: [(0.5, 0, 0.0, False)]}}, r"transition\[0, 0\].* 0.5"),
        ({0: {0: [(1.0, 1, 0.0, False)]}}, r"P\[0\]\[0\] leads to state 1"),
        ({0: {0: []}, 1: {}}, r"P\[1\]\[0\] is missing"),
    ],
)
def test_a_bad_table_says_where(table, message):
    with pytest.raises(ValueError, match=message):
        from_gymnasium(table, discount=0.9, initial=np.eye(len(table))[0])


def test_what_has_no_table_says_so():
    with pytest.raises(ValueError, match="no transition table"):
        from_gymnasium(gymnasium.make("CartPole-v1"), discount=0.9)
    with pytest.raises(ValueError, match="pass `initial`"):
        from_gymnasium({0: {0: [(1.0, 0, 0.0, False)]}}, discount=0.9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "smdp"}, "kind must be one of mdp, pomdp, apomdp, found"),
        ({"horizon": 0}, "horizon = 0"),
        ({"p": 1.5}, "p_min = 1.5"),
    ],
)
def test_what_makes_no_environment_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        gymnasium.make("sdm/Energy-v0", **options)


def test_one_task_is_played_not_a_batch():
    batch = EnergyFamily().sample(jax.random.key(0), 2)
    with pytest.raises(ValueError, match=r"must be \[S, A\], for one task"):
        gymnasium.make("sdm/Model-v0", model=batch)


def test_of_several_models_the_first_runs():
    forward = np.array([[[0.0, 1.0]], [[0.0, 1.0]]])
    moves = jnp.asarray(np.stack([forward, forward[..., ::-1]]))
    reward, start = jnp.zeros((2, 1)), jnp.array([1.0, 0.0])
    shown = jnp.broadcast_to(jnp.eye(2), (2, 1, 2, 2))
    for model in (
        APOMDP(moves, shown, reward, start, 0.5, 0.9),
        RobustMDP(moves, reward, start, 0.5, 0.9),
    ):
        env = gymnasium.make("sdm/Model-v0", model=model, horizon=2)
        env.reset(seed=0)
        assert env.step(0)[4]["state"] == 1


@pytest.mark.parametrize(
    ("table", "initial", "message"),
    [
        ({}, [], "states 0, 1"),
        ({1: {}}, [1.0], "states 0, 1"),
        ({0: {0: [(1.0, 0, 0.0, False)]}}, [0.5, 0.5], r"must be \(1,\)"),
        ({0: {0: [(-0.5, 0, 0.0, False)]}}, [1.0], "probability -0.5"),
    ],
)
def test_a_table_of_another_shape_is_refused(table, initial, message):
    with pytest.raises(ValueError, match=message):
        from_gymnasium(table, discount=0.9, initial=initial)


def test_an_action_that_only_some_states_have_is_refused():
    row = [(1.0, 0, 0.0, False)]
    table = {0: {0: row}, 1: {0: row, 1: row}}
    with pytest.raises(ValueError, match=r"P\[1\] has more actions"):
        from_gymnasium(table, discount=0.9, initial=[1.0, 0.0])
