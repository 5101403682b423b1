"""Hidden-state models from logs: structure, choice of their number, and their value."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdm.data.estimation import EstimationConfig, estimate_models
from sdm.data.estimation.baum_welch import log_factors
from sdm.data.estimation.estimator import estimators
from sdm.data.estimation.hidden_structure import Structure, sequences_of
from sdm.data.estimation.space import space_of
from sdm.data.logs import NOTHING, LogsError
from sdm.data.logs.simulate import simulate_logs
from sdm.solvers_jax import POMDP, solve
from sdm.tasks.models import check_model
from sdm.tasks.policy import TabularPolicy

# A tiger of which a wrong opening ends the episode with -1, the right one with 1.
SIDES = [[1.0, 0, 0], [0, 1.0, 0]]
OVER = [0.0, 0, 1.0]
TIGER = POMDP(
    transition=jnp.array([[[side, OVER, OVER] for side in (*SIDES, OVER)]]),
    observation=jnp.array([[[[0.85, 0.15], [0.15, 0.85], [0.5, 0.5]]] * 3]),
    reward=jnp.array([[[-0.1, 1.0, -1.0], [-0.1, -1.0, 1.0], [0.0, 0.0, 0.0]]]),
    initial=jnp.array([[0.5, 0.5, 0.0]]),
    discount=1.0,
)


def listened(episodes, seed=0):
    """Logs in which the agent opens a side with probability 0.2 at each decision."""
    table = jnp.tile(jnp.array([0.8, 0.1, 0.1]), (1, 5, 3, 1))
    return simulate_logs(
        jax.random.key(seed),
        TIGER,
        TabularPolicy(table),
        horizon=5,
        episodes=episodes,
        observations=("left", "right"),
        actions=("listen", "left", "right"),
    )


def made(logs, config=None, **options):
    options = {"restarts": 2, "iterations": 60, **options}
    return estimate_models(
        logs, estimators()["hidden"](**options), config or EstimationConfig()
    )


@pytest.mark.slow
def test_the_value_of_an_estimate_is_close_to_the_truth():
    logs = listened(1000)
    found, report = made(logs)
    model = found.models[0]
    check_model(model)
    assert found.states == ("hidden 0", "hidden 1", "end with -1", "end with 1", "end")
    assert found.observations == ("left", "right", *found.states[2:])
    value = float(solve(model, horizon=found.horizon).value)
    truth = float(solve(TIGER, horizon=5).value[0])
    # 1000 episodes with 2700 observations estimate the accuracy of an observation to
    # about 0.01 (one standard error), which moves the value by about 0.02.
    assert truth > 0.3 and value == pytest.approx(truth, abs=0.08)
    accurate = np.asarray(model.observation[0, :2, :2]).max(1)
    np.testing.assert_allclose(accurate, 0.85, atol=0.05)
    # The entropy of a symbol given those before it: at most log 2 after listening, and
    # at least that of a known side.
    assert -0.69 < report["held_out_log_likelihood"] < -0.42


@pytest.mark.slow
def test_held_out_episodes_choose_two_hidden_states():
    _, report = made(listened(400), most_hidden_states=3, hidden_states=1)
    scores = [row["held_out"] for row in report["candidates"]]
    assert [row["states"] for row in report["candidates"]] == [1, 2, 3]
    assert report["hidden_states"] == int(np.argmax(scores)) + 1 >= 2
    assert scores[1] - scores[0] > 0.02  # nats per decision
    train = [row["train"] for row in report["candidates"]]
    assert train[1] > train[0]
    said = "the largest number that was tried" in report["notes"][0]
    assert said == (report["hidden_states"] == 3)
    _, report = made(listened(400), most_hidden_states=2, hidden_states=1)
    assert "the largest number that was tried" in report["notes"][0]


@pytest.mark.slow
def test_the_structure_of_ends_is_kept():
    found, _ = made(listened(100))
    model = found.models[0]
    np.testing.assert_array_equal(model.transition[2:, :, -1], 1)
    np.testing.assert_array_equal(
        model.observation[:, 2:, 2:], np.tile(np.eye(3), (3, 1, 1))
    )
    np.testing.assert_array_equal(model.observation[:, :2, 2:], 0)
    np.testing.assert_array_equal(model.transition[:2, :, -1], 0)
    np.testing.assert_array_equal(model.reward[2:], [[-1] * 3, [1] * 3, [0] * 3])
    assert model.initial_observation is None
    assert (np.asarray(model.initial)[2:] == 0).all()


@pytest.mark.slow
def test_sequences_show_outcomes_and_pay_them_later():
    logs = listened(50)
    space = space_of(logs)
    data = sequences_of(logs, space)
    for i in range(50):
        last = int(logs.length[i]) - 1
        if logs.done[i]:
            expected = 3 if logs.reward[i, last] == 1 else 2
            assert data.symbol[i, last] == expected and data.reward[i, last] == 0
        assert bool(data.moves[i, last]) and not data.moves[i, last + 1 :].any()
    assert (data.first == NOTHING).all()


def test_a_log_likelihood_of_one_hidden_state_is_that_of_frequencies():
    """Without memory, symbols after an action are independent draws."""
    logs = listened(300)
    config = EstimationConfig(prior=0.0)
    found, report = made(logs, config, hidden_states=1, restarts=1)
    space = space_of(logs)
    data = sequences_of(logs, space)
    counts = np.zeros((3, space.end + 1))
    np.add.at(counts, (np.asarray(data.action), np.asarray(data.symbol)),
              np.asarray(data.moves))  # fmt: skip
    chance = counts / counts.sum(-1, keepdims=True)
    reached = np.asarray(found.models[0].transition[0] @ jnp.eye(4))
    shown = found.models[0].observation[:, 0]
    np.testing.assert_allclose(reached[0, 0] * shown[0, :2], chance[0, :2], atol=1e-6)
    np.testing.assert_allclose(reached[1, 1:3], chance[1, 2:4], atol=1e-6)
    kept = counts > 0
    best = (counts[kept] * np.log(chance[kept])).sum() / counts.sum()
    assert report["candidates"][0]["train"] == pytest.approx(best, abs=0.02)


@pytest.mark.slow
def test_unvisited_hidden_pairs_end_with_the_worst_return():
    logs = listened(40)
    logs = dataclasses.replace(logs, actions=(*logs.actions, "never"))
    found, report = made(logs, restarts=1)
    model = found.models[0]
    np.testing.assert_array_equal(model.transition[:2, 3, -1], 1)
    assert report["unvisited"] == 2
    worst = min(
        logs.reward[i, t : int(n)].sum()
        for i, n in enumerate(logs.length)
        for t in range(int(n))
    )
    np.testing.assert_allclose(model.reward[:2, 3], worst)
    prior = made(logs, EstimationConfig(unvisited="prior"), restarts=1)[0].models[0]
    np.testing.assert_allclose(prior.transition[0, 3], [0.25] * 4 + [0], atol=1e-12)


def test_random_starts_have_the_structure():
    structure = Structure(space_of(listened(30)), 2)
    drawn = structure.draw(3, np.random.default_rng(0))
    for x, possible in zip(jax.tree.leaves(drawn), structure.support(), strict=True):
        assert ((np.asarray(x) > 0) == possible).all()
        np.testing.assert_allclose(x.sum(-1), 1, atol=1e-12)
    assert not np.allclose(drawn.initial[0], drawn.initial[1])


def test_mixed_openings_and_masks_are_refused():
    logs = listened(20)
    opening = logs.observation.copy()
    opening[3, 0] = 1
    with pytest.raises(LogsError, match="19 of 20 episodes have no observation before"):
        made(dataclasses.replace(logs, observation=opening))
    with pytest.raises(ValueError, match="unvisited = 'forbid'"):
        made(logs, EstimationConfig(unvisited="forbid"))
    with pytest.raises(ValueError, match="most_hidden_states = 1"):
        made(logs, most_hidden_states=1)
    with pytest.raises(LogsError, match="before the first decision, so that") as error:
        estimate_models(logs, estimators()["tabular"]())
    assert error.value.hint == "pass `--estimator hidden`"


@pytest.mark.slow
def test_equal_seeds_give_equal_models():
    logs = listened(30)
    first, again = (made(logs)[0].models[0] for _ in range(2))
    np.testing.assert_array_equal(first.transition, again.transition)
    assert np.isfinite(log_factors_of(first, logs)).all()


def log_factors_of(model, logs):
    from sdm.data.estimation.baum_welch import HiddenModel

    space = space_of(logs)
    made = HiddenModel(
        model.initial,
        jnp.full((5, 5), 0.2),
        jnp.moveaxis(model.transition, 1, 0),
        model.observation,
    )
    return np.asarray(log_factors(made, sequences_of(logs, space)))
