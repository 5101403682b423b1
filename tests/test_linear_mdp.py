"""The linear MDP with dynamics: against the tables of its states, and the lemma."""

import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import ROUNDING

from sdm.solvers_jax import MDP, evaluate_policy, solve
from sdm.theory.linear_mdp import (
    contexts,
    play,
    sample_linear_mdps,
    train_estimator,
)


@pytest.fixture(scope="module")
def tasks():
    random = np.random.default_rng(0)
    return sample_linear_mdps(random, tasks=3, states=8, actions=3, dim=3, discount=0.8)


def as_mdp(tasks):
    """The same tasks as tables."""
    p = jnp.asarray(tasks.feature @ tasks.mode)
    reward = jnp.einsum("sad,bd->bsa", jnp.asarray(tasks.feature), tasks.theta)
    shape = (len(tasks.theta), *p.shape)
    start = jnp.full((len(tasks.theta), p.shape[0]), 1 / p.shape[0])
    return MDP(jnp.broadcast_to(p, shape), reward, start, tasks.discount)


def test_q_is_that_of_a_long_horizon(tasks):
    found = solve(as_mdp(tasks), horizon=200)
    # 0.8^200 is 4e-20: rounding is all that is left.
    np.testing.assert_allclose(found.q[:, 0], tasks.q, rtol=1e-10, atol=1e-10)


def test_new_rewards_keep_features_and_dynamics(tasks):
    other = sample_linear_mdps(np.random.default_rng(1), tasks=2, like=tasks)
    assert other.feature is tasks.feature and other.mode is tasks.mode
    assert other.discount == 0.8 and not np.isin(other.theta, tasks.theta).any()


def test_the_gap_is_the_difference_of_returns_and_below_the_bound(tasks):
    b = 0.7 * np.eye(3)
    played = play(np.random.default_rng(5), tasks, b, 6)
    h, _ = contexts(np.random.default_rng(5), tasks, 6)
    guess = np.einsum("sad,de,be->bsa", tasks.feature, b, h)
    policy = jnp.asarray(np.eye(3)[guess.argmax(-1)])
    mdp = as_mdp(tasks)
    for_ever = jnp.broadcast_to(policy[:, None], (3, 200, *policy.shape[1:]))
    lost = solve(mdp, horizon=200).value - evaluate_policy(mdp, for_ever)
    assert played.gap == pytest.approx(float(lost.mean()), rel=ROUNDING)
    assert 0 < played.gap <= played.bound
    error = (guess - tasks.q) ** 2
    assert played.risk == pytest.approx(error.mean(), rel=ROUNDING)
    reached, now = np.zeros((3, 8)), np.full((3, 8), 0.2 / 8)
    moves = (tasks.feature @ tasks.mode)[np.arange(8), guess.argmax(-1)]
    for _ in range(200):  # the states it meets, step by step
        reached, now = reached + now, 0.8 * np.einsum("bs,bsn->bn", now, moves)
    chosen = max(
        (reached * np.take_along_axis(error, a[..., None], -1)[..., 0]).sum(-1).mean()
        for a in (tasks.q.argmax(-1), guess.argmax(-1))
    )
    assert played.calibration * played.risk == pytest.approx(chosen, rel=ROUNDING)
    assert played.bound_uncalibrated * np.sqrt(played.calibration) == pytest.approx(
        played.bound
    )


@pytest.mark.slow
def test_a_trained_layer_is_better_than_others():
    random = np.random.default_rng(2)
    training = sample_linear_mdps(random, tasks=4000, states=20, dim=3)
    test = sample_linear_mdps(random, tasks=200, like=training)
    b = train_estimator(random, training, 40)
    found = [play(np.random.default_rng(3), test, x, 40) for x in (b, 0.8 * b, b.T * 0)]
    assert found[0].risk < found[1].risk < found[2].risk
    assert found[0].gap < found[2].gap


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": 0}, "number of tasks: must.*found 0"),
        ({"states": 0}, "number of states: must.*found 0"),
        ({"dim": 0}, "d: must.*found 0"),
        ({"discount": 1.0}, "γ: must.*found 1"),
        ({"discount": 0.0}, "γ: must.*found 0"),
    ],
)
def test_what_makes_no_task_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        sample_linear_mdps(np.random.default_rng(0), **{"tasks": 1, **changes})
