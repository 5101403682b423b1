"""The policy of a solution, exported and simulated, earns what it is said to earn."""

import xml.etree.ElementTree as ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_apomdp, random_mdp, random_pomdp
from tolerances import ROUNDING

from sdm.solvers_jax import MDP, RobustMDP, solve
from sdm.solvers_jax.incremental_pruning import IncrementalPruning
from sdm.solvers_jax.pomdp import PointBased
from sdm.solvers_jax.stage_vectors import export_policy, stage_vectors
from sdm.tasks import simulation
from sdm.tasks.simulation import simulate, simulated_returns

HORIZON = 3
KEY = jax.random.key(0)


def read_policy(path):
    """α-vectors, actions and visible values of a file in SARSOP's format."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "Policy" and root.get("type") == "value"
    vectors = root.find("AlphaVector")
    rows = [list(map(float, each.text.split())) for each in vectors]
    assert len(rows) == int(vectors.get("numVectors"))
    assert {len(row) for row in rows} == {int(vectors.get("vectorLength"))}
    seen = [int(each.get("obsValue")) for each in vectors]
    assert max(seen) < int(vectors.get("numObsValue"))
    return np.array(rows), [int(each.get("action")) for each in vectors], seen


def earned(model, files):
    """Exact value of acting on the best vector, by a loop over all histories."""
    policy = [read_policy(path) for path in files]
    transition, observation = (
        np.asarray(model.transition),
        np.asarray(model.observation),
    )

    def after(t, belief):  # belief times the probability of the history
        if t == len(policy) or belief.sum() == 0:
            return 0.0
        vectors, actions, _ = policy[t]
        action = actions[int((vectors @ belief).argmax())]
        total = belief @ np.asarray(model.reward)[:, action]
        moved = belief @ transition[:, action]
        for o in range(observation.shape[-1]):
            rest = after(t + 1, moved * observation[action, :, o])
            total += float(model.discount) * rest
        return total

    start = np.asarray(model.initial)
    if model.initial_observation is None:
        return after(0, start)
    shown = np.asarray(model.initial_observation)
    return sum(after(0, start * shown[:, o]) for o in range(shown.shape[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "method",
    [PointBased(points=4, gap=0.0), IncrementalPruning()],
    ids=["points", "all"],
)
def test_an_exported_policy_earns_its_certificate(tmp_path, method, seed):
    model = random_pomdp(seed, first=seed > 0)
    solution = solve(model, horizon=HORIZON, method=method)
    files = export_policy(solution, tmp_path, model="a & b.POMDP")
    assert [path.name for path in files] == [f"stage-00{t}.policy" for t in range(3)]
    last, actions, _ = read_policy(files[-1])  # one decision is left
    np.testing.assert_allclose(last, np.asarray(model.reward).T[actions], atol=ROUNDING)
    value = earned(model, files)
    assert float(solution.lower) - ROUNDING <= value <= float(solution.upper) + ROUNDING


def test_an_exported_policy_of_an_mdp_is_its_policy(tmp_path):
    solution = solve(random_mdp(0), horizon=HORIZON)
    for t, path in enumerate(export_policy(solution, tmp_path)):
        vectors, actions, seen = read_policy(path)
        np.testing.assert_array_equal(vectors[:, 0], solution.state_value[t])
        np.testing.assert_array_equal(actions, solution.policy[t])
        assert seen == list(range(len(actions)))


@pytest.mark.slow
def test_policies_without_vectors_are_refused(tmp_path):
    ambiguous = solve(random_apomdp(0, 0.5), horizon=2, points=8)
    with pytest.raises(TypeError, match="APOMDPSolution has none"):
        stage_vectors(ambiguous, 0)
    batch = solve(random_mdp(0, 2), horizon=2)
    with pytest.raises(ValueError, match=r"one task, found a batch of shape \(2,\)"):
        export_policy(batch, tmp_path)
    with pytest.raises(ValueError, match="t = 2: must be a whole number from 0 to 1"):
        stage_vectors(solve(random_mdp(0), horizon=2), 2)
    assert not list(tmp_path.iterdir())


def expected(transition, reward, initial, discount, policy):
    """Exact value of a policy by stage and state in one MDP."""
    value = np.zeros(len(initial))
    for actions in np.asarray(policy)[::-1]:
        value = np.array(
            [
                reward[s, a] + discount * transition[s, a] @ value
                for s, a in enumerate(actions)
            ]
        )
    return initial @ value


def near(found, value):
    """Whether means are within four standard errors: a chance of 6e-5 by mistake."""
    half = (found.high - found.low) / 2
    return np.abs(found.mean - value) <= 4 / 1.96 * half + ROUNDING


@pytest.mark.slow
def test_simulated_returns_are_those_that_are_expected():
    mdp, pomdp = random_mdp(0), random_pomdp(0)
    solution = solve(mdp, horizon=HORIZON)
    found = simulate(KEY, mdp, solution, horizon=HORIZON, episodes=3000)
    assert near(found, float(solution.value)).all() and found.mean.shape == (1,)
    assert 0 < found.high - found.low < 0.2
    solution = solve(pomdp, horizon=HORIZON, method=IncrementalPruning())
    found = simulate(KEY, pomdp, solution, horizon=HORIZON, episodes=3000)
    assert near(found, float(solution.value)).all()
    single = simulate(KEY, mdp, solve(mdp, horizon=2), horizon=2, episodes=1)
    assert np.isfinite(single.mean).all() and np.isnan(single.low).all()


@pytest.mark.slow
def test_a_set_of_models_is_played_in_each():
    ambiguous = random_apomdp(0, 0.5)
    model = RobustMDP(
        ambiguous.transition, ambiguous.reward, ambiguous.initial, 0.5, 0.9
    )
    solution = solve(model, horizon=HORIZON)
    found = simulate(KEY, model, solution, horizon=HORIZON, episodes=3000)
    wanted = [
        expected(np.asarray(p), np.asarray(model.reward), model.initial, 0.9, plan)
        for p, plan in ((p, solution.policy) for p in model.transition)
    ]
    assert near(found, np.array(wanted)).all()
    assert np.ptp(wanted) > 0.01, "models that differ"
    hidden = solve(ambiguous, horizon=2, points=8)
    again = simulate(KEY, ambiguous, hidden, horizon=2, episodes=5)
    assert again.mean.shape == (len(ambiguous.transition),)


def test_episodes_depend_on_the_key_only(monkeypatch):
    mdp = random_mdp(1)
    solution = solve(mdp, horizon=HORIZON)

    def returns(episodes, key=KEY):
        (one,) = simulated_returns(
            key, mdp, solution, horizon=HORIZON, episodes=episodes
        )
        assert len(one) == episodes
        return one.tolist()

    assert returns(20) != returns(20, jax.random.key(1))
    assert returns(20)[:5] == returns(5)
    monkeypatch.setattr(simulation, "MOST_AT_ONCE", 8)
    in_blocks = returns(20)
    assert in_blocks[:9] == returns(9)
    assert len({tuple(in_blocks[i : i + 8]) for i in (0, 8)}) == 2, "blocks differ"
    with pytest.raises(ValueError, match="episodes = 0"):
        returns(0)


def test_models_that_cannot_be_played_are_named():
    class Other:
        pass

    with pytest.raises(TypeError, match="not available for Other models"):
        simulate(KEY, Other(), solve(random_mdp(0), horizon=1), horizon=1, episodes=1)


def test_a_policy_is_played_in_its_own_states():
    """Each state has an action of its own: a plan that ignores the state fails."""
    stay = jnp.stack([jnp.eye(2), jnp.eye(2)], axis=1)
    model = MDP(stay, jnp.eye(2), jnp.full(2, 0.5), 1.0)
    found = simulate(KEY, model, solve(model, horizon=3), horizon=3, episodes=50)
    np.testing.assert_array_equal([found.low, found.mean, found.high], 3.0)
