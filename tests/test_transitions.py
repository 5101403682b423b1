"""Sparse transitions agree with dense ones, and nothing of size S x S is made."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from sdm.solvers_jax import (
    MDP,
    POMDP,
    RobustMDP,
    belief_tree_value,
    evaluate_policy,
    hidden_model,
    solve,
)
from sdm.solvers_jax.belief_model import equal_actions
from sdm.storage.memory import MemoryLimitError
from sdm.tasks.belief import belief_filter
from sdm.tasks.cassandra_writer import save_pomdp
from sdm.tasks.model_files import load_model, save_npz
from sdm.tasks.policy import deterministic
from sdm.tasks.rollout import rollout, task_keys
from sdm.tasks.transition_lists import sparse, sparse_transition
from sdm.tasks.transitions import (
    SparseTransition,
    dense,
    is_sparse,
    reaches,
    take_tasks,
)

S, A, N, T = 9, 3, 4, 6
# Sums of N products in another order than those of S products with zeros: a few units
# in the last place of float32 values of about 10.
ROUNDING = 1e-5
BATCHES = [((), False), ((5,), True), ((5,), False), ((70,), True), ((2, 3), True)]


def lists(batch, shared, *, seed=0, lead=()):
    rng = np.random.default_rng(seed)
    index = rng.integers(0, S, (S, A, N) if shared else (*batch, *lead, S, A, N))
    chance = rng.dirichlet(np.ones(N), (*batch, *lead, S, A)).astype(np.float32)
    return sparse_transition(index, chance)


def rest(batch, *, seed=1):
    rng = np.random.default_rng(seed)
    reward = jnp.asarray(rng.random((*batch, S, A)), jnp.float32)
    initial = jnp.asarray(rng.dirichlet(np.ones(S), batch), jnp.float32)
    return reward, initial


def pair(batch, shared):
    transition = lists(batch, shared)
    return [MDP(x, *rest(batch), 0.95) for x in (transition, dense(transition))]


def same(found, wanted):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, atol=ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "shared"), BATCHES)
def test_solutions_of_sparse_and_dense_models_agree(batch, shared):
    listed, full = pair(batch, shared)
    found = solve(listed, horizon=T)
    same(found, solve(full, horizon=T))
    policy = jax.nn.one_hot(found.policy, A, dtype=jnp.float32)
    value = evaluate_policy(listed, policy)
    same(value, evaluate_policy(full, policy))
    same(value, found.value)


@pytest.mark.parametrize("shared", [True, False])
def test_robust_solutions_of_sparse_and_dense_models_agree(shared):
    transition = lists((4,), shared, lead=(3,))
    reward, initial = rest((4,))
    for alpha in (0.0, 0.3, 1.0):
        found, wanted = (
            solve(RobustMDP(x, reward, initial, alpha, 0.9), horizon=T)
            for x in (transition, dense(transition))
        )
        same(found, wanted)


@pytest.mark.parametrize(("batch", "shared"), [((5,), True), ((5,), False)])
def test_episodes_of_sparse_and_dense_models_agree(batch, shared):
    """Next states ascend, so equal random numbers sample equal next states."""
    listed, full = pair(batch, shared)
    policy = deterministic(solve(listed, horizon=T).policy, A)
    keys = task_keys(jax.random.key(0), 5)
    found, wanted = (
        rollout(keys, model, policy, horizon=T, episodes=50) for model in (listed, full)
    )
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_beliefs_of_sparse_and_dense_models_agree(shared):
    rng, transition = np.random.default_rng(3), lists((4,), shared)
    shown = jnp.asarray(rng.dirichlet(np.ones(2), (4, A, S)), jnp.float32)
    beliefs = []
    for moves in (transition, dense(transition)):
        bayes = belief_filter(POMDP(moves, shown, *rest((4,)), 1.0))
        state = bayes.start(6)
        for t in range(3):
            state = bayes.update(state, jnp.full((4, 6), t), jnp.full((4, 6), t % 2))
        beliefs.append(state.belief)
    np.testing.assert_allclose(beliefs[0], beliefs[1], atol=1e-6)  # of about 0.1
    np.testing.assert_allclose(beliefs[0].sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize(("batch", "shared"), BATCHES)
def test_a_dense_transition_comes_back_from_its_sparse_form(batch, shared):
    wanted = dense(lists(batch, shared))
    found = sparse(wanted)
    assert is_sparse(found) and found.probabilities.shape[-1] <= N
    np.testing.assert_array_equal(dense(found), wanted)


def test_tasks_with_the_same_next_states_share_their_list():
    assert sparse(dense(lists((5,), True))).shared
    assert not sparse(dense(lists((5,), False))).shared


def test_states_that_are_listed_twice_are_merged():
    index = np.array([[[2, 0, 2, 2]], [[1, 1, 0, 0]], [[0, 1, 2, 2]]])
    chance = np.array([[[0.1, 0.4, 0.2, 0.3]], [[0.5, 0.5, 0, 0]], [[0, 0, 0.5, 0.5]]])
    found = sparse_transition(index, chance)
    wanted = [[[0.4, 0, 0.6]], [[0, 1, 0]], [[0, 0, 1]]]
    np.testing.assert_allclose(dense(found), wanted, atol=1e-7)  # rounding of float32
    assert (np.diff(found.successors, axis=-1) >= 0).all()
    positive = np.asarray(found.probabilities) > 0
    for row, here in zip(found.successors[:, 0], positive[:, 0], strict=True):
        assert len(set(np.asarray(row)[here])) == here.sum()


def test_some_tasks_of_a_batch_are_chosen():
    for shared in (True, False):
        listed, full = pair((5,), shared)
        chosen = slice(1, 4)
        some = take_tasks(listed, chosen)
        np.testing.assert_array_equal(dense(some.transition), full.transition[chosen])
        assert some.reward.shape == (3, S, A) and some.discount == 0.95


@pytest.mark.parametrize(
    ("index", "chance", "error", "words"),
    [
        ([[[0, 3]]], [[[0.5, 0.5]]], ValueError, r"successors\[0, 0, 1\] = 3"),
        ([[[-1, 0]]], [[[0.5, 0.5]]], ValueError, r"successors\[0, 0, 0\] = -1"),
        ([[[0.0, 0.0]]], [[[0.5, 0.5]]], TypeError, "must be integers"),
        ([[[0]]], [[[0.5, 0.5]]], ValueError, r"has shape \(1, 1, 1\)"),
    ],
)
def test_invalid_lists_are_refused(index, chance, error, words):
    with pytest.raises(error, match=words):
        sparse_transition(index, chance)


def test_a_large_model_makes_no_array_of_states_by_states():
    """One dense array would take 40 GB."""
    states = 100_000
    rng = np.random.default_rng(0)
    transition = sparse_transition(
        rng.integers(0, states, (states, 1, 2)),
        np.full((states, 1, 2), 0.5, np.float32),
    )
    reward = jnp.asarray(rng.random((states, 1)), jnp.float32)
    model = MDP(transition, reward, jnp.full(states, 1 / states, jnp.float32), 1.0)
    found = solve(model, horizon=2)
    ahead = np.asarray(reward)[:, 0][np.asarray(transition.successors)[:, 0]]
    wanted = np.asarray(reward)[:, 0] + ahead.mean(-1)
    np.testing.assert_allclose(found.state_value[0], wanted, atol=1e-6)


def listed_model(batch=(), *, shared=True):
    return MDP(lists(batch, shared), *rest(batch), 0.9)


@pytest.mark.parametrize(("batch", "shared"), [((), True), ((3,), True), ((3,), False)])
def test_a_model_file_keeps_the_lists(tmp_path, batch, shared):
    model = listed_model(batch, shared=shared)
    save_npz(model, tmp_path / "own.npz")
    found = load_model(tmp_path / "own.npz")
    assert is_sparse(found.transition)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(np.asarray(x, np.asarray(y).dtype), y)


def csr_of(model):
    """Write as SciPy does, with its own code for compressed rows."""
    matrix = scipy.sparse.csr_matrix(np.asarray(dense(model.transition)).reshape(-1, S))
    return {name: getattr(matrix, name) for name in ("data", "indices", "indptr")}


def test_a_model_file_with_compressed_rows_of_scipy_is_read(tmp_path):
    model = listed_model()
    other = {"reward": model.reward, "initial": model.initial, "discount": 0.9}
    np.savez(tmp_path / "csr.npz", kind="MDP", **csr_of(model), **other)
    found = load_model(tmp_path / "csr.npz")
    assert is_sparse(found.transition)
    np.testing.assert_array_equal(
        np.asarray(dense(found.transition), np.float32), dense(model.transition)
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"indptr": np.arange(S * A)}, "indptr has shape"),
        ({"indptr": np.zeros(S * A + 1, int)}, "must rise from 0"),
        ({"indices": np.full(S * A * N, S)}, f"successors.* = {S}: must be a state"),
    ],
)
def test_wrong_compressed_rows_are_refused(tmp_path, change, words):
    model = listed_model()
    count = np.arange(0, S * A * N + 1, N)
    rows = {
        "data": np.full(S * A * N, 1 / N),
        "indices": np.tile(np.arange(N), S * A),
        "indptr": count,
    }
    other = {"reward": model.reward, "initial": model.initial, "discount": 0.9}
    np.savez(tmp_path / "csr.npz", kind="MDP", **{**rows, **change}, **other)
    with pytest.raises(ValueError, match=words):
        load_model(tmp_path / "csr.npz")


@pytest.mark.slow
def test_a_text_file_with_few_next_states_has_lists(tmp_path):
    """A ring of 200 states: two next states each, so lists are 100 times smaller."""
    states = 200
    lines = ["discount: 0.9", "values: reward", f"states: {states}", "actions: 2"]
    for s in range(states):
        lines += [f"T: 0 : {s} : {(s + 1) % states} 0.75", f"T: 0 : {s} : {s} 0.25"]
        lines += [f"T: 1 : {s} : {s} 1"]
    lines += ["R: 0 : 7 : * : * 1", "R: 1 : * : * : * 0.1"]
    (tmp_path / "ring.MDP.POMDP").write_text("\n".join(lines) + "\n")
    found = load_model(tmp_path / "ring.MDP.POMDP")
    assert is_sparse(found.transition)
    assert found.transition.probabilities.shape == (states, 2, 2)
    wanted = np.zeros((states, 2, states))
    here = np.arange(states)
    wanted[here, 0, (here + 1) % states], wanted[here, 0, here] = 0.75, 0.25
    wanted[here, 1, here] = 1
    np.testing.assert_array_equal(dense(found.transition), wanted)
    full = MDP(dense(found.transition), found.reward, found.initial, found.discount)
    same(solve(found, horizon=5), solve(full, horizon=5))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["points", "exact", "tree"])
def test_pomdps_with_lists_are_solved(method):
    rng = np.random.default_rng(5)
    shown = jnp.asarray(rng.dirichlet(np.ones(2), (A, S)), jnp.float32)
    moves = lists((), True)
    values = []
    for transition in (moves, dense(moves)):
        model = POMDP(transition, shown, *rest(()), 0.9)
        if method == "tree":
            values.append(belief_tree_value(model, horizon=2))
        else:
            values.append(solve(model, horizon=2, method=method).value)
    np.testing.assert_allclose(*values, atol=ROUNDING)


def test_actions_with_equal_rewards_and_lists_are_one():
    reward, initial = rest(())
    moves, shown = lists((), True), jnp.full((A, S, 2), 0.5, jnp.float32)
    paid = jnp.broadcast_to(reward[:, :1], reward.shape)  # costs of moves are often so
    found = POMDP(moves, shown, paid, initial, 0.9)
    assert equal_actions(found) == (0, 1, 2)
    chance, index = moves.probabilities, moves.successors
    twice = SparseTransition(index, chance.at[:, 2].set(chance[:, 0]))
    assert equal_actions(eqx.tree_at(lambda m: m.transition, found, twice))[2] == 2
    twice = SparseTransition(index.at[:, 2].set(index[:, 0]), chance)
    assert equal_actions(eqx.tree_at(lambda m: m.transition, found, twice))[2] == 2
    twice = SparseTransition(twice.successors, chance.at[:, 2].set(chance[:, 0]))
    copy = eqx.tree_at(lambda m: m.transition, found, twice)
    assert equal_actions(copy) == (0, 1, 0)
    full = eqx.tree_at(lambda m: m.transition, copy, dense(twice))
    values = [solve(x, horizon=2, method="exact").value for x in (copy, full)]
    np.testing.assert_allclose(*values, atol=ROUNDING)


def test_a_dense_transition_that_does_not_fit_says_so(monkeypatch):
    shown = jnp.ones((A, S, 1), jnp.float32)
    model = POMDP(lists((), True), shown, *rest(()), 1.0)
    monkeypatch.setattr("sdm.storage.memory.available_memory", lambda: 100)
    for method in ("points", "exact"):
        with pytest.raises(MemoryLimitError, match=r"\(9, 3, 9\) needs .* of memory"):
            solve(model, horizon=2, method=method)


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "shared"), BATCHES)
def test_lists_reach_what_dense_rows_reach(batch, shared):
    """States of probability zero that fill up a list are not reached."""
    moves = sparse(dense(lists(batch, shared)))
    assert (moves.probabilities == 0).any()
    chosen = jnp.asarray(np.random.default_rng(6).random((*batch, S)) < 0.2)
    np.testing.assert_array_equal(reaches(moves, chosen), reaches(dense(moves), chosen))


def test_a_model_with_lists_is_written_as_text(tmp_path):
    model = listed_model()
    save_pomdp(model, tmp_path / "own.POMDP")
    found = load_model(tmp_path / "own.POMDP")
    wanted = np.asarray(dense(model.transition), np.float64)
    # Every digit is written, and the rows of float32 numbers sum to 1 up to 1e-7.
    np.testing.assert_allclose(dense(found.transition), wanted, atol=1e-6)


@pytest.mark.slow
def test_candidates_with_lists_make_a_hidden_model():
    transition = lists((3,), True)
    reward, initial = rest((3,))
    plans = [
        solve(
            hidden_model(MDP(x, reward, initial, 0.9), jnp.full((1, 3), 1 / 3)),
            horizon=2,
        )
        for x in (transition, dense(transition))
    ]
    for bound in ("lower", "upper"):
        values = [np.asarray(getattr(plan, bound)) for plan in plans]
        np.testing.assert_allclose(*values, atol=ROUNDING)
